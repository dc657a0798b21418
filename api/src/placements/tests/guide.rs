//! The commands of docs/placement.md, run as they stand there.

use serde_json::{Value, json};

use crate::instances::place_pending;
use crate::testing::{TestCloud, guide};

const GUIDE: &str = include_str!("../../../../docs/placement.md");

#[tokio::test]
async fn the_commands_of_the_guide_work() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.lift_quotas().await;
    let huge = json!({"name": "huge", "vcpus": 100, "memory_mib": 256, "root_disk_gib": 1});
    cloud.post("/v1/instance_types", huge).await.expect(201);
    let _host = cloud.join_host("host-1").await;
    // What `make up` has made is called otherwise here.
    let text = GUIDE.replace("cumulo-test", "image");
    let commands = guide::commands(&text);
    assert!(commands.len() > 18, "{commands:?}");
    let (mut big, mut last) = (String::new(), Value::Null);
    for command in commands {
        let command: Vec<_> = command.iter().map(|word| word.replace("$ID", &big)).collect();
        let answer = guide::run(&cloud, &command).await;
        if command.iter().any(|word| word.contains("\"fail\"")) {
            answer.expect_problem(409, "insufficient_capacity");
            continue;
        }
        assert!(answer.status.is_success(), "{command:?}: {answer:?}");
        last = if answer.body.is_empty() { Value::Null } else { answer.json() };
        place_pending(&cloud.app).await.unwrap();
        match last["name"].as_str() {
            Some("big") => big = last["id"].as_str().unwrap().to_owned(),
            Some("web-2") => {
                let waiting = cloud.get("/v1/projects/demo/instances/web-2").await.expect(200);
                let words = waiting["placement"]["summary"].as_str().unwrap();
                assert!(GUIDE.replace('\n', " ").contains(words), "{words}");
            }
            _ => {}
        }
    }
    assert!(last["room"].is_u64(), "{last}");
}

#[test]
fn every_reason_stands_in_the_guide_with_its_words() {
    for reason in crate::scheduler::Rejection::ALL {
        let name = serde_json::to_value(reason).unwrap();
        let name = format!("`{}`", name.as_str().unwrap());
        assert!(GUIDE.lines().any(|line| line.starts_with('|') && line.contains(&name)), "{name}");
    }
}

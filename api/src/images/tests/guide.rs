//! The commands of docs/images.md, run as they stand there.

use serde_json::{Value, json};

use crate::testing::{TestCloud, guide};

const GUIDE: &str = include_str!("../../../../docs/images.md");

#[tokio::test]
async fn the_commands_of_the_guide_work() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/projects", json!({"name": "shop"})).await.expect(201);
    // What comes after needs a web server, or breaks off on purpose: see `import` and `uploads`.
    let commands = guide::commands(GUIDE.split("\n## Import by URL").next().unwrap());
    assert!(commands.len() > 15, "{commands:?}");
    let mut last = Value::Null;
    for command in commands {
        let answer = guide::run(&cloud, &command).await;
        assert!(answer.status.is_success(), "{command:?}: {answer:?}");
        last = if answer.body.is_empty() { Value::Null } else { answer.json() };
    }
    assert_eq!((&last["image"]["name"], &last["image"]["gone"]), (&json!("debian-12"), &json!(true)));
}

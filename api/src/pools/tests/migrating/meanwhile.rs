//! What else happens while a guest is on its way, or is about to go.

use serde_json::{Value, json};

use super::super::execute;
use super::super::merging::{asked, asked_of, report, root};
use super::{MIGRATE, two};
use crate::instances::evacuate;
use crate::testing::TestCloud;
use crate::volumes::merge;

fn up() -> Value {
    json!({"state": "running"})
}

#[tokio::test]
async fn nothing_goes_before_what_was_merged_is_taken_in() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let (web, home, _) = asked(&cloud, &hosts, &["one", "two"]).await;
    let maintenance = format!("/v1/hosts/{}", home.id);
    for merged in [false, true] {
        let (_, disk) = root(home, &web).await;
        let merges = if merged { disk["merges"].clone() } else { json!([]) };
        report(home, &web, up(), merges).await;
        let refused = cloud.post(MIGRATE, json!({})).await.expect_problem(409, "wrong_state");
        assert!(refused["detail"].as_str().unwrap().contains("merging"), "{refused}");
        cloud.post(&format!("{maintenance}/drain"), json!({})).await.expect(202);
        evacuate(&cloud.app).await.unwrap();
        let told = cloud.get(&format!("{maintenance}/evacuations")).await.expect(200);
        assert_eq!(told["items"][0]["code"], "merging", "{told}");
        cloud.post(&format!("{maintenance}/end_maintenance"), json!({})).await.expect(200);
    }
    merge(&cloud.app).await.unwrap();
    report(home, &web, up(), json!([])).await;
    cloud.post(MIGRATE, json!({})).await.expect(202);
}

#[tokio::test]
async fn one_merge_that_cannot_be_taken_in_keeps_no_other_waiting() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let mut merging = Vec::new();
    for (name, snapshots) in [("web", ["one", "two"]), ("other", ["three", "four"])] {
        let (instance, home, _) = asked_of(&cloud, &hosts, name, &snapshots).await;
        merging.push((instance, home));
    }
    for (instance, home) in &merging {
        let (_, disk) = root(home, instance).await;
        report(home, instance, up(), disk["merges"].clone()).await;
    }
    // No call does that any more.
    execute(
        &cloud,
        "INSERT INTO migrations (id, instance_id, operation_id, source_host_id, destination_host_id, vcpus, memory_mib,
                                 max_downtime_ms, due_at, desired_revision)
         SELECT gen_random_uuid(), i.id, i.operation_id, i.host_id, h.id, 1, 256, 300, '2030-01-01', 0
         FROM instances i JOIN hosts h ON h.id <> i.host_id WHERE i.name = 'web'",
    )
    .await;
    let merges = async || {
        let mut left = Vec::new();
        for (instance, home) in &merging {
            left.push(root(home, instance).await.1.get("merges").is_some());
        }
        left
    };
    assert_eq!(merges().await, [true, true]);
    merge(&cloud.app).await.unwrap();
    assert_eq!(merges().await, [true, false]);
    execute(&cloud, "SELECT end_migration(id) FROM instances WHERE name = 'web'").await;
    merge(&cloud.app).await.unwrap();
    assert_eq!(merges().await, [false, false]);
}

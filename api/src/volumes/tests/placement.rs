//! An instance goes where the data of its volumes is.

use serde_json::json;

use super::{DATA, INSTANCES, VOLUMES, attach, data, execute, findings, instance, running, state};
use crate::instances::place_pending;
use crate::testing::TestCloud;

#[tokio::test]
async fn an_instance_goes_only_to_the_host_with_its_volumes() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let mut body = instance("web");
    body["volumes"] = json!([{"size_gib": 2, "name": "data"}]);
    let web = cloud.post(INSTANCES, body).await.expect(202);
    let home = cloud.join_host("host-1").await;
    place_pending(&cloud.app).await.unwrap();
    home.report(&web["id"], 1, 1, running()).await;
    cloud.delete(&format!("{INSTANCES}/web")).await.expect(202);
    home.report(&web["id"], 2, 1, json!({"state": "absent"})).await;
    assert_eq!(state(&cloud, DATA).await, "available");
    let roomier = cloud.join_host("host-2").await;
    execute(&cloud, "UPDATE hosts SET vcpus_capacity = 2 WHERE name = 'host-1'").await;

    let mut body = instance("next");
    body["volumes"] = json!([{"volume": "data"}]);
    let next = cloud.post(INSTANCES, body.clone()).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let (_, disks) = home.disks(&next["id"]).await.expect("it is elsewhere");
    assert_eq!(disks.len(), 2);

    // Attached to what is elsewhere it would be of no use.
    let far = cloud.post(INSTANCES, instance("far")).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    roomier.disks(&far["id"]).await.expect("it is at home");
    home.report(&next["id"], 1, 1, running()).await;
    super::detach(&cloud, "next", "data").await.expect(202);
    home.report(&next["id"], 2, 1, running()).await;
    let refused = attach(&cloud, "far", "data").await.expect_problem(409, "wrong_state");
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("on another host") && !detail.contains("host-"), "{detail}");

    execute(&cloud, "UPDATE hosts SET vcpus_capacity = vcpus_reserved WHERE name = 'host-1'").await;
    body["name"] = json!("late");
    let plan = cloud.post(&format!("{INSTANCES}?dry_run=true"), body.clone()).await.expect(200);
    assert_eq!(plan["plan"]["placeable"], false);
    let expected = "none of 2 hosts takes it: 1 without the data of its volumes, 1 too few free vCPUs; no \
                    change of it would help now, an operator can look into it";
    assert_eq!(plan["plan"]["placement"]["summary"], expected);
    cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let late = cloud.get(&format!("{INSTANCES}/late")).await.expect(200);
    assert_eq!(late["placement"]["summary"], expected);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_running_instance_gets_only_what_its_host_has_room_for() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    super::run(&cloud, &host, "web").await;
    data(&cloud).await;
    cloud.post(VOLUMES, json!({"name": "huge", "size_gib": 95})).await.expect(201);
    attach(&cloud, "web", "huge").await.expect_problem(409, "insufficient_capacity");
    attach(&cloud, "web", "data").await.expect(202);
    assert_eq!(state(&cloud, &format!("{VOLUMES}/huge")).await, "available");
    // No host has room for all of it.
    let mut body = instance("next");
    body["volumes"] = json!([{"volume": "huge"}]);
    cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let next = cloud.get(&format!("{INSTANCES}/next")).await.expect(200);
    assert_eq!(next["placement"]["rejections"], json!([{"reason": "disk", "hosts": 1}]));
    assert_eq!(next["placement"]["nearest_miss"]["asked"]["disk_gib"], 96);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

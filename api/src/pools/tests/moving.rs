//! A stopped instance goes to another host, and only then.

use serde_json::{Value, json};

use super::{INSTANCES, WEB, execute, findings, instance, made, two_with_the_pool};
use crate::instances::place_pending;
use crate::testing::{TestCloud, TestHost};
use crate::volumes::merge;

const SNAPSHOTS: &str = "/v1/projects/demo/snapshots";

async fn move_it(cloud: &TestCloud) -> crate::testing::Answer {
    cloud.post(&format!("{WEB}/move"), json!({})).await
}

/// What the host has to let go of.
async fn deletions(host: &TestHost<'_>) -> Vec<Value> {
    let page = host.desired(0).await;
    let objects = page["objects"].as_array().unwrap().clone();
    objects.into_iter().filter(|object| object["kind"] == "delete_instance").collect()
}

#[tokio::test]
async fn it_moves_when_its_host_has_said_that_it_is_stopped() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = made(&cloud, &hosts, instance("web")).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    let refused = move_it(&cloud).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("stop it first"), "{refused}");
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    let refused = move_it(&cloud).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("not confirmed"), "{refused}");
    home.report(&web["id"], 1, 1, json!({"state": "stopped", "reason": "guest_shutdown"})).await;
    move_it(&cloud).await.expect_problem(409, "wrong_state");
    home.report(&web["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;

    let moving = move_it(&cloud).await.expect(202);
    assert_eq!(
        (&moving["state"], &moving["operation"]["kind"]),
        (&json!("pending"), &json!("move_instance"))
    );
    let told = deletions(home).await;
    assert_eq!((told.len(), &told[0]["generation"], told[0].get("pools")), (1, &json!(3), None));
    assert_eq!(told[0]["layers"], json!([]), "its data stays");
    place_pending(&cloud.app).await.unwrap();
    assert!(home.disks(&web["id"]).await.is_none());
    let (generation, disks) = away.disks(&web["id"]).await.expect("it is nowhere");
    assert_eq!((generation, disks.len()), (3, 1));
    // What the host says that had it counts no more.
    home.report(&web["id"], 3, 1, json!({"state": "running"})).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "provisioning");
    away.report(&web["id"], 3, 1, json!({"state": "stopped", "reason": "never_started"})).await;
    let there = cloud.get(&format!("{WEB}?wait=1")).await.expect(200);
    assert_eq!((&there["state"], &there["operation"]["status"]), (&json!("stopped"), &json!("succeeded")));
    let late = away.report(&web["id"], 3, 1, json!({"state": "absent"})).await;
    assert_eq!(late["ignored"], json!([web["id"]]), "what it says of an earlier stay");
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "stopped");
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    away.report(&web["id"], 4, 2, json!({"state": "running"})).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");

    // It comes back once the host that it has left has confirmed that.
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    away.report(&web["id"], 5, 2, json!({"state": "stopped", "reason": "requested"})).await;
    move_it(&cloud).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let waits = cloud.get(WEB).await.expect(200);
    assert_eq!(waits["placement"]["rejections"], json!([{"reason": "leaving", "hosts": 2}]));
    let accepted = home.report(&web["id"], 3, 0, json!({"state": "absent"})).await;
    assert_eq!(accepted["ignored"], json!([]), "the agent may forget it");
    assert_eq!(deletions(home).await, Vec::<Value>::new());
    place_pending(&cloud.app).await.unwrap();
    home.disks(&web["id"]).await.expect("it did not come back");
    away.report(&web["id"], 6, 0, json!({"state": "absent"})).await;
    let events = cloud.get("/v1/projects/demo/operations").await.expect(200);
    assert!(events["items"].as_array().unwrap().iter().any(|one| one["kind"] == "move_instance"));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn it_waits_for_the_layers_that_its_host_merges() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = made(&cloud, &hosts, instance("web")).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    let root = &web["volumes"][0]["volume"]["id"];
    for name in ["one", "two"] {
        cloud.post(SNAPSHOTS, json!({"name": name, "volume": root})).await.expect(202);
        let (generation, _) = home.disks(&web["id"]).await.unwrap();
        home.report(&web["id"], generation, 1, json!({"state": "running"})).await;
    }
    cloud.delete(&format!("{SNAPSHOTS}/one")).await.expect(204);
    merge(&cloud.app).await.unwrap();
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    let stopped = json!({"state": "stopped", "reason": "requested"});
    let (generation, disks) = home.disks(&web["id"]).await.unwrap();
    home.report(&web["id"], generation, 1, stopped.clone()).await;
    let (volume, layers) = (&disks[0]["volume"], &disks[0]["volume"]["layers"]);
    assert_eq!(volume["merges"], json!([layers[1]]));
    let refused = move_it(&cloud).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("merging layers of its volume"), "{refused}");

    let said = json!([{"id": volume["id"], "generation": volume["generation"], "state": "ready",
                       "merged": [layers[1]]}]);
    home.report_with(&web["id"], generation, 1, stopped.clone(), said).await;
    merge(&cloud.app).await.unwrap();
    let (generation, _) = home.disks(&web["id"]).await.unwrap();
    home.report(&web["id"], generation, 1, stopped).await;
    move_it(&cloud).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    away.disks(&web["id"]).await.expect("it is nowhere");
}

#[tokio::test]
async fn what_has_data_on_a_host_that_cannot_send_it_stays_there() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let mut body = instance("web");
    body["volumes"] = json!([{"size_gib": 1, "name": "own"}]);
    let waiting = cloud.post(&format!("{INSTANCES}?dry_run=true"), body.clone()).await.expect(200);
    assert_eq!(waiting["plan"]["placeable"], true);
    let (web, home, _) = made(&cloud, &hosts, body).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    home.report(&web["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;
    let refused = move_it(&cloud).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("cannot send its disks"), "{refused}");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn it_goes_back_where_it_was_when_no_other_host_takes_it() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = made(&cloud, &hosts, instance("web")).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    home.report(&web["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;
    let sql = format!("UPDATE hosts SET vcpus_capacity = vcpus_reserved WHERE id = '{}'", away.id);
    execute(&cloud, &sql).await;
    move_it(&cloud).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "pending");
    home.report(&web["id"], 3, 0, json!({"state": "absent"})).await;
    place_pending(&cloud.app).await.unwrap();
    home.disks(&web["id"]).await.expect("it is nowhere");
    // It tells a second time that it has let go: the instance is there again, and waits for it.
    let late = home.report(&web["id"], 3, 0, json!({"state": "absent"})).await;
    assert_eq!(late["ignored"], json!([web["id"]]));
    let back = cloud.get(WEB).await.expect(200);
    assert_eq!((&back["state"], &back["state_reason"]), (&json!("provisioning"), &json!("awaiting_host")));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn one_that_has_outgrown_its_host_goes_to_another_and_back_to_its_size() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let new = json!({"name": "large", "vcpus": 8, "memory_mib": 512, "root_disk_gib": 1});
    cloud.post("/v1/instance_types", new).await.expect(201);
    let (web, home, away) = made(&cloud, &hosts, instance("web")).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    let sql = format!("UPDATE hosts SET vcpus_capacity = 4 WHERE id = '{}'", home.id);
    execute(&cloud, &sql).await;
    let resize = json!({"instance_type": "large", "reboot": true});
    let refused = cloud.post(&format!("{WEB}/resize"), resize.clone()).await;
    let refused = refused.expect_problem(409, "insufficient_capacity");
    assert!(refused["detail"].as_str().unwrap().contains("stop it first"), "{refused}");
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    home.report(&web["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;

    // No host at all takes it: it stays where it is.
    let sql = format!("UPDATE hosts SET vcpus_capacity = 4 WHERE id = '{}'", away.id);
    execute(&cloud, &sql).await;
    let plan = cloud.post(&format!("{WEB}/resize?dry_run=true"), resize.clone()).await.expect(200);
    assert_eq!(plan["plan"]["placeable"], false, "{plan}");
    cloud.post(&format!("{WEB}/resize"), resize.clone()).await.expect_problem(409, "insufficient_capacity");
    home.disks(&web["id"]).await.expect("it has left its host");
    let sql = format!("UPDATE hosts SET vcpus_capacity = 8 WHERE id = '{}'", away.id);
    execute(&cloud, &sql).await;

    cloud.post(&format!("{WEB}/resize"), resize).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(deletions(home).await.len(), 1);
    let (generation, _) = away.disks(&web["id"]).await.expect("it is nowhere");
    away.report(&web["id"], generation, 1, json!({"state": "stopped", "reason": "never_started"})).await;
    let there = cloud.get(WEB).await.expect(200);
    assert_eq!((&there["state"], &there["vcpus"]), (&json!("stopped"), &json!(8)));
    // It goes back to its size where it is.
    cloud.post(&format!("{WEB}/revert_resize"), json!({})).await.expect(202);
    assert_eq!(cloud.get(WEB).await.expect(200)["vcpus"], 1);
    home.report(&web["id"], generation, 0, json!({"state": "absent"})).await;
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

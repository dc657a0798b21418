//! What becomes of instances whose host is lost.

use serde_json::json;

use super::{DATA, INSTANCES, VOLUMES, WEB, directory, fast, findings, instance, made, two_with_the_pool};
use crate::instances::place_pending;
use crate::testing::TestCloud;

#[tokio::test]
async fn nothing_moves_from_a_silent_host_until_the_operator_says_that_it_is_dead() {
    let cloud = TestCloud::start().await;
    let mut hosts = two_with_the_pool(&cloud).await;
    let (web, home, _) = made(&cloud, &hosts, instance("web")).await;
    let lost = usize::from(home.id == hosts[1].id);
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    let path = format!("/v1/hosts/{}/declare_dead", home.id);
    let dead = json!({"no_guest_runs": true});
    cloud.post(&path, dead.clone()).await.expect_problem(409, "wrong_state");
    cloud.pass(30);
    hosts[1 - lost].beat(json!([fast(directory(1), 20)])).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    cloud.post(&format!("{WEB}/move"), json!({})).await.expect_problem(409, "wrong_state");
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(cloud.get(WEB).await.expect(200)["state_reason"], "host_unreachable");

    let doubtful = cloud.post(&path, json!({"no_guest_runs": false})).await;
    doubtful.expect_problem(422, "validation_failed");
    let member = cloud.user("member", false).await;
    let headers = [("authorization", member.as_str())];
    let stranger = cloud.call_with(axum::http::Method::POST, &path, &headers, Some(dead.clone())).await;
    assert_ne!(stranger.status, 200);
    let said = cloud.post(&path, dead.clone()).await.expect(200);
    assert!(said["declared_dead_at"].is_string(), "{said}");
    // Alone it changes nothing.
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(cloud.get(WEB).await.expect(200)["state_reason"], "host_unreachable");
    // An agent that lives after all is not heard until it has begun anew.
    let beat = hosts[lost].beat(json!([fast(directory(1), 20)])).await;
    beat.expect_problem(409, "stale_epoch");

    let moving = cloud.post(&format!("{WEB}/move"), json!({})).await.expect(202);
    assert_eq!(moving["state"], "pending");
    place_pending(&cloud.app).await.unwrap();
    let other = &hosts[1 - lost];
    let (generation, _) = other.disks(&web["id"]).await.expect("it is nowhere");
    other.report(&web["id"], generation, 2, json!({"state": "running"})).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");

    // The dead host comes back: it hears that it has nothing of it any more, before anything else.
    hosts[lost].open_session().await;
    let back = cloud.get(&format!("/v1/hosts/{}", hosts[lost].id)).await.expect(200);
    assert!(back.get("declared_dead_at").is_none());
    let page = hosts[lost].desired(0).await;
    assert_eq!(page["objects"][0]["kind"], "delete_instance");
    hosts[lost].report(&web["id"], 2, 1, json!({"state": "running"})).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");
    cloud.post(&format!("{WEB}/move"), json!({})).await.expect_problem(409, "wrong_state");
    hosts[lost].report(&web["id"], 2, 0, json!({"state": "absent"})).await;
    assert_eq!(hosts[lost].desired(0).await["objects"], json!([]));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_instance_on_a_dead_host_is_deleted_without_it() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = made(&cloud, &hosts, instance("web")).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    cloud.pass(30);
    away.beat(json!([fast(directory(1), 20)])).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    let path = format!("/v1/hosts/{}/declare_dead", home.id);
    cloud.post(&path, json!({"no_guest_runs": true})).await.expect(200);
    cloud.delete(WEB).await.expect(202);
    cloud.get(WEB).await.expect_problem(404, "not_found");
    // Its data is removed by a host that lives.
    let page = away.desired(0).await;
    assert_eq!(
        (&page["objects"][0]["kind"], &page["objects"][0]["pool"]),
        (&json!("remove_layers"), &json!("fast"))
    );
    away.report_removed(json!([page["objects"][0]["removal_id"]])).await;
    assert_eq!(cloud.get("/v1/pools/fast").await.expect(200)["disk_gib"]["reserved"], 0);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_shared_volume_of_an_instance_on_a_dead_host_is_let_go_at_once() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let mut body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": []});
    body["volumes"] = json!([{"size_gib": 2, "name": "data", "pool": "fast"}]);
    let (web, home, away) = made(&cloud, &hosts, body).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    cloud.pass(30);
    away.beat(json!([fast(directory(1), 20)])).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    let path = format!("/v1/hosts/{}/declare_dead", home.id);
    cloud.post(&path, json!({"no_guest_runs": true})).await.expect(200);
    // Its own system is lost with the host.
    cloud.post(&format!("{WEB}/move"), json!({})).await.expect_problem(409, "wrong_state");
    cloud.post(&format!("{WEB}/detach_volume"), json!({"volume": "data"})).await.expect(202);
    assert_eq!(cloud.get(DATA).await.expect(200)["state"], "available");
    let mut next = instance("next");
    next["volumes"] = json!([{"volume": "data"}]);
    let next = cloud.post(INSTANCES, next).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(away.disks(&next["id"]).await.expect("it is nowhere").1.len(), 2);
    let volumes = cloud.get(&format!("{VOLUMES}?instance=web")).await.expect(200);
    assert_eq!(volumes["items"].as_array().unwrap().len(), 1);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

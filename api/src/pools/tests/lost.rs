//! What becomes of instances whose host is lost.

use serde_json::{Value, json};

use super::{DATA, INSTANCES, VOLUMES, WEB, directory, fast, findings, instance, made, two_with_the_pool};
use crate::instances::{end_on_lost_hosts, place_pending};
use crate::pools::assign_orders;
use crate::testing::{TestCloud, TestHost};

/// The host has fallen silent, and the operator says that it is dead.
pub(super) async fn dies(cloud: &TestCloud, home: &TestHost<'_>, away: &TestHost<'_>) {
    cloud.pass(30);
    away.beat(json!([fast(directory(1), 20)])).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    end_on_lost_hosts(&cloud.app).await.unwrap();
    let path = format!("/v1/hosts/{}/declare_dead", home.id);
    cloud.post(&path, json!({"no_guest_runs": true})).await.expect(200);
}

/// An instance with its system on its host, and the volume `data` of 2 GiB in the pool.
fn with_data(delete_with_instance: bool) -> Value {
    let data =
        json!({"size_gib": 2, "name": "data", "pool": "fast", "delete_with_instance": delete_with_instance});
    json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": [], "volumes": [data]})
}

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

#[tokio::test]
async fn a_detachment_that_was_asked_of_a_host_before_it_died_ends() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = made(&cloud, &hosts, with_data(false)).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    let detach =
        async || cloud.post(&format!("{WEB}/detach_volume"), json!({"volume": "data"})).await.expect(202);
    detach().await;
    dies(&cloud, home, away).await;
    assert_eq!(cloud.get(DATA).await.expect(200)["state"], "detaching", "silence is no word");
    assert_eq!(findings(&cloud).await, ["volume_detaching_on_dead_host"]);
    end_on_lost_hosts(&cloud.app).await.unwrap();
    assert_eq!(cloud.get(DATA).await.expect(200)["state"], "available");
    let shown = cloud.get(WEB).await.expect(200);
    assert_eq!(shown["operation"]["status"], "succeeded");
    assert_eq!(shown["volumes"].as_array().unwrap().len(), 1, "what is on the disk of the host stays");
    let mut next = instance("next");
    next["volumes"] = json!([{"volume": "data"}]);
    let next = cloud.post(INSTANCES, next).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(away.disks(&next["id"]).await.expect("it is nowhere").1.len(), 2);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_deletion_that_was_asked_of_a_host_before_it_died_ends() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let mut body = with_data(false);
    body["root_volume"] = json!({"pool": "fast"});
    let (web, home, away) = made(&cloud, &hosts, body).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    let deleting = cloud.delete(WEB).await.expect(202);
    dies(&cloud, home, away).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "deleting");
    end_on_lost_hosts(&cloud.app).await.unwrap();
    cloud.get(WEB).await.expect_problem(404, "not_found");
    let operation = deleting["operation"]["id"].as_str().unwrap();
    let operation = cloud.get(&format!("/v1/projects/demo/operations/{operation}")).await.expect(200);
    assert_eq!(operation["status"], "succeeded");
    assert_eq!(cloud.get(DATA).await.expect(200)["state"], "available");
    // Its own disk is removed by a host that lives.
    assign_orders(&cloud.app).await.unwrap();
    let page = away.desired(0).await;
    assert_eq!(page["objects"][0]["kind"], "remove_layers");
    away.report_removed(json!([page["objects"][0]["removal_id"]])).await;
    assert_eq!(cloud.get("/v1/pools/fast").await.expect(200)["disk_gib"]["reserved"], 2);
    let volumes = cloud.get(VOLUMES).await.expect(200);
    assert_eq!(volumes["items"].as_array().unwrap().len(), 1);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_on_the_disk_of_a_dead_host_waits_for_it_and_what_is_shared_does_not() {
    for (before, goes) in [(true, false), (false, false), (false, true)] {
        let cloud = TestCloud::start().await;
        let mut hosts = two_with_the_pool(&cloud).await;
        let (web, home, away) = made(&cloud, &hosts, with_data(goes)).await;
        let lost = usize::from(home.id == hosts[1].id);
        home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
        if before {
            cloud.delete(WEB).await.expect(202);
            dies(&cloud, home, away).await;
            end_on_lost_hosts(&cloud.app).await.unwrap();
        } else {
            dies(&cloud, home, away).await;
            cloud.delete(WEB).await.expect(202);
        }
        let data = cloud.get(DATA).await.expect(200);
        assert_eq!(data["state"], if goes { "deleting" } else { "available" }, "{data}");
        if goes {
            assign_orders(&cloud.app).await.unwrap();
            let page = away.desired(0).await;
            away.report_removed(json!([page["objects"][0]["removal_id"]])).await;
            cloud.get(DATA).await.expect_problem(404, "not_found");
        }
        end_on_lost_hosts(&cloud.app).await.unwrap();
        assert_eq!(cloud.get(WEB).await.expect(200)["state"], "deleting");
        assert_eq!(findings(&cloud).await, Vec::<String>::new());
        // It comes back, and removes what it has.
        hosts[lost].open_session().await;
        let page = hosts[lost].desired(0).await;
        assert_eq!(page["objects"][0]["kind"], "delete_instance");
        assert_eq!(page["objects"][0]["layers"].as_array().unwrap().len(), 1);
        hosts[lost].report(&web["id"], 2, 1, json!({"state": "absent"})).await;
        cloud.get(WEB).await.expect_problem(404, "not_found");
        assert_eq!(findings(&cloud).await, Vec::<String>::new());
    }
}

//! Volumes that are taken away from guests that do not let go, and from hosts that are lost.

use serde_json::{Value, json};

use super::{DATA, INSTANCES, WEB, directory, fast, findings, made, two_with_the_pool};
use crate::instances::place_pending;
use crate::testing::{Answer, TestCloud, TestHost};

/// An instance with its system on its host, and the volume `data` of 2 GiB in the pool.
fn with_data() -> Value {
    let data = json!({"size_gib": 2, "name": "data", "pool": "fast"});
    json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": [], "volumes": [data]})
}

async fn force(cloud: &TestCloud, volume: &str, stop_instance: bool) -> Answer {
    let body = json!({"volume": volume, "stop_instance": stop_instance});
    cloud.post(&format!("{WEB}/force_detach_volume"), body).await
}

fn detail(refused: &Answer) -> String {
    let problem = refused.expect_problem(409, "wrong_state");
    problem["detail"].as_str().unwrap().to_owned()
}

async fn falls_silent(cloud: &TestCloud, away: &TestHost<'_>) {
    cloud.pass(30);
    away.beat(json!([fast(directory(1), 20)])).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
}

#[tokio::test]
async fn from_a_host_that_is_heard_it_goes_by_the_word_of_that_host() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, _) = made(&cloud, &hosts, with_data()).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    cloud.post(&format!("{WEB}/detach_volume"), json!({"volume": "data"})).await.expect(202);
    assert_eq!(cloud.get(DATA).await.expect(200)["state"], "detaching", "the guest holds it");
    assert!(detail(&force(&cloud, "data", false).await).contains("`stop_instance` set to true"));
    let dry = json!({"volume": "data", "stop_instance": true});
    cloud.post(&format!("{WEB}/force_detach_volume?dry_run=true"), dry).await.expect(200);
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");

    let asked = force(&cloud, "data", true).await.expect(202);
    assert_eq!(
        (&asked["state"], &asked["operation"]["kind"]),
        (&json!("stopping"), &json!("force_detach_volume"))
    );
    assert_eq!(cloud.get(DATA).await.expect(200)["state"], "detaching");
    let mut next = json!({"name": "next", "image": "image", "instance_type": "tiny", "networks": []});
    next["volumes"] = json!([{"volume": "data"}]);
    cloud.post(INSTANCES, next.clone()).await.expect_problem(409, "in_use");
    let (generation, _) = home.disks(&web["id"]).await.unwrap();
    home.report(&web["id"], generation, 1, json!({"state": "stopped", "reason": "requested"})).await;
    assert_eq!(cloud.get(DATA).await.expect(200)["state"], "available");
    let shown = cloud.get(WEB).await.expect(200);
    assert_eq!((&shown["state"], &shown["operation"]["status"]), (&json!("stopped"), &json!("succeeded")));
    cloud.post(INSTANCES, next).await.expect(202);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn from_a_silent_host_it_goes_when_the_operator_says_that_it_is_dead() {
    let cloud = TestCloud::start().await;
    let mut hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = made(&cloud, &hosts, with_data()).await;
    let lost = usize::from(home.id == hosts[1].id);
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    falls_silent(&cloud, away).await;
    for stop in [false, true] {
        assert!(detail(&force(&cloud, "data", stop).await).contains("declare it dead"));
    }
    let path = format!("/v1/hosts/{}/declare_dead", home.id);
    cloud.post(&path, json!({"no_guest_runs": true})).await.expect(200);
    let root = web["volumes"][0]["volume"]["name"].as_str().unwrap();
    assert!(detail(&force(&cloud, root, false).await).contains("on the disk of the host"));
    let shown = force(&cloud, "data", false).await.expect(202);
    assert_eq!(shown["operation"]["status"], "succeeded");
    assert_eq!(cloud.get(DATA).await.expect(200)["state"], "available");
    let mut next = json!({"name": "next", "image": "image", "instance_type": "tiny", "networks": [],
        "root_volume": {"pool": "fast"}});
    next["volumes"] = json!([{"volume": "data"}]);
    let next = cloud.post(INSTANCES, next).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let other = &hosts[1 - lost];
    assert_eq!(other.disks(&next["id"]).await.expect("it is nowhere").1.len(), 2);
    // What comes back is not heard until it has begun anew, and then has the volume no more.
    let beat = hosts[lost].beat(json!([fast(directory(1), 20)])).await;
    beat.expect_problem(409, "stale_epoch");
    hosts[lost].open_session().await;
    assert_eq!(hosts[lost].disks(&web["id"]).await.unwrap().1.len(), 1);
    hosts[lost].report(&web["id"], 1, 1, json!({"state": "running"})).await;
    let data = cloud.get(DATA).await.expect(200);
    assert_eq!(data["attachment"]["instance"]["name"], "next");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn only_who_decides_for_the_cloud_takes_it_by_force() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, _) = made(&cloud, &hosts, with_data()).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    let owner = cloud.user("olga", false).await;
    let attach = "INSERT INTO policy_attachments (id, policy_id, principal_id, project_id, created_at)
                  SELECT gen_random_uuid(), o.id, p.id, j.id, j.created_at
                  FROM policies o, principals p, projects j WHERE o.name = 'project-owner' AND p.name = 'olga'";
    super::execute(&cloud, attach).await;
    let headers = [("authorization", owner.as_str())];
    let body = json!({"volume": "data", "stop_instance": true});
    let path = format!("{WEB}/force_detach_volume");
    let refused = cloud.call_with(axum::http::Method::POST, &path, &headers, Some(body)).await;
    refused.expect_problem(403, "forbidden");
    let usual = json!({"volume": "data"});
    let path = format!("{WEB}/detach_volume");
    cloud.call_with(axum::http::Method::POST, &path, &headers, Some(usual)).await.expect(202);
}

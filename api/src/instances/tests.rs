//! An instance's life through the router, with a host that the test plays.

mod clone;
mod custom_size;
mod guide;
mod inherited;
mod leases;
mod life;
mod lists;
mod many;
mod races;
mod rebuild;
mod resize;
mod root_volume;
mod scale;

use axum::http::Method;
use serde_json::{Value, json};

use super::place_pending;
use crate::testing::{TestCloud, TestHost};
use crate::verify;

const INSTANCES: &str = "/v1/projects/demo/instances";
const WEB: &str = "/v1/projects/demo/instances/web";

/// A furnished cloud's instance `web`, placed on the host and running there.
async fn running(cloud: &TestCloud, host: &TestHost<'_>) -> Value {
    let created = create(cloud).await;
    place_pending(&cloud.app).await.unwrap();
    host.report(&created["id"], 1, 1, json!({"state": "running"})).await;
    created
}

async fn create(cloud: &TestCloud) -> Value {
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    cloud.post(INSTANCES, body).await.expect(202)
}

async fn state(cloud: &TestCloud) -> (String, String) {
    let instance = cloud.get(WEB).await.expect(200);
    let text = |field: &str| instance[field].as_str().unwrap().to_owned();
    (text("state"), text("state_reason"))
}

fn pair(state: &str, reason: &str) -> (String, String) {
    (state.to_owned(), reason.to_owned())
}

#[tokio::test]
async fn from_creation_to_the_last_row() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let created = create(&cloud).await;
    assert_eq!(created["state"], "pending");
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(state(&cloud).await, pair("provisioning", "awaiting_host"));

    let page = host.desired(0).await;
    assert_eq!(page["complete"], true);
    assert_eq!(page["objects"][0]["kind"], "instance");
    assert_eq!(page["objects"][0]["id"], created["id"]);
    assert_eq!(page["objects"][0]["power"], "running");

    host.report(&created["id"], 1, 1, json!({"state": "preparing"})).await;
    assert_eq!(state(&cloud).await, pair("provisioning", "preparing"));
    host.report(&created["id"], 1, 1, json!({"state": "running"})).await;
    assert_eq!(state(&cloud).await, pair("running", "as_requested"));
    let operation = cloud.get(&operation_path(&created)).await.expect(200);
    assert_eq!((&operation["status"], &operation["progress_percent"]), (&json!("succeeded"), &json!(100)));

    let deleting = cloud.delete(WEB).await.expect(202);
    assert_eq!(deleting["state"], "deleting");
    let page = host.desired(page["revision"].as_i64().unwrap()).await;
    assert_eq!(page["objects"][0]["kind"], "delete_instance");
    host.report(&created["id"], 2, 1, json!({"state": "absent"})).await;
    cloud.get(WEB).await.expect_problem(404, "not_found");
    let operation = cloud.get(&operation_path(&deleting)).await.expect(200);
    assert_eq!(operation["status"], "succeeded");
    let hosts = cloud.get("/v1/hosts").await.expect(200);
    assert_eq!(hosts["items"][0]["memory_mib"]["reserved"], 0);
}

/// What is wrong with the database but for networks, of which nobody tells the hosts of these tests.
async fn findings(cloud: &TestCloud) -> Vec<String> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let report = verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
    let of_networks = |code: &String| code.starts_with("network_") || code.starts_with("host_network_");
    report.findings.into_iter().map(|finding| finding.code).filter(|code| !of_networks(code)).collect()
}

/// A user who may do everything in the project but this.
async fn all_but(cloud: &TestCloud, action: &str, resource: &str) -> String {
    let bearer = cloud.user("ada", false).await;
    let document = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": action, "Resource": resource}]});
    let project = "/v1/projects/demo";
    cloud
        .post(&format!("{project}/policies"), json!({"name": "all-but", "document": document}))
        .await
        .expect(201);
    let attachment = json!({"policy": "all-but", "user": "ada"});
    cloud.post(&format!("{project}/policy_attachments"), attachment).await.expect(201);
    bearer
}

fn operation_path(instance: &Value) -> String {
    format!("/v1/projects/demo/operations/{}", instance["operation"]["id"].as_str().unwrap())
}

#[tokio::test]
async fn a_guest_that_powers_itself_off_is_stopped_and_starts_with_a_new_boot() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let created = running(&cloud, &host).await;
    host.report(&created["id"], 1, 1, json!({"state": "stopped", "reason": "guest_shutdown"})).await;
    assert_eq!(state(&cloud).await, pair("stopped", "guest_shutdown"));

    cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    let page = host.desired(0).await;
    assert_eq!((&page["objects"][0]["boot"], &page["objects"][0]["generation"]), (&json!(2), &json!(2)));
    // The report of the old boot says nothing about the new one.
    assert_eq!(state(&cloud).await, pair("provisioning", "starting"));
    host.report(&created["id"], 2, 2, json!({"state": "running"})).await;
    assert_eq!(state(&cloud).await, pair("running", "as_requested"));
    // A late report does not turn time back.
    let late = host.report(&created["id"], 1, 1, json!({"state": "stopped", "reason": "crashed"})).await;
    assert_eq!(late["ignored"], json!([created["id"]]));
    assert_eq!(state(&cloud).await, pair("running", "as_requested"));
}

#[tokio::test]
async fn stop_carries_the_timeout_and_a_later_call_overtakes_it() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let stopping = cloud.post(&format!("{WEB}/stop"), json!({"timeout_seconds": 7})).await.expect(202);
    assert_eq!(stopping["state"], "stopping");
    let page = host.desired(0).await;
    assert_eq!(page["objects"][0]["stop"], json!({"mode": "graceful", "timeout_seconds": 7}));
    assert_eq!(page["objects"][0]["power"], "stopped");

    cloud.post(&format!("{WEB}/stop"), json!({"force": true})).await.expect(202);
    assert_eq!(host.desired(0).await["objects"][0]["stop"], json!({"mode": "force"}));
    let overtaken = cloud.get(&operation_path(&stopping)).await.expect(200);
    assert_eq!(
        (&overtaken["status"], &overtaken["error"]["code"]),
        (&json!("cancelled"), &json!("superseded"))
    );
    let wrong = cloud.post(&format!("{WEB}/stop"), json!({"timeout_seconds": 0})).await;
    assert_eq!(wrong.expect_problem(422, "validation_failed")["errors"][0]["pointer"], "/timeout_seconds");
}

#[tokio::test]
async fn a_host_may_speak_only_of_its_own_instances_and_only_on_its_newest_session() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let mut host = cloud.join_host("host-1").await;
    let created = running(&cloud, &host).await;
    let stranger = cloud.join_host("host-2").await;
    let ignored = stranger.report(&created["id"], 1, 1, json!({"state": "absent"})).await;
    assert_eq!(ignored["ignored"], json!([created["id"]]));
    // From the future: a generation that was never asked for. What it says of it is not believed.
    let ignored = host.report(&created["id"], 9, 1, json!({"state": "failed"})).await;
    assert_eq!(ignored["ignored"], json!([created["id"]]));
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");

    let old_epoch = host.epoch;
    host.open_session().await;
    let body = json!({"epoch": old_epoch, "reports": []});
    host.call(Method::POST, "/agent/v1/observed", Some(body)).await.expect_problem(409, "stale_epoch");
    let path = format!("/agent/v1/desired?epoch={old_epoch}&after=0");
    host.call(Method::GET, &path, None).await.expect_problem(409, "stale_epoch");
    cloud.agent_call(None, Method::GET, &path, None).await.expect_problem(401, "unauthenticated");
}

#[tokio::test]
async fn silence_of_the_host_is_shown_and_changes_nothing_else() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    cloud.pass(30);
    assert_eq!(state(&cloud).await, pair("running", "host_unreachable"));
}

#[tokio::test]
async fn what_fits_nowhere_says_why_and_finds_room_later() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.lift_quotas().await;
    let huge = json!({"name": "huge", "vcpus": 100, "memory_mib": 256, "root_disk_gib": 1});
    cloud.post("/v1/instance_types", huge).await.expect(201);
    let _host = cloud.join_host("host-1").await;
    let body = json!({"name": "web", "image": "image", "instance_type": "huge"});
    let plan = cloud.post(&format!("{INSTANCES}?dry_run=true"), body.clone()).await.expect(200);
    assert_eq!(plan["plan"]["placeable"], false);
    cloud.get(WEB).await.expect_problem(404, "not_found");

    cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(state(&cloud).await, pair("pending", "no_host_fits"));
    let instance = cloud.get(WEB).await.expect(200);
    assert_eq!(
        instance["placement"]["summary"],
        "none of 1 hosts takes it: 1 too few free vCPUs; it would fit with 84 vCPUs less, or as type tiny"
    );
    // Deleting what no host has seen needs no host.
    cloud.delete(WEB).await.expect(202);
    cloud.get(WEB).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn racing_schedulers_never_oversell_a_host() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.lift_quotas().await;
    let _host = cloud.join_host("host-1").await;
    // 16 vCPUs are on offer.
    for number in 0..24 {
        let body = json!({"name": format!("web-{number}"), "image": "image", "instance_type": "tiny"});
        cloud.post(INSTANCES, body).await.expect(202);
    }
    let schedulers = (0..4).map(|_| place_pending(&cloud.app));
    futures_util::future::try_join_all(schedulers).await.unwrap();
    let host = &cloud.get("/v1/hosts").await.expect(200)["items"][0];
    assert_eq!(host["vcpus"], json!({"total": 16, "reserved": 16}));
}

#[tokio::test]
async fn one_that_cannot_be_placed_keeps_no_other_waiting() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let _host = cloud.join_host("host-1").await;
    create(&cloud).await;
    let body = json!({"name": "other", "image": "image", "instance_type": "tiny"});
    cloud.post(INSTANCES, body).await.expect(202);
    leases::break_web(&cloud, "NEW.host_id IS NOT NULL").await;
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(cloud.get(&format!("{INSTANCES}/other")).await.expect(200)["state"], "provisioning");
    let web = cloud.get(WEB).await.expect(200);
    assert!(web["placement"]["summary"].as_str().unwrap().contains("tries again"), "{web}");
}

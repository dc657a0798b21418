//! A database that is older than what hosts have seen: it was restored from a backup.

use axum::http::Method;
use serde_json::{Value, json};

use super::{WEB, create};
use crate::backup::restored_in;
use crate::testing::{TestCloud, TestHost};

/// What is wanted of the instance: its generation and its boot.
async fn wanted(host: &TestHost<'_>, id: &Value) -> (i64, i64) {
    let page = host.desired(0).await;
    let objects = page["objects"].as_array().unwrap().clone();
    let spec = objects.into_iter().find(|one| one["kind"] == "instance" && one["id"] == *id).unwrap();
    (spec["generation"].as_i64().unwrap(), spec["boot"].as_i64().unwrap())
}

async fn shown(cloud: &TestCloud) -> (String, String) {
    let web = cloud.get(WEB).await.expect(200);
    let text = |name: &str| web[name].as_str().unwrap_or_default().to_owned();
    (text("state"), text("state_reason"))
}

fn pair(state: &str, reason: &str) -> (String, String) {
    (state.to_owned(), reason.to_owned())
}

#[tokio::test]
async fn the_stored_intent_holds_again_past_what_the_host_has_seen_since() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let created = create(&cloud).await;
    let id = &created["id"];
    host.report(id, 1, 1, json!({"state": "running"})).await;
    // Since the backup it was started twice more: its guest goes on in the boot that it is in.
    let ignored = host.report(id, 6, 3, json!({"state": "running"})).await;
    assert_eq!(ignored["ignored"], json!([id]));
    assert_eq!(wanted(&host, id).await, (7, 3));
    let ignored = host.report(id, 6, 3, json!({"state": "running"})).await;
    assert_eq!(ignored["ignored"], json!([id]), "it is no answer, however often it is said");
    assert_eq!(wanted(&host, id).await, (7, 3), "the same word lifts once");
    host.report(id, 7, 3, json!({"state": "running"})).await;
    assert_eq!(shown(&cloud).await, pair("running", "as_requested"));
    // It was stopped since, and runs as the backup has it: in a boot that has not ended.
    host.report(id, 9, 3, json!({"state": "stopped", "reason": "requested"})).await;
    assert_eq!(wanted(&host, id).await, (10, 4));
    host.report(id, 10, 4, json!({"state": "running"})).await;
    assert_eq!(shown(&cloud).await, pair("running", "as_requested"));
    // Users find it as ever.
    let stopped = cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    assert_eq!(stopped["state"], "stopping");
    assert_eq!(wanted(&host, id).await, (11, 4));
    // A deletion of the backup is carried out, too, by a host that knows of later ones.
    cloud.delete(WEB).await.expect(202);
    host.report(id, 20, 4, json!({"state": "stopped", "reason": "requested"})).await;
    let page = host.desired(0).await;
    assert_eq!(
        (&page["objects"][0]["kind"], &page["objects"][0]["generation"]),
        (&json!("delete_instance"), &json!(21))
    );
    host.report(id, 21, 0, json!({"state": "absent"})).await;
    cloud.get(WEB).await.expect_problem(404, "not_found");
}

/// Since the backup there was one change, so what the host has seen has the very generation that `restored` gives.
#[tokio::test]
async fn a_single_change_since_is_not_taken_for_what_is_stored() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let mut host = cloud.join_host("host-1").await;
    let created = create(&cloud).await;
    let id = &created["id"];
    let stopped = json!({"state": "stopped", "reason": "requested"});
    host.report(id, 1, 1, json!({"state": "running"})).await;
    restored_in(&cloud.app.pool, &cloud.app.clock).await.unwrap();
    host.open_session().await;
    assert_eq!(wanted(&host, id).await, (2, 1));
    // What it had to say before, it may say again.
    host.report(id, 1, 1, json!({"state": "running"})).await;
    assert_eq!(wanted(&host, id).await, (2, 1));
    // It was stopped.
    let ignored = host.report(id, 2, 1, stopped.clone()).await;
    assert_eq!(ignored["ignored"], json!([id]));
    assert_eq!(wanted(&host, id).await, (3, 2));
    host.report(id, 3, 2, json!({"state": "running"})).await;
    assert_eq!(shown(&cloud).await, pair("running", "as_requested"));
    assert_eq!(wanted(&host, id).await, (3, 2), "once");
    // A guest that has powered itself off since stays so.
    restored_in(&cloud.app.pool, &cloud.app.clock).await.unwrap();
    host.open_session().await;
    let powered_off = json!({"state": "stopped", "reason": "guest_shutdown"});
    host.report(id, 4, 2, powered_off.clone()).await;
    assert_eq!(wanted(&host, id).await, (5, 2));
    host.report(id, 5, 2, powered_off).await;
    assert_eq!(shown(&cloud).await, pair("stopped", "guest_shutdown"));
}

/// Two databases take turns, as with `restore --undo`: a session in the one must not count in the other.
#[tokio::test]
async fn no_epoch_of_one_history_is_one_of_another() {
    let cloud = TestCloud::start().await;
    let mut host = cloud.join_host("host-1").await;
    let before = host.epoch;
    restored_in(&cloud.app.pool, &cloud.app.clock).await.unwrap();
    host.open_session().await;
    host.beat(json!([])).await.expect(200);
    // There it has had one session more.
    let other = sqlx::query("UPDATE hosts SET epoch = $1").bind(before + 1);
    other.execute(&cloud.app.pool).await.unwrap();
    cloud.pass(1);
    restored_in(&cloud.app.pool, &cloud.app.clock).await.unwrap();
    host.beat(json!([])).await.expect_problem(409, "stale_epoch");
}

/// Users need not wait until the host has told: what it says of a generation between is not of theirs.
#[tokio::test]
async fn what_users_change_first_is_not_taken_for_what_the_host_has_seen() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let mut host = cloud.join_host("host-1").await;
    let created = create(&cloud).await;
    let id = &created["id"];
    host.report(id, 1, 1, json!({"state": "running"})).await;
    restored_in(&cloud.app.pool, &cloud.app.clock).await.unwrap();
    let stopped = cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    host.open_session().await;
    assert_eq!(wanted(&host, id).await, (3, 1));
    let steps = json!([{"operation_id": stopped["operation"]["id"], "step": "power_button_pressed", "at": "2020-01-01T00:00:00Z"}]);
    let report = json!({"id": id, "generation": 2, "boot": 1, "state": {"state": "running"}});
    for steps in [json!([]), steps] {
        let mut report = report.clone();
        report["steps"] = steps;
        let body = json!({"epoch": host.epoch, "reports": [report]});
        let ignored = host.call(Method::POST, "/agent/v1/observed", Some(body)).await.expect(200);
        assert_eq!(ignored["ignored"], json!([id]));
        assert_eq!(wanted(&host, id).await, (4, 1));
    }
    assert_eq!(shown(&cloud).await.0, "stopping");
    host.report(id, 4, 1, json!({"state": "stopped", "reason": "requested"})).await;
    assert_eq!(shown(&cloud).await, pair("stopped", "as_requested"));
    let path = format!("/v1/projects/demo/operations/{}", stopped["operation"]["id"].as_str().unwrap());
    let trail = cloud.get(&path).await.expect(200)["trail"].clone();
    let pressed = trail.as_array().unwrap().iter().any(|one| one["step"] == "power_button_pressed");
    assert!(pressed, "nobody says it again: {trail}");
}

#[tokio::test]
async fn a_host_lifts_nothing_but_its_own_and_not_far() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let created = create(&cloud).await;
    let id = &created["id"];
    host.report(id, 1, 1, json!({"state": "running"})).await;
    let stranger = cloud.join_host("host-2").await;
    for (who, generation, boot, state) in [
        (&stranger, 5, 1, json!({"state": "running"})),
        (&host, 2_000_000, 1, json!({"state": "running"})),
        (&host, i64::MAX, 1, json!({"state": "running"})),
        (&host, 5, i64::MAX, json!({"state": "running"})),
        // What was deleted here since comes back as what it is to be, if at all.
        (&host, 5, 0, json!({"state": "absent"})),
    ] {
        let ignored = who.report(id, generation, boot, state).await;
        assert_eq!(ignored["ignored"], json!([id]));
        assert_eq!(wanted(&host, id).await, (1, 1), "{generation} {boot}");
    }
    assert_eq!(shown(&cloud).await, pair("running", "as_requested"));
}

#[tokio::test]
async fn who_has_seen_more_than_there_is_hears_everything() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let created = create(&cloud).await;
    let page = host.feed(9999).await;
    assert_eq!(page["complete"], true);
    let named = page["objects"].as_array().unwrap().iter().any(|one| one["id"] == created["id"]);
    assert!(named, "{page}");
}

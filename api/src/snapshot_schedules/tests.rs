//! Schedules through the router and the controller, on a clock that the test moves.

mod many;

use axum::http::Method;
use serde_json::{Value, json};

use super::run;
use crate::testing::TestCloud;

const SCHEDULES: &str = "/v1/projects/demo/snapshot_schedules";
const NIGHTLY: &str = "/v1/projects/demo/snapshot_schedules/nightly";
const SNAPSHOTS: &str = "/v1/projects/demo/snapshots";
const VOLUMES: &str = "/v1/projects/demo/volumes";
const INSTANCES: &str = "/v1/projects/demo/instances";
const HOUR: i64 = 3600;

/// Moves the clock further than an access token lives.
async fn pass(cloud: &TestCloud, seconds: i64) {
    cloud.pass(seconds);
    cloud.sign_in_again().await;
}

async fn data(cloud: &TestCloud) {
    cloud.post(VOLUMES, json!({"name": "data", "size_gib": 1})).await.expect(201);
}

async fn snapshots(cloud: &TestCloud) -> Vec<String> {
    let listed = cloud.get(SNAPSHOTS).await.expect(200);
    let items = listed["items"].as_array().unwrap().iter();
    items.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn all_schedules_of_a_volume_together_keep_what_its_chain_takes() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny",
        "volumes": [{"size_gib": 1, "name": "data"}]});
    cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    let schedule = |name: &str, of: &str, what: &str, keep: i32| {
        let mut body = json!({"name": name, "at": "03:00", "keep": keep});
        body[of] = json!(what);
        cloud.post(SCHEDULES, body)
    };
    schedule("nightly", "instance", "web", 10).await.expect(201);
    let refused = schedule("often", "volume", "data", 9).await.expect_problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["pointer"], "/keep");
    assert!(refused["errors"][0]["message"].as_str().unwrap().contains("keep 19 snapshots"), "{refused}");
    schedule("often", "volume", "data", 8).await.expect(201);
    cloud.call(Method::PATCH, NIGHTLY, Some(json!({"paused": true}))).await.expect(200);
    cloud
        .call(Method::PATCH, NIGHTLY, Some(json!({"keep": 11})))
        .await
        .expect_problem(422, "validation_failed");
    // Another volume has a chain of its own.
    cloud.post("/v1/projects/demo/volumes", json!({"name": "other", "size_gib": 1})).await.expect(201);
    schedule("other", "volume", "other", 18).await.expect(201);
}

#[tokio::test]
async fn a_schedule_is_made_changed_and_deleted() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    data(&cloud).await;
    let body =
        json!({"name": "nightly", "volume": "data", "at": "03:00", "keep": 2, "labels": {"tier": "db"}});
    for (field, value, pointer) in [
        ("volume", Value::Null, "/volume"),
        ("volume", json!("none"), "/volume"),
        ("instance", json!("web"), "/instance"),
        ("at", Value::Null, "/at"),
        ("at", json!("3 o'clock"), "/at"),
        ("every_hours", json!(3), "/every_hours"),
        ("keep", json!(0), "/keep"),
        ("weekday", json!("someday"), "/weekday"),
    ] {
        let mut wrong = body.clone();
        wrong[field] = value;
        let refused = cloud.post(SCHEDULES, wrong).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    cloud.post(&format!("{SCHEDULES}?dry_run=true"), body.clone()).await.expect(200);
    cloud.get(NIGHTLY).await.expect_problem(404, "not_found");
    let key = [("idempotency-key", "one")];
    let made = cloud.call_with(Method::POST, SCHEDULES, &key, Some(body.clone())).await.expect(201);
    let again = cloud.call_with(Method::POST, SCHEDULES, &key, Some(body.clone())).await.expect(201);
    assert_eq!(made["id"], again["id"]);
    // The clock of tests begins at noon.
    assert_eq!((&made["next_at"], made.get("last_run")), (&json!("2026-06-02T03:00:00Z"), None));
    cloud.post(SCHEDULES, body).await.expect_problem(409, "name_taken");
    let listed = cloud.get(&format!("{SCHEDULES}?label_selector=tier=db")).await.expect(200);
    assert_eq!(listed["items"][0]["volume"]["name"], "data");
    let stale = cloud.call_with(Method::PATCH, NIGHTLY, &[("if-match", "\"7.0\"")], Some(json!({}))).await;
    stale.expect_problem(412, "precondition_failed");
    cloud
        .call(Method::PATCH, NIGHTLY, Some(json!({"keep": 101})))
        .await
        .expect_problem(422, "validation_failed");
    let patched =
        cloud.call(Method::PATCH, NIGHTLY, Some(json!({"keep": 3, "paused": true}))).await.expect(200);
    assert_eq!((&patched["keep"], &patched["paused"]), (&json!(3), &json!(true)));
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    let foreign = "/v1/projects/other/snapshot_schedules/nightly";
    cloud.get(foreign).await.expect_problem(404, "not_found");
    cloud.delete(foreign).await.expect_problem(404, "not_found");

    // Paused it takes nothing, and goes on with the next.
    pass(&cloud, 30 * HOUR).await;
    run(&cloud.app).await.unwrap();
    assert_eq!(snapshots(&cloud).await, Vec::<String>::new());
    let on = cloud.call(Method::PATCH, NIGHTLY, Some(json!({"paused": false}))).await.expect(200);
    assert_eq!(on["next_at"], "2026-06-03T03:00:00Z");
    run(&cloud.app).await.unwrap();
    assert_eq!(snapshots(&cloud).await, Vec::<String>::new());
    pass(&cloud, 9 * HOUR).await;
    run(&cloud.app).await.unwrap();
    assert_eq!(snapshots(&cloud).await, ["nightly-20260603-0300"]);
    cloud.delete(NIGHTLY).await.expect(204);
    assert_eq!(snapshots(&cloud).await.len(), 1, "what it made stays");
}

#[tokio::test]
async fn each_slot_is_run_once_whatever_runs_it_and_missed_ones_are_run_once_together() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    data(&cloud).await;
    let body = json!({"name": "often", "volume": "data", "every_hours": 6, "keep": 10});
    cloud.post(SCHEDULES, body).await.expect(201);
    pass(&cloud, 6 * HOUR - 1).await;
    run(&cloud.app).await.unwrap();
    assert_eq!(snapshots(&cloud).await, Vec::<String>::new());
    pass(&cloud, 1).await;
    let racing = (0..5).map(|_| run(&cloud.app));
    futures_util::future::join_all(racing).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(snapshots(&cloud).await, ["often-20260601-1800"]);
    // A week without a control plane.
    pass(&cloud, 7 * 24 * HOUR + 60).await;
    run(&cloud.app).await.unwrap();
    run(&cloud.app).await.unwrap();
    assert_eq!(snapshots(&cloud).await, ["often-20260601-1800", "often-20260602-0000"]);
    let seen = cloud.get(&format!("{SCHEDULES}/often")).await.expect(200);
    assert_eq!(seen["next_at"], "2026-06-09T00:00:00Z");
    assert_eq!((&seen["last_run"]["state"], seen["last_run"].get("failure")), (&json!("available"), None));
}

#[tokio::test]
async fn only_what_it_made_is_deleted_and_failures_are_shown() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    data(&cloud).await;
    cloud.post(SNAPSHOTS, json!({"name": "mine", "volume": "data"})).await.expect(201);
    let body = json!({"name": "often", "volume": "data", "every_hours": 1, "keep": 2});
    cloud.post(SCHEDULES, body).await.expect(201);
    for _ in 0..4 {
        pass(&cloud, HOUR).await;
        run(&cloud.app).await.unwrap();
    }
    assert_eq!(snapshots(&cloud).await, ["mine", "often-20260601-1500", "often-20260601-1600"]);
    let quotas = "/v1/projects/demo/quotas";
    cloud.call(Method::PATCH, quotas, Some(json!({"snapshots": 3}))).await.expect(200);
    pass(&cloud, HOUR).await;
    run(&cloud.app).await.unwrap();
    let seen = cloud.get(&format!("{SCHEDULES}/often")).await.expect(200);
    let failure = seen["last_run"]["failure"].as_str().unwrap();
    assert!(failure.contains("the limit is 3"), "{failure}");
    assert_eq!(snapshots(&cloud).await.len(), 3, "nothing that is there goes for it");
    let failed = "SELECT count(*) FROM pending_events WHERE kind = 'snapshot_schedule' AND change = 'state'";
    let failed: i64 = sqlx::query_scalar(failed).fetch_one(&cloud.app.pool).await.unwrap();
    assert!(failed >= 5, "{failed}");
    cloud.call(Method::PATCH, quotas, Some(json!({"snapshots": null}))).await.expect(200);
    pass(&cloud, HOUR).await;
    run(&cloud.app).await.unwrap();
    assert_eq!(snapshots(&cloud).await, ["mine", "often-20260601-1600", "often-20260601-1800"]);
    // It goes with its volume; what it made does not.
    cloud.delete(&format!("{VOLUMES}/data")).await.expect(204);
    cloud.get(&format!("{SCHEDULES}/often")).await.expect_problem(404, "not_found");
    assert_eq!(snapshots(&cloud).await.len(), 3);
}

#[tokio::test]
async fn an_instance_is_taken_while_it_runs_and_comes_and_goes() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": []});
    let web = cloud.post(INSTANCES, body).await.expect(202);
    crate::instances::place_pending(&cloud.app).await.unwrap();
    host.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    let body =
        json!({"name": "often", "instance": "web", "every_hours": 1, "keep": 1, "consistency": "filesystem"});
    cloud.post(SCHEDULES, body).await.expect(201);
    pass(&cloud, HOUR).await;
    run(&cloud.app).await.unwrap();
    let shown = cloud.get(&format!("{SCHEDULES}/often")).await.expect(200);
    assert_eq!(shown["last_run"]["state"], "creating");
    // Nobody freezes anything: it has failed, and the next one takes its place.
    pass(&cloud, HOUR).await;
    run(&cloud.app).await.unwrap();
    let shown = cloud.get(&format!("{SCHEDULES}/often")).await.expect(200);
    assert!(shown["last_run"]["failure"].as_str().unwrap().contains("being taken"), "{shown}");
    crate::snapshots::expire(&cloud.app).await.unwrap();
    assert_eq!(cloud.get(SNAPSHOTS).await.expect(200)["items"][0]["state"], "failed");
    let (generation, _) = host.disks(&web["id"]).await.unwrap();
    host.report(&web["id"], generation, 1, json!({"state": "running"})).await;
    pass(&cloud, HOUR).await;
    run(&cloud.app).await.unwrap();
    let (generation, _) = host.disks(&web["id"]).await.unwrap();
    host.report(&web["id"], generation, 1, json!({"state": "running"})).await;
    run(&cloud.app).await.unwrap();
    let left = cloud.get(SNAPSHOTS).await.expect(200);
    assert_eq!(
        (left["items"].as_array().unwrap().len(), &left["items"][0]["state"]),
        (1, &json!("available"))
    );
    cloud.delete(&format!("{INSTANCES}/web")).await.expect(202);
    let generation = generation + 1;
    host.report(&web["id"], generation, 1, json!({"state": "absent"})).await;
    cloud.get(&format!("{SCHEDULES}/often")).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn what_a_schedule_takes_and_when_can_be_changed() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    data(&cloud).await;
    cloud.post(VOLUMES, json!({"name": "other", "size_gib": 1})).await.expect(201);
    let body = json!({"name": "nightly", "volume": "data", "at": "03:00", "weekday": "sunday", "keep": 1});
    cloud.post(SCHEDULES, body).await.expect(201);
    let patch = async |body: Value| cloud.call(Method::PATCH, NIGHTLY, Some(body)).await;
    let times = |schedule: &Value| {
        ["every_hours", "at", "weekday", "next_at"]
            .map(|field| schedule.get(field).cloned().unwrap_or_default())
    };
    for (body, pointer) in [
        (json!({"every_hours": 0}), "/every_hours"),
        (json!({"at": "24:00"}), "/at"),
        (json!({"every_hours": 3, "at": "03:00"}), "/every_hours"),
        (json!({"every_hours": 3, "weekday": "monday"}), "/weekday"),
        (json!({"volume": "data", "instance": "web"}), "/instance"),
        (json!({"volume": "none"}), "/volume"),
        (json!({"instance": "none"}), "/instance"),
    ] {
        let refused = patch(body).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    // It is Monday the first, at noon.
    let daily = patch(json!({"weekday": null})).await.expect(200);
    assert_eq!(times(&daily), [json!(null), json!("03:00"), json!(null), json!("2026-06-02T03:00:00Z")]);
    let later = patch(json!({"at": "13:30", "weekday": "monday"})).await.expect(200);
    assert_eq!(times(&later), [json!(null), json!("13:30"), json!("monday"), json!("2026-06-01T13:30:00Z")]);
    let often = patch(json!({"every_hours": 5})).await.expect(200);
    assert_eq!(times(&often), [json!(5), json!(null), json!(null), json!("2026-06-01T17:00:00Z")]);
    patch(json!({"weekday": "monday"})).await.expect_problem(422, "validation_failed");
    pass(&cloud, 5 * HOUR).await;
    run(&cloud.app).await.unwrap();

    let moved = patch(json!({"volume": "other"})).await.expect(200);
    assert_eq!(moved["volume"]["name"], "other");
    for _ in 0..2 {
        pass(&cloud, 5 * HOUR).await;
        run(&cloud.app).await.unwrap();
    }
    // What it made of the volume before stays.
    assert_eq!(snapshots(&cloud).await, ["nightly-20260601-1700", "nightly-20260602-0300"]);
    let made = cloud.get(&format!("{SNAPSHOTS}?schedule=nightly")).await.expect(200);
    assert_eq!(
        (made["items"].as_array().unwrap().len(), &made["items"][1]["schedule"]["name"]),
        (2, &json!("nightly"))
    );
    let id = moved["id"].as_str().unwrap();
    let by_id = cloud.get(&format!("{SNAPSHOTS}?schedule={id}&volume=other")).await.expect(200);
    assert_eq!(by_id["items"].as_array().unwrap().len(), 1);
    assert_eq!(cloud.get(&format!("{SNAPSHOTS}?schedule=other")).await.expect(200)["items"], json!([]));
    cloud.delete(NIGHTLY).await.expect(204);
    let left = cloud.get(&format!("{SNAPSHOTS}/nightly-20260602-0300")).await.expect(200);
    assert_eq!(left.get("schedule"), None);
}

#[tokio::test]
async fn what_it_takes_of_something_else_is_asked_for_with_its_labels() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    data(&cloud).await;
    cloud.post(VOLUMES, json!({"name": "other", "size_gib": 1})).await.expect(201);
    cloud
        .post(SCHEDULES, json!({"name": "nightly", "volume": "data", "at": "03:00", "keep": 1}))
        .await
        .expect(201);
    let bearer = cloud.user("dev", false).await;
    let all = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    let deny = json!({"Effect": "Deny", "Action": "volume:CreateSnapshot", "Resource": "*",
        "Condition": {"StringNotEquals": {"cumulo:RequestLabel/tier": "db"}}});
    let document = json!({"Version": "2012-10-17", "Statement": [all, deny]});
    cloud
        .post("/v1/projects/demo/policies", json!({"name": "rules", "document": document}))
        .await
        .expect(201);
    let attachment = json!({"policy": "rules", "user": "dev"});
    cloud.post("/v1/projects/demo/policy_attachments", attachment).await.expect(201);
    let dev = [("authorization", bearer.as_str())];
    let patch = async |body: Value| cloud.call_with(Method::PATCH, NIGHTLY, &dev, Some(body)).await;
    patch(json!({"volume": "other"})).await.expect_problem(403, "forbidden");
    assert_eq!(cloud.get(NIGHTLY).await.expect(200)["volume"]["name"], "data");
    let moved = patch(json!({"volume": "other", "labels": {"tier": "db"}})).await.expect(200);
    assert_eq!(moved["volume"]["name"], "other");
}

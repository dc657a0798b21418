//! Instances that are wanted until a time.

use axum::http::Method;
use serde_json::{Value, json};

use super::{INSTANCES, WEB, all_but, findings, running};
use crate::instances::{end_leases, place_pending};
use crate::testing::TestCloud;

/// The test's clock begins at noon.
const AT_ONE: &str = "2026-06-01T13:00:00Z";
const AT_TWO: &str = "2026-06-01T14:00:00Z";
const HOUR: i64 = 3600;

async fn patch(cloud: &TestCloud, patch: Value) -> crate::testing::Answer {
    cloud.call(Method::PATCH, WEB, Some(patch)).await
}

/// How often it was told that the state of an instance has changed.
async fn told(cloud: &TestCloud) -> i64 {
    let sql = "SELECT count(*) FROM pending_events WHERE kind = 'instance' AND change = 'state'";
    sqlx::query_scalar(sql).fetch_one(&cloud.app.pool).await.unwrap()
}

#[tokio::test]
async fn it_is_stopped_and_then_deleted_on_behalf_of_whoever_said_so() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny",
        "lease": {"stop_at": AT_ONE, "delete_at": AT_TWO}});
    let created = cloud.post(INSTANCES, body).await.expect(202);
    let me = cloud.get("/v1/me").await.expect(200);
    assert_eq!(created["lease"], json!({"set_by": me["id"], "stop_at": AT_ONE, "delete_at": AT_TWO}));
    place_pending(&cloud.app).await.unwrap();
    host.report(&created["id"], 1, 1, json!({"state": "running"})).await;
    cloud.pass(HOUR - 1);
    end_leases(&cloud.app).await.unwrap();
    assert_eq!(host.desired(0).await["objects"][0]["power"], "running");

    cloud.pass(1);
    end_leases(&cloud.app).await.unwrap();
    end_leases(&cloud.app).await.unwrap();
    cloud.sign_in_again().await;
    let stopping = cloud.get(WEB).await.expect(200);
    assert_eq!(
        (&stopping["state"], &stopping["operation"]["kind"]),
        (&json!("stopping"), &json!("stop_instance"))
    );
    assert_eq!(stopping["lease"], json!({"set_by": me["id"], "delete_at": AT_TWO}));
    let audit = cloud.get("/v1/projects/demo/audit_records").await.expect(200);
    let mut records = audit["items"].as_array().unwrap().iter();
    let record = records.find(|one| one["action"] == "compute:StopInstance").unwrap();
    assert_eq!(
        (&record["principal_id"], &record["credential_kind"]),
        (&me["id"], &json!("none")),
        "{record}"
    );
    assert_eq!(record["after"]["lease"]["stop_at"], AT_ONE);
    host.report(&created["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;

    cloud.pass(HOUR);
    end_leases(&cloud.app).await.unwrap();
    assert_eq!(host.desired(0).await["objects"][0]["kind"], "delete_instance");
    host.report(&created["id"], 3, 1, json!({"state": "absent"})).await;
    cloud.sign_in_again().await;
    cloud.get(WEB).await.expect_problem(404, "not_found");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn protection_wins_and_says_so() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    patch(&cloud, json!({"lease": {"delete_at": AT_ONE}, "delete_protection": true})).await.expect(200);
    cloud.pass(HOUR);
    let before = told(&cloud).await;
    end_leases(&cloud.app).await.unwrap();
    end_leases(&cloud.app).await.unwrap();
    cloud.sign_in_again().await;
    let kept = cloud.get(WEB).await.expect(200);
    assert!(kept["lease"]["detail"].as_str().unwrap().contains("protected from deletion"), "{kept}");
    assert_eq!(kept["state"], "running");
    assert_eq!(told(&cloud).await, before + 1, "one event tells of it");
    patch(&cloud, json!({"delete_protection": false})).await.expect(200);
    end_leases(&cloud.app).await.unwrap();
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "deleting");
}

#[tokio::test]
async fn times_are_changed_and_taken_back() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    for (wrong, pointer) in [
        (json!({"stop_at": "2026-06-01T12:00:00Z"}), "/lease/stop_at"),
        (json!({"delete_at": "2126-06-01T12:00:00Z"}), "/lease/delete_at"),
        (json!({"stop_at": AT_TWO, "delete_at": AT_ONE}), "/lease/stop_at"),
    ] {
        let refused = patch(&cloud, json!({"lease": wrong})).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer);
    }
    patch(&cloud, json!({"lease": {"stop_at": "soon"}})).await.expect_problem(422, "validation_failed");
    let set = patch(&cloud, json!({"lease": {"stop_at": AT_ONE, "delete_at": AT_TWO}})).await.expect(200);
    assert_eq!(set["lease"]["stop_at"], AT_ONE);
    let left = patch(&cloud, json!({"lease": {"delete_at": null}})).await.expect(200);
    assert_eq!((&left["lease"]["stop_at"], left["lease"].get("delete_at")), (&json!(AT_ONE), None));
    let none = patch(&cloud, json!({"lease": null})).await.expect(200);
    assert_eq!(none.get("lease"), None);
    cloud.pass(2 * HOUR);
    end_leases(&cloud.app).await.unwrap();
    assert_eq!(host.desired(0).await["objects"][0]["power"], "running");
}

#[tokio::test]
async fn who_may_not_delete_sets_no_time_for_it() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let ada = all_but(&cloud, "compute:DeleteInstance", "*").await;
    let ada = [("authorization", ada.as_str())];
    let delete = json!({"lease": {"delete_at": AT_ONE}});
    cloud.call_with(Method::PATCH, WEB, &ada, Some(delete)).await.expect_problem(403, "forbidden");
    let stop = json!({"lease": {"stop_at": AT_ONE}});
    cloud.call_with(Method::PATCH, WEB, &ada, Some(stop)).await.expect(200);
}

#[tokio::test]
async fn who_may_not_delete_makes_none_that_is_deleted() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let ada = all_but(&cloud, "compute:DeleteInstance", "*").await;
    let ada = [("authorization", ada.as_str())];
    let of_image = json!({"name": "new", "image": "image", "instance_type": "tiny"});
    let of_web = json!({"name": "new", "source": {"instance": "web"}});
    for (mut body, name) in [(of_image, "one"), (of_web, "two")] {
        body["name"] = json!(name);
        body["lease"] = json!({"delete_at": AT_ONE});
        let made = cloud.call_with(Method::POST, INSTANCES, &ada, Some(body.clone())).await;
        made.expect_problem(403, "forbidden");
        cloud.get(&format!("{INSTANCES}/{name}")).await.expect_problem(404, "not_found");
        body["lease"] = json!({"stop_at": AT_ONE});
        cloud.call_with(Method::POST, INSTANCES, &ada, Some(body)).await.expect(202);
    }
}

#[tokio::test]
async fn a_time_that_stays_is_somebody_elses_or_the_callers_right() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let both = json!({"lease": {"stop_at": AT_ONE, "delete_at": AT_TWO}});
    let set = patch(&cloud, both.clone()).await.expect(200);
    let ada = all_but(&cloud, "compute:DeleteInstance", "*").await;
    let ada = [("authorization", ada.as_str())];
    let again = cloud.call_with(Method::PATCH, WEB, &ada, Some(both)).await.expect(200);
    assert_eq!(again["lease"]["set_by"], set["lease"]["set_by"]);
    let other = json!({"lease": {"stop_at": "2026-06-01T13:30:00Z"}});
    cloud.call_with(Method::PATCH, WEB, &ada, Some(other)).await.expect_problem(403, "forbidden");
    let all = json!({"lease": null});
    cloud.call_with(Method::PATCH, WEB, &ada, Some(all)).await.expect(200);
}

/// An error of the database whenever this is to become of the instance `web`.
pub(super) async fn break_web(cloud: &TestCloud, when: &str) {
    let function = "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$
                    BEGIN RAISE EXCEPTION 'broken'; END $$";
    let trigger = format!(
        "CREATE TRIGGER broken BEFORE UPDATE ON instances FOR EACH ROW
         WHEN (NEW.name = 'web' AND {when}) EXECUTE FUNCTION broken()"
    );
    sqlx::query(function).execute(&cloud.app.pool).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(trigger)).execute(&cloud.app.pool).await.unwrap();
}

#[tokio::test]
async fn one_in_trouble_keeps_no_other_waiting() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for name in ["web", "other"] {
        let body =
            json!({"name": name, "image": "image", "instance_type": "tiny", "lease": {"stop_at": AT_ONE}});
        cloud.post(INSTANCES, body).await.expect(202);
    }
    break_web(&cloud, "NEW.power = 'stopped'").await;
    cloud.pass(HOUR);
    end_leases(&cloud.app).await.unwrap();
    cloud.sign_in_again().await;
    let other = cloud.get(&format!("{INSTANCES}/other")).await.expect(200);
    assert_eq!((&other["operation"]["kind"], other.get("lease")), (&json!("stop_instance"), None));
    let web = cloud.get(WEB).await.expect(200);
    assert!(web["lease"]["detail"].as_str().unwrap().contains("tries again"), "{web}");
    let sql = "SELECT count(*) FROM instances WHERE lease_due_at <= $1";
    let now = cloud.app.clock.now();
    let due: i64 = sqlx::query_scalar(sql).bind(now).fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(due, 0, "those behind it have their turn first");
}

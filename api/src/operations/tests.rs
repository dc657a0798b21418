//! Operations that ended long ago.

use protocol::OperationId;
use serde_json::json;
use time::Duration;

use super::forget_old;
use crate::testing::TestCloud;

const WEB: &str = "/v1/projects/demo/instances/web";
const OPERATIONS: &str = "/v1/projects/demo/operations";
const DAY: i64 = 24 * 3600;

/// The kinds of those that there are, newest first.
async fn kinds(cloud: &TestCloud) -> Vec<String> {
    let page = cloud.get(&format!("{OPERATIONS}?limit=500")).await.expect(200);
    let items = page["items"].as_array().unwrap();
    items.iter().map(|one| one["kind"].as_str().unwrap().to_owned()).collect()
}

/// What a pass does that comes so many seconds later.
async fn forget(cloud: &TestCloud, later: i64) {
    let now = cloud.app.clock.now() + Duration::seconds(later);
    forget_old(&mut cloud.app.pool.acquire().await.unwrap(), now).await.unwrap();
}

async fn count(cloud: &TestCloud, table: &str) -> i64 {
    let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(query).fetch_one(&cloud.app.pool).await.unwrap()
}

#[tokio::test]
async fn what_ended_long_ago_goes_and_what_runs_or_is_looked_back_at_stays() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    let web = cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    crate::instances::place_pending(&cloud.app).await.unwrap();
    let running = json!({"state": "running"});
    host.report(&web["id"], 1, 1, running).await;
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    host.report(&web["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;
    let both = ["stop_instance", "create_instance"];
    assert_eq!(kinds(&cloud).await, both);
    let old = cloud.get(OPERATIONS).await.expect(200)["items"][1]["id"].clone();

    forget(&cloud, 90 * DAY).await;
    assert_eq!(kinds(&cloud).await, both);
    let steps = count(&cloud, "operation_steps").await;
    forget(&cloud, 90 * DAY + 1).await;
    assert_eq!(kinds(&cloud).await, ["stop_instance"], "the newest one of what is there");
    assert!(count(&cloud, "operation_steps").await < steps);
    let path = format!("{OPERATIONS}/{}", old.as_str().unwrap());
    cloud.get(&path).await.expect_problem(404, "not_found");

    // One that nobody ends.
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    forget(&cloud, 200 * DAY).await;
    assert_eq!(kinds(&cloud).await, ["start_instance"]);
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "provisioning");
}

#[tokio::test]
async fn many_go_in_one_pass() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let ids: Vec<uuid::Uuid> = (0..2500).map(|_| cloud.app.clock.new_id::<OperationId>().as_uuid()).collect();
    sqlx::query(
        "INSERT INTO operations (id, project_id, kind, resource_id, resource_name, status, principal_id, request_id,
                                 created_at, updated_at, deadline_at, finished_at)
         SELECT n.id, p.id, 'stop_instance', n.id, 'gone', 'succeeded', u.id, n.id, $2, $2, $2, $2
         FROM unnest($1::uuid[]) n (id), (SELECT id FROM projects WHERE name = 'demo') p,
              (SELECT id FROM principals LIMIT 1) u",
    )
    .bind(&ids)
    .bind(cloud.app.clock.now())
    .execute(&cloud.app.pool)
    .await
    .unwrap();
    forget(&cloud, 90 * DAY).await;
    assert_eq!(count(&cloud, "operations").await, 2500);
    forget(&cloud, 90 * DAY + 1).await;
    assert_eq!(count(&cloud, "operations").await, 0);
}

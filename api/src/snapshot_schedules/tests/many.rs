//! Schedules that keep much.

use axum::http::Method;
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::{INSTANCES, SCHEDULES, VOLUMES, data};
use crate::snapshot_schedules::run;
use crate::testing::TestCloud;

async fn count(cloud: &TestCloud, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&cloud.app.pool).await.unwrap()
}

/// No statement has longer than the pool gives it, which is enough for what is linear.
#[tokio::test]
async fn many_snapshots_are_looked_through_in_one_pass() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.lift_quotas().await;
    data(&cloud).await;
    cloud
        .post(SCHEDULES, json!({"name": "often", "volume": "data", "every_hours": 6, "keep": 1}))
        .await
        .expect(201);
    let copies = "INSERT INTO snapshot_schedules
                      SELECT (jsonb_populate_record(s, jsonb_build_object('id', gen_random_uuid(), 'name', 'often-' || n))).*
                      FROM snapshot_schedules s, generate_series(1, 9) n";
    let made = "WITH made AS (
                    INSERT INTO snapshots (id, project_id, name, labels, state, consistency, taken_at, created_at, updated_at,
                                           schedule_id)
                    SELECT gen_random_uuid(), s.project_id, s.name || '-' || n, '{}', 'available', 'crash', at, at, at, s.id
                    FROM snapshot_schedules s, generate_series(1, 2000) n,
                         LATERAL (SELECT s.created_at + n * interval '1 second') t (at)
                    RETURNING id)
                INSERT INTO snapshot_volumes (snapshot_id, position, volume_id, volume_name, size_gib, spec_generation)
                SELECT m.id, 0, v.id, v.name, v.size_gib, 1 FROM made m, volumes v";
    let mut tx = cloud.app.pool.begin().await.unwrap();
    for sql in ["SET LOCAL statement_timeout = 0", copies, made] {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(count(&cloud, "SELECT count(*) FROM surplus_snapshots").await, 20_000 - 10);
    run(&cloud.app).await.unwrap();
    assert_eq!(count(&cloud, "SELECT count(*) FROM snapshots").await, 20_000 - 100);

    // Whether one is still surplus is a question about its schedule.
    let plan = "EXPLAIN (FORMAT JSON) SELECT FROM surplus_snapshots
                WHERE schedule_id = '00000000-0000-0000-0000-000000000001'";
    let plan: serde_json::Value = sqlx::query_scalar(plan).fetch_one(&cloud.app.pool).await.unwrap();
    assert!(plan.to_string().contains("snapshots_of_schedule"), "{plan}");
}

#[tokio::test]
async fn no_volume_comes_to_an_instance_with_which_its_schedules_would_keep_too_much() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": []});
    cloud.post(INSTANCES, body).await.expect(202);
    data(&cloud).await;
    cloud.post(VOLUMES, json!({"name": "other", "size_gib": 1})).await.expect(201);
    let of = |name: &str, what: &str, which: &str, keep: i32| {
        let mut body = json!({"name": name, "at": "03:00", "keep": keep});
        body[what] = json!(which);
        cloud.post(SCHEDULES, body)
    };
    of("all", "instance", "web", 10).await.expect(201);
    of("of-data", "volume", "data", 9).await.expect(201);
    let attach = async |volume: &str, query: &str| {
        let path = format!("{INSTANCES}/web/attach_volume{query}");
        cloud.post(&path, json!({"volume": volume})).await
    };
    for query in ["?dry_run=true", ""] {
        let refused = attach("data", query).await.expect_problem(409, "wrong_state");
        let detail = refused["detail"].as_str().unwrap();
        assert!(
            detail.contains("all, of-data together would keep 19 snapshots of the volume data"),
            "{detail}"
        );
    }
    attach("other", "").await.expect(202);
    let fewer = cloud.call(Method::PATCH, &format!("{SCHEDULES}/of-data"), Some(json!({"keep": 8}))).await;
    fewer.expect(200);
    attach("data", "").await.expect(202);
}

//! Schedules that keep much.

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::{INSTANCES, SCHEDULES, VOLUMES, data};
use crate::snapshot_schedules::run;
use crate::testing::TestCloud;

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

/// 200 schedules of one volume with 100 snapshots each, which all of them keep but one, of which there is no news.
const MANY: [&str; 6] = [
    "SET LOCAL statement_timeout = 0",
    "UPDATE snapshot_schedules SET keep = 100",
    "INSERT INTO snapshot_schedules
     SELECT (jsonb_populate_record(s, jsonb_build_object('id', gen_random_uuid(), 'name', 'often-' || n))).*
     FROM snapshot_schedules s, generate_series(1, 199) n",
    "UPDATE snapshot_schedules SET keep = 1 WHERE name = 'often-7'",
    "WITH made AS (
         INSERT INTO snapshots (id, project_id, name, labels, state, consistency, taken_at, created_at, updated_at, schedule_id)
         SELECT gen_random_uuid(), s.project_id, s.name || '-' || n, '{}', 'available', 'crash', at, at, at, s.id
         FROM snapshot_schedules s, generate_series(1, 100) n,
              LATERAL (SELECT s.created_at + n * interval '1 second') t (at)
         RETURNING id)
     INSERT INTO snapshot_volumes (snapshot_id, position, volume_id, volume_name, size_gib, spec_generation)
     SELECT m.id, 0, v.id, v.name, v.size_gib, 1 FROM made m, volumes v",
    "UPDATE project_quotas q SET used = (SELECT count(*) FROM snapshots s WHERE s.project_id = q.project_id)
     WHERE resource = 'snapshots'",
];

/// As if all of it had been there for long.
async fn triggers(cloud: &TestCloud, switch: &str) {
    for table in ["snapshot_schedules", "snapshots", "snapshot_volumes"] {
        let sql = format!("ALTER TABLE {table} {switch} TRIGGER USER; ANALYZE {table}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&cloud.app.pool).await.unwrap();
    }
}

async fn count(cloud: &TestCloud, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&cloud.app.pool).await.unwrap()
}

/// How many rows of this table, and whether all, were read in a plan that was carried out.
fn read(plan: &Value, table: &str) -> (f64, bool) {
    let number = |key: &str| plan[key].as_f64().unwrap_or_default();
    let is_it = plan["Relation Name"] == table;
    let rows = (number("Actual Rows") + number("Rows Removed by Filter")) * number("Actual Loops");
    let below = plan["Plans"].as_array().into_iter().flatten().map(|plan| read(plan, table));
    below.fold((if is_it { rows } else { 0.0 }, is_it && plan["Node Type"] == "Seq Scan"), |sum, one| {
        (sum.0 + one.0, sum.1 || one.1)
    })
}

#[tokio::test]
async fn of_many_snapshots_those_of_schedules_with_news_are_looked_at() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.lift_quotas().await;
    data(&cloud).await;
    let often = json!({"name": "often", "volume": "data", "every_hours": 6, "keep": 1});
    cloud.post(SCHEDULES, often).await.expect(201);
    triggers(&cloud, "DISABLE").await;
    let mut tx = cloud.app.begin().await.unwrap();
    for sql in MANY {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    triggers(&cloud, "ENABLE").await;
    let (snapshots, news) = ("SELECT count(*) FROM snapshots", "SELECT count(*) FROM schedule_news");

    // Whoever is not told of a schedule does not look at it, whatever there is.
    run(&cloud.app).await.unwrap();
    assert_eq!(count(&cloud, snapshots).await, 20_000);
    // What another one keeps no longer goes, a part in each pass.
    let less = "UPDATE snapshot_schedules SET keep = 1 WHERE name IN ('often-1', 'often-2')";
    sqlx::raw_sql(less).execute(&cloud.app.pool).await.unwrap();
    for (left, told) in [(20_000 - 100, 1), (20_000 - 198, 0)] {
        run(&cloud.app).await.unwrap();
        assert_eq!((count(&cloud, snapshots).await, count(&cloud, news).await), (left, told));
    }

    // The statement reads what its schedule has made, and of each of these one volume.
    let plan = "EXPLAIN (ANALYZE, FORMAT JSON) SELECT id FROM surplus_snapshots
                WHERE schedule_id = (SELECT id FROM snapshot_schedules WHERE name = 'often-9') ORDER BY id LIMIT 100";
    let plan: Value = sqlx::query_scalar(plan).fetch_one(&cloud.app.pool).await.unwrap();
    for table in ["snapshots", "snapshot_volumes"] {
        let (rows, all) = read(&plan[0]["Plan"], table);
        assert!(!all && (1.0..=100.0).contains(&rows), "{rows} rows of {table}: {plan:#}");
    }
}

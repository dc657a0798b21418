//! What is written down, in which order it is read, and what is forgotten.

mod races;
mod streams;

use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{forget_old, sequence};
use crate::instances::place_pending;
use crate::nudge::Topic;
use crate::testing::TestCloud;

const EVENTS: &str = "/v1/projects/demo/events";
const CLOUD: &str = "/v1/events";
const INSTANCES: &str = "/v1/projects/demo/instances";
const WEB: &str = "/v1/projects/demo/instances/web";

async fn execute(cloud: &TestCloud, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&cloud.app.pool).await.unwrap();
}

/// The id of the project, and of its log.
async fn demo(cloud: &TestCloud) -> Uuid {
    sqlx::query_scalar("SELECT id FROM projects WHERE name = 'demo'")
        .fetch_one(&cloud.app.pool)
        .await
        .unwrap()
}

/// Numbers all that is pending. A call may hold the turn, or an older transaction, for a moment after its answer.
async fn sequence_all(cloud: &TestCloud) {
    let pending = "SELECT count(*) FROM pending_events";
    let numbered = async {
        sequence(&cloud.app).await.unwrap();
        while sqlx::query_scalar::<_, i64>(pending).fetch_one(&cloud.app.pool).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            sequence(&cloud.app).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), numbered).await.expect("something stays pending");
}

/// The whole log, numbered first, as `kind change name`.
async fn all(cloud: &TestCloud, path: &str) -> Vec<String> {
    sequence_all(cloud).await;
    let page = cloud.get(&format!("{path}?limit=500")).await.expect(200);
    assert_eq!(page["last_position"], page["head"]);
    let items = page["items"].as_array().unwrap();
    let positions: Vec<_> = items.iter().map(|event| event["position"].as_i64().unwrap()).collect();
    assert_eq!(positions, (1..=i64::try_from(items.len()).unwrap()).collect::<Vec<_>>());
    let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_owned();
    // What was made with an instance has a name with digits of its id.
    let name = |event: &Value| match text(event, "resource_name") {
        name if name.starts_with("root-") => "root".to_owned(),
        name => name,
    };
    let words = |event: &Value| [text(event, "kind"), text(event, "change"), name(event)].join(" ");
    items.iter().map(words).collect()
}

/// What the deed adds to the log of the project.
async fn added(cloud: &TestCloud, deed: impl Future<Output = ()>) -> Vec<String> {
    let before = all(cloud, EVENTS).await.len();
    deed.await;
    all(cloud, EVENTS).await.split_off(before)
}

fn web() -> Value {
    json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": []})
}

#[tokio::test]
async fn a_life_leaves_one_event_for_each_change() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let furnished = [
        "project created demo",
        "network created default",
        "subnet created default",
        "router created default",
        "security_group created default",
        "image created image",
        "image state image",
    ];
    assert_eq!(all(&cloud, EVENTS).await, furnished);

    let created = added(&cloud, cloud.post(INSTANCES, web()).map(|answer| drop(answer.expect(202)))).await;
    let with_root = ["operation created create_instance", "instance created web", "volume created root"];
    assert_eq!(created, with_root);
    let placed = added(&cloud, place_pending(&cloud.app).map(Result::unwrap)).await;
    assert_eq!(placed, ["instance state web"]);
    let id = cloud.get(WEB).await.expect(200)["id"].clone();
    let report = async |generation: i64, state: &str| {
        host.report(&id, generation, 1, json!({"state": state})).await;
    };
    let running = ["instance state web", "volume state root", "operation state create_instance"];
    assert_eq!(added(&cloud, report(1, "running")).await, running);
    assert!(added(&cloud, report(1, "running")).await.is_empty());
    let looked_at = execute(&cloud, "UPDATE instances SET observed_at = created_at, updated_at = created_at");
    assert!(added(&cloud, looked_at).await.is_empty());

    let renamed = async {
        let body = json!({"name": "shop", "labels": {"tier": "front"}});
        cloud.call(axum::http::Method::PATCH, WEB, Some(body)).await.expect(200);
    };
    assert_eq!(added(&cloud, renamed).await, ["instance updated shop"]);
    let both = "UPDATE instances SET power = 'stopped', observed_boot = observed_boot + 1";
    assert_eq!(added(&cloud, execute(&cloud, both)).await, ["instance updated shop"]);
    let deleted = async {
        cloud.delete(&format!("{INSTANCES}/shop")).await.expect(202);
        host.report(&id, 3, 1, json!({"state": "absent"})).await;
    };
    assert_eq!(
        added(&cloud, deleted).await,
        [
            "volume updated root",
            "operation created delete_instance",
            "instance updated shop",
            "instance state shop",
            "operation state delete_instance",
            "volume deleted root",
            "instance deleted shop",
        ]
    );
}

#[tokio::test]
async fn the_cloud_has_a_log_of_its_own() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.join_host("host-1").await;
    execute(&cloud, "UPDATE hosts SET last_seen_at = created_at, epoch = epoch + 1").await;
    execute(&cloud, "UPDATE hosts SET hypervisor_degraded = 'ill'").await;
    execute(&cloud, "UPDATE projects SET labels = '{\"a\":\"b\"}'").await;
    cloud.delete("/v1/instance_types/tiny").await.expect(204);
    cloud.delete("/v1/projects/demo/images/image").await.expect(204);
    cloud.delete("/v1/projects/demo").await.expect(204);
    let expected = [
        "project created demo",
        "instance_type created tiny",
        "host created host-1",
        "host state host-1",
        "project updated demo",
        "instance_type deleted tiny",
        "project deleted demo",
    ];
    assert_eq!(all(&cloud, CLOUD).await, expected);
}

#[tokio::test]
async fn an_event_names_its_resource_and_the_request_behind_it() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let request = "0190a0a0-0000-7000-8000-000000000001";
    let headers = [("x-request-id", request)];
    let made = cloud.call_with(axum::http::Method::POST, INSTANCES, &headers, Some(web())).await.expect(202);
    cloud.pass(5);
    sequence(&cloud.app).await.unwrap();
    let page = cloud.get(&format!("{EVENTS}?after=8")).await.expect(200);
    let expected = json!({
        "position": 9, "kind": "instance", "change": "created", "resource_id": made["id"],
        "resource_name": "web", "request_id": request, "at": "2026-06-01T12:00:05Z",
    });
    assert_eq!(page["items"][0], expected);
}

#[tokio::test]
async fn a_late_commit_gets_a_late_position_and_a_rollback_none() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let start = all(&cloud, EVENTS).await.len();
    let mut early = cloud.app.begin().await.unwrap();
    let rename = "UPDATE images SET name = 'early'";
    sqlx::query(rename).execute(&mut *early).await.unwrap();
    let mut undone = cloud.app.begin().await.unwrap();
    sqlx::query("UPDATE projects SET description = 'undone'").execute(&mut *undone).await.unwrap();
    undone.rollback().await.unwrap();
    execute(&cloud, "UPDATE projects SET description = 'late'").await;
    let seen = all(&cloud, EVENTS).await;
    assert_eq!(seen[start..], ["project updated demo"]);
    early.commit().await.unwrap();
    assert_eq!(all(&cloud, EVENTS).await[start..], ["project updated demo", "image updated early"]);
}

#[tokio::test]
async fn pages_go_on_from_any_position() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let whole = all(&cloud, EVENTS).await.len();
    for limit in 1..=whole + 1 {
        let (mut seen, mut after) = (0, 0);
        loop {
            let page = cloud.get(&format!("{EVENTS}?limit={limit}&after={after}")).await.expect(200);
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            seen += items.len();
            if page["last_position"] == page["head"] && items.is_empty() {
                break;
            }
            after = page["last_position"].as_i64().unwrap();
        }
        assert_eq!(seen, whole);
    }
    for wrong in ["after=-1", "after=x", "limit=0", "limit=501", "wait=301", "surprise=1"] {
        cloud.get(&format!("{EVENTS}?{wrong}")).await.expect_problem(400, "invalid_query");
        cloud.get(&format!("{CLOUD}?{wrong}")).await.expect_problem(400, "invalid_query");
    }
    let future = cloud.get(&format!("{EVENTS}?after={}", i64::MAX)).await;
    future.expect_problem(410, "cursor_expired");
}

#[tokio::test]
async fn a_long_poll_ends_with_the_event() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let head = all(&cloud, EVENTS).await.len();
    let sequencer = async {
        // As its controller does: woken by the trigger.
        let mut waiter = cloud.app.nudges.subscribe(Topic::Events);
        loop {
            waiter.nudged(Duration::from_secs(60)).await;
            sequence(&cloud.app).await.unwrap();
        }
    };
    let log = Topic::EventLog(demo(&cloud).await);
    let change = async {
        while cloud.app.nudges.waiting_for(log) < 2 {
            tokio::task::yield_now().await;
        }
        execute(&cloud, "UPDATE projects SET description = 'x'").await;
    };
    let path = format!("{EVENTS}?after={head}&wait=50");
    // Looking again now and then would hide that the reader is not woken.
    let mut reader = cloud.app.nudges.subscribe(log);
    let polled = async { tokio::join!(cloud.get(&path), change).0 };
    let page = tokio::select! {
        page = polled => page.expect(200),
        () = sequencer => unreachable!(),
    };
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(page["last_position"].as_u64(), Some(head as u64 + 1));
    let woken = tokio::time::timeout(Duration::from_secs(20), reader.nudged(Duration::from_secs(60)));
    woken.await.expect("nobody wakes the readers");
}

#[tokio::test]
async fn what_is_older_than_thirty_days_is_forgotten_from_the_beginning() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let old = all(&cloud, EVENTS).await.len();
    cloud.pass(60);
    execute(&cloud, "UPDATE projects SET description = 'x'").await;
    let whole = all(&cloud, EVENTS).await.len();
    assert_eq!(whole, old + 1);
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let days = time::Duration::days(30);
    forget_old(&mut conn, cloud.app.clock.now() + days - time::Duration::seconds(30)).await.unwrap();

    let kept = cloud.get(EVENTS).await.expect(200);
    assert_eq!((kept["oldest"].as_u64(), kept["head"].as_u64()), (Some(whole as u64), Some(whole as u64)));
    assert_eq!(kept["items"].as_array().unwrap().len(), 1);
    let expired =
        cloud.get(&format!("{EVENTS}?after={}", old - 1)).await.expect_problem(410, "cursor_expired");
    let detail = expired["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("the oldest that is kept is {whole}")), "{detail}");
    cloud.get(&format!("{EVENTS}/stream?after={}", old - 1)).await.expect_problem(410, "cursor_expired");
    cloud.get(&format!("{EVENTS}?after={old}")).await.expect(200);

    // Positions go on when nothing is left.
    forget_old(&mut conn, cloud.app.clock.now() + days + days).await.unwrap();
    let empty = cloud.get(EVENTS).await.expect(200);
    assert_eq!(empty["items"], json!([]));
    assert_eq!(
        (empty["oldest"].as_u64(), empty["last_position"].as_u64()),
        (Some(whole as u64 + 1), Some(whole as u64))
    );
    cloud.get(&format!("{EVENTS}?after={old}")).await.expect_problem(410, "cursor_expired");
    execute(&cloud, "UPDATE projects SET description = 'y'").await;
    sequence(&cloud.app).await.unwrap();
    let next = cloud.get(&format!("{EVENTS}?after={whole}")).await.expect(200);
    assert_eq!(next["items"][0]["position"].as_u64(), Some(whole as u64 + 1));
}

#[tokio::test]
async fn the_log_of_a_project_goes_after_it() {
    let cloud = TestCloud::start().await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    let begun = [
        "project created demo",
        "network created default",
        "subnet created default",
        "router created default",
        "security_group created default",
    ];
    assert_eq!(all(&cloud, EVENTS).await, begun);
    cloud.delete("/v1/projects/demo").await.expect(204);
    sequence(&cloud.app).await.unwrap();
    forget_old(&mut cloud.app.pool.acquire().await.unwrap(), cloud.app.clock.now()).await.unwrap();
    let logs: i64 =
        sqlx::query_scalar("SELECT count(*) FROM event_logs").fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(logs, 2);
    // One of the same name has another log.
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    assert_eq!(all(&cloud, EVENTS).await, begun);
    assert_eq!(all(&cloud, "/v1/projects/other/events").await[0], "project created other");
}

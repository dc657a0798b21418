//! Every controller and two calls, with the line to PostgreSQL cut at each message: before it arrives, and
//! before its answer does. Done again, the end is the same.

use std::cell::Cell;
use std::time::Duration;

use axum::http::Method;
use serde_json::json;
use sqlx::AssertSqlSafe;
use time::OffsetDateTime;

use crate::testing::{Line, Lost, TestCloud};
use crate::{events, images, instances, operations, snapshot_schedules, volumes};

const INSTANCES: &str = "/v1/projects/demo/instances";
const IMAGES: &str = "/v1/projects/demo/images";
const SNAPSHOTS: &str = "/v1/projects/demo/snapshots";
const VOLUMES: &str = "/v1/projects/demo/volumes";

async fn query<T>(cloud: &TestCloud, sql: &str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&cloud.app.pool).await.unwrap()
}

async fn execute(cloud: &TestCloud, sql: &'static str) {
    sqlx::query(sql).execute(&cloud.app.pool).await.unwrap();
}

/// A furnished cloud with one host that has room for everything.
async fn roomy() -> (TestCloud, Line) {
    let (cloud, line) = TestCloud::start_on_a_line().await;
    cloud.furnish().await;
    cloud.lift_quotas().await;
    cloud.join_host("host-1").await;
    let room =
        "UPDATE hosts SET vcpus_capacity = 9999, memory_mib_capacity = 999999, disk_gib_capacity = 9999";
    execute(&cloud, room).await;
    (cloud, line)
}

/// One cut of the line.
struct Cut<'a> {
    cloud: &'a TestCloud,
    line: &'a Line,
    messages: usize,
    lost: Lost,
    happened: Cell<bool>,
    /// Counts the cuts of a test.
    number: i64,
}

impl Cut<'_> {
    /// Does the work while the line is to be cut, and tells whether it came to its end all the same.
    async fn during<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.line.cut_after(self.messages, self.lost);
        let done = work.await;
        self.happened.set(self.line.was_cut());
        self.settled().await;
        done
    }

    /// Until PostgreSQL has noticed the cut: before that, the rows of the work are still taken, and whoever
    /// comes after it passes them over until its next turn.
    async fn settled(&self) {
        let busy = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL";
        let settled = async {
            while query::<i64>(self.cloud, busy).await > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), settled).await.expect("a transaction never ended");
    }
}

/// Calls `round` for one message after the other, and for both kinds of loss, until the work has no more
/// messages. There must be at least so many.
async fn at_each_message(cloud: &TestCloud, line: &Line, at_least: usize, round: impl AsyncFn(&Cut<'_>)) {
    let mut number = 0;
    for lost in [Lost::Request, Lost::Reply] {
        for messages in 0.. {
            let cut = Cut { cloud, line, messages, lost, happened: Cell::new(false), number };
            round(&cut).await;
            number += 1;
            if !cut.happened.get() {
                assert!(messages >= at_least, "{lost:?}: only {messages} messages");
                break;
            }
        }
    }
}

async fn create(cloud: &TestCloud, number: i64) {
    let body = json!({"name": format!("web-{number}"), "image": "image", "instance_type": "tiny"});
    cloud.post(INSTANCES, body).await.expect(202);
}

#[tokio::test]
async fn placement() {
    let (cloud, line) = roomy().await;
    at_each_message(&cloud, &line, 8, async |cut| {
        create(&cloud, cut.number).await;
        cut.during(instances::place_pending(&cloud.app)).await.ok();
        instances::place_pending(&cloud.app).await.unwrap();
        let made = cut.number + 1;
        assert_eq!(query::<i64>(&cloud, "SELECT sum(vcpus_reserved) FROM hosts").await, made);
        let steps = "SELECT count(*) FROM operation_steps WHERE step = 'placed'";
        assert_eq!(query::<i64>(&cloud, steps).await, made);
        let revisions = "SELECT count(DISTINCT desired_revision) FROM instances WHERE host_id IS NOT NULL";
        assert_eq!(query::<i64>(&cloud, revisions).await, made);
    })
    .await;
}

#[tokio::test]
async fn deadlines() {
    let (cloud, line) = roomy().await;
    at_each_message(&cloud, &line, 4, async |cut| {
        create(&cloud, cut.number).await;
        execute(&cloud, "UPDATE operations SET deadline_at = created_at").await;
        cut.during(operations::expire(&cloud.app)).await.ok();
        operations::expire(&cloud.app).await.unwrap();
        let failed = "SELECT count(*) FROM operations
                      WHERE status = 'failed' AND error_code = 'deadline_exceeded' AND finished_at IS NOT NULL";
        assert_eq!(query::<i64>(&cloud, failed).await, cut.number + 1);
    })
    .await;
}

#[tokio::test]
async fn sweeping() {
    let (cloud, line) = TestCloud::start_on_a_line().await;
    cloud.furnish().await;
    at_each_message(&cloud, &line, 2, async |cut| {
        cloud.post(IMAGES, json!({"name": "gone", "format": "raw"})).await.expect(201);
        cloud.put_bytes(&format!("{IMAGES}/gone/content"), vec![7; 512]).await.expect(200);
        cloud.delete(&format!("{IMAGES}/gone")).await.expect(204);
        cut.during(images::sweep(&cloud.app)).await.ok();
        images::sweep(&cloud.app).await.unwrap();
        // The image that the cloud is furnished with stays.
        assert_eq!(blobs(&cloud).await, (1, 1));
    })
    .await;
}

/// How many there are, as rows and as files.
async fn blobs(cloud: &TestCloud) -> (i64, usize) {
    let files = std::fs::read_dir(cloud.data().join("images/blobs")).map_or(0, Iterator::count);
    (query(cloud, "SELECT count(*) FROM blobs").await, files)
}

#[tokio::test]
async fn positions_of_events() {
    let (cloud, line) = roomy().await;
    at_each_message(&cloud, &line, 6, async |cut| {
        create(&cloud, cut.number).await;
        cut.during(events::sequence(&cloud.app)).await.ok();
        events::sequence(&cloud.app).await.unwrap();
        let gaps = "SELECT count(*) FROM event_logs l
                    WHERE last_position <> (SELECT count(*) FROM events e WHERE e.log_id = l.log_id)
                       OR last_position <> (SELECT max(position) FROM events e WHERE e.log_id = l.log_id)";
        assert_eq!(query::<i64>(&cloud, gaps).await, 0);
        assert_eq!(query::<i64>(&cloud, "SELECT count(*) FROM pending_events").await, 0);
        let created = "SELECT count(*) FROM events WHERE kind = 'instance' AND change = 'created'";
        assert_eq!(query::<i64>(&cloud, created).await, cut.number + 1);
    })
    .await;
}

#[tokio::test]
async fn heartbeats() {
    let (cloud, line) = roomy().await;
    let id: uuid::Uuid = query(&cloud, "SELECT id FROM hosts").await;
    at_each_message(&cloud, &line, 1, async |cut| {
        cloud.pass(1);
        cloud.app.heartbeats.heard(id.into(), cloud.app.clock.now(), None, Default::default());
        cut.during(cloud.app.heartbeats.flush(&cloud.app.pool)).await.ok();
        cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
        let seen: OffsetDateTime = query(&cloud, "SELECT last_seen_at FROM hosts").await;
        assert_eq!(seen, cloud.app.clock.now());
    })
    .await;
}

#[tokio::test]
async fn a_creation_that_is_repeated_with_its_key() {
    let (cloud, line) = roomy().await;
    cloud.token().await;
    at_each_message(&cloud, &line, 8, async |cut| {
        let key = format!("key-{}", cut.number);
        let body = json!({"name": format!("web-{}", cut.number), "image": "image", "instance_type": "tiny"});
        let headers = [("idempotency-key", key.as_str())];
        let call = || cloud.call_with(Method::POST, INSTANCES, &headers, Some(body.clone()));
        let first = cut.during(async { Ok::<_, ()>(call().await) }).await.unwrap();
        if first.status != 202 {
            first.expect_problem(503, "database_unavailable");
            assert_eq!(first.headers["retry-after"], "1");
        }
        call().await.expect(202);
        let made = cut.number + 1;
        for table in ["instances", "operations", "idempotency_keys"] {
            let count: i64 = query(&cloud, &format!("SELECT count(*) FROM {table}")).await;
            assert_eq!(count, made, "{table}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload() {
    let (cloud, line) = TestCloud::start_on_a_line().await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    let content = format!("{IMAGES}/image/content");
    at_each_message(&cloud, &line, 10, async |cut| {
        cloud.post(IMAGES, json!({"name": "image", "format": "raw"})).await.expect(201);
        let first = cut.during(async { Ok::<_, ()>(cloud.put_bytes(&content, vec![7; 4096]).await) }).await;
        if first.as_ref().is_ok_and(|answer| answer.status != 200) {
            first.unwrap().expect_problem(503, "database_unavailable");
        }
        let again = cloud.put_bytes(&content, vec![7; 4096]).await;
        // The answer to the first one may be all that was lost.
        assert!(again.status == 200 || again.json()["code"] == "wrong_state", "{again:?}");
        execute(&cloud, "UPDATE blobs SET lease_until = created_at - interval '1 second'").await;
        images::sweep(&cloud.app).await.unwrap();
        assert_eq!(blobs(&cloud).await, (1, 1), "after {} messages, {:?}", cut.messages, cut.lost);
        cloud.delete(&format!("{IMAGES}/image")).await.expect(204);
        images::sweep(&cloud.app).await.unwrap();
        assert_eq!(blobs(&cloud).await, (0, 0));
    })
    .await;
}

#[tokio::test]
async fn an_import() {
    let (cloud, line) = TestCloud::start_on_a_line().await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    at_each_message(&cloud, &line, 12, async |cut| {
        // Requests are limited by the second.
        cloud.pass(1);
        cloud.post(IMAGES, json!({"name": "image", "format": "raw"})).await.expect(201);
        let uploads = format!("{IMAGES}/image/uploads");
        let upload = cloud.post(&uploads, json!({"size_bytes": 512})).await.expect(201);
        let path = format!("{uploads}/{}", upload["id"].as_str().unwrap());
        let part = axum::http::Request::patch(&path)
            .header("authorization", format!("Bearer {}", cloud.token().await))
            .header("upload-offset", "0");
        cloud.send(part.body(vec![7; 512].into()).unwrap()).await.expect(200);
        cloud.post(&format!("{path}/finish"), json!({})).await.expect(202);
        cut.during(images::run_imports(&cloud.app)).await.ok();
        // Another replica, when the lease of the first one is over.
        execute(&cloud, "UPDATE image_imports SET not_before = created_at").await;
        execute(&cloud, "UPDATE image_imports SET lease_until = created_at WHERE blob_id IS NOT NULL").await;
        images::run_imports(&cloud.app).await.unwrap();
        let image = cloud.get(&format!("{IMAGES}/image")).await.expect(200);
        assert_eq!(image["state"], "available", "after {} messages, {:?}", cut.messages, cut.lost);
        execute(&cloud, "UPDATE blobs SET lease_until = created_at - interval '1 second'").await;
        images::sweep(&cloud.app).await.unwrap();
        assert_eq!(blobs(&cloud).await, (1, 1), "after {} messages, {:?}", cut.messages, cut.lost);
        let running = "SELECT count(*) FROM operations WHERE status = 'running'";
        assert_eq!(query::<i64>(&cloud, running).await, 0);
        cloud.delete(&format!("{IMAGES}/image")).await.expect(204);
        images::sweep(&cloud.app).await.unwrap();
        images::sweep(&cloud.app).await.unwrap();
        assert_eq!(blobs(&cloud).await, (0, 0));
    })
    .await;
}

/// `web` with the volume `data`, on its host.
async fn with_data(cloud: &TestCloud) {
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": [],
        "volumes": [{"size_gib": 1, "name": "data"}]});
    cloud.post(INSTANCES, body).await.expect(202);
    instances::place_pending(&cloud.app).await.unwrap();
}

async fn chain(cloud: &TestCloud) -> (i32, i64) {
    let length = "SELECT cardinality(chain_of(layer_id)) FROM volumes WHERE name = 'data'";
    let merges = "SELECT count(*) FROM layers WHERE parent_merge IS NOT NULL";
    (query(cloud, length).await, query(cloud, merges).await)
}

#[tokio::test]
async fn merging() {
    let (cloud, line) = roomy().await;
    with_data(&cloud).await;
    for cut_the_end in [false, true] {
        at_each_message(&cloud, &line, 6, async |cut| {
            // Requests are limited by the second.
            cloud.pass(1);
            cloud.post(SNAPSHOTS, json!({"name": "one", "volume": "data"})).await.expect(202);
            execute(
                &cloud,
                "UPDATE snapshots SET state = 'available', taken_at = created_at, taking_instance_id = NULL,
                                      taking_boot = NULL",
            )
            .await;
            cloud.delete(&format!("{SNAPSHOTS}/one")).await.expect(204);
            if !cut_the_end {
                cut.during(volumes::merge(&cloud.app)).await.ok();
            }
            volumes::merge(&cloud.app).await.unwrap();
            volumes::merge(&cloud.app).await.unwrap();
            assert_eq!(chain(&cloud).await, (3, 1), "after {} messages, {:?}", cut.messages, cut.lost);
            execute(&cloud, "UPDATE layers SET parent_merge = 'done' WHERE parent_merge = 'asked'").await;
            if cut_the_end {
                cut.during(volumes::merge(&cloud.app)).await.ok();
            }
            volumes::merge(&cloud.app).await.unwrap();
            assert_eq!(chain(&cloud).await, (2, 0), "after {} messages, {:?}", cut.messages, cut.lost);
            assert_eq!(query::<i64>(&cloud, "SELECT count(*) FROM layer_removals").await, 1);
            execute(&cloud, "SELECT forget_removals(array_agg(id)) FROM layer_removals").await;
        })
        .await;
    }
}

#[tokio::test]
async fn schedules() {
    let (cloud, line) = roomy().await;
    cloud.post(VOLUMES, json!({"name": "data", "size_gib": 1})).await.expect(201);
    let body = json!({"name": "often", "volume": "data", "every_hours": 1, "keep": 1});
    cloud.post("/v1/projects/demo/snapshot_schedules", body).await.expect(201);
    at_each_message(&cloud, &line, 10, async |cut| {
        cloud.pass(3600);
        cut.during(snapshot_schedules::run(&cloud.app)).await.ok();
        snapshot_schedules::run(&cloud.app).await.unwrap();
        let kept: i64 = query(&cloud, "SELECT count(*) FROM snapshots").await;
        assert_eq!(kept, 1, "after {} messages, {:?}", cut.messages, cut.lost);
        let late = "SELECT count(*) FROM snapshot_schedules WHERE last_due_at + interval '1 hour' <> next_at";
        assert_eq!(query::<i64>(&cloud, late).await, 0);
        // What is kept of the volume alone: the one that is there, and what is written to.
        assert!(query::<i64>(&cloud, "SELECT count(*) FROM layers").await <= cut.number + 2);
    })
    .await;
}

#[tokio::test]
async fn a_pass_that_never_ends_is_begun_again() {
    let cloud = TestCloud::start().await;
    let shutdown = tokio_util::sync::CancellationToken::new();
    let passes = Cell::new(0);
    let moment = Duration::from_millis(20);
    super::repeat_for(moment, &cloud.app, &shutdown, "test", moment, None, |_| {
        passes.set(passes.get() + 1);
        if passes.get() == 3 {
            shutdown.cancel();
        }
        Box::pin(std::future::pending())
    })
    .await;
    assert_eq!(passes.get(), 3);
}

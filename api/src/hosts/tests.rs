//! What hosts say of their disks, and what the operator decides about them.

use axum::http::Method;
use protocol::GIB;
use serde_json::{Value, json};

use super::watch_for_silence;
use crate::instances::place_pending;
use crate::testing::{TestCloud, TestHost};
use crate::verify;

const HOST: &str = "/v1/hosts/host-1";
const INSTANCES: &str = "/v1/projects/demo/instances";
const VOLUMES: &str = "/v1/projects/demo/volumes";

/// A heartbeat of a host with so much free of a hundred GiB.
async fn beat(cloud: &TestCloud, host: &TestHost<'_>, free_gib: u64) {
    let pool = json!({"total_bytes": 100 * GIB, "free_bytes": free_gib * GIB, "image_cache_bytes": GIB});
    let body = json!({"epoch": host.epoch, "hypervisor": {"status": "ok"}, "observed_digest": "0".repeat(64),
        "quarantined": 0, "pool": pool});
    host.call(Method::POST, "/agent/v1/heartbeat", Some(body)).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
}

async fn create(cloud: &TestCloud, name: &str, root_disk_gib: i32) -> Value {
    let body =
        json!({"name": name, "image": "image", "instance_type": "tiny", "root_disk_gib": root_disk_gib});
    cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    cloud.get(&format!("{INSTANCES}/{name}")).await.expect(200)
}

async fn findings(cloud: &TestCloud) -> Vec<String> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let report = verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
    let codes = report.findings.into_iter().map(|finding| finding.code);
    codes.filter(|code| code.starts_with("host_pool") || code.starts_with("host_instances")).collect()
}

#[tokio::test]
async fn a_look_at_all_says_of_how_many_hosts_nothing_is_known() {
    let cloud = TestCloud::start().await;
    for name in ["host-1", "host-2"] {
        beat(&cloud, &cloud.join_host(name).await, 30).await;
    }
    let silent = async || {
        let mut conn = cloud.app.pool.acquire().await.unwrap();
        verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap().silent_hosts
    };
    assert_eq!(silent().await, 0);
    cloud.pass(300);
    assert_eq!(silent().await, 2);
    cloud.post(&format!("{HOST}/declare_dead"), json!({"no_guest_runs": true})).await.expect(200);
    assert_eq!(silent().await, 1);
}

#[tokio::test]
async fn a_host_says_what_its_pool_takes() {
    let cloud = TestCloud::start().await;
    let host = cloud.join_host("host-1").await;
    let before = cloud.get(HOST).await.expect(200);
    assert_eq!(before["disk_gib"], json!({"total": 95, "reserved": 0}));
    assert_eq!(before["pool"], Value::Null);
    beat(&cloud, &host, 30).await;
    let seen = cloud.get(HOST).await.expect(200);
    assert_eq!(seen["disk_gib"], json!({"total": 95, "reserved": 0, "used": 70}));
    let pool =
        json!({"total_bytes": 100 * GIB, "free_bytes": 30 * GIB, "image_cache_bytes": GIB, "low": false});
    assert_eq!(seen["pool"], pool);
    // An agent of an earlier release does not say it; what was heard stays.
    let body = json!({"epoch": host.epoch, "hypervisor": {"status": "ok"}, "observed_digest": "0".repeat(64),
        "quarantined": 0});
    host.call(Method::POST, "/agent/v1/heartbeat", Some(body)).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    assert_eq!(cloud.get(HOST).await.expect(200)["pool"], pool);
}

#[tokio::test]
async fn disk_is_promised_as_often_as_the_operator_says() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    beat(&cloud, &host, 90).await;
    let large = create(&cloud, "large", 90).await;
    assert_eq!(
        create(&cloud, "more", 40).await["placement"]["rejections"],
        json!([{"reason": "disk", "hosts": 1}])
    );
    for (wrong, pointer) in [
        (json!({"disk_overcommit": 0.01}), "/disk_overcommit"),
        (json!({"disk_overcommit": 11}), "/disk_overcommit"),
        (json!({"pool_low_percent": 51}), "/pool_low_percent"),
    ] {
        let refused =
            cloud.call(Method::PATCH, HOST, Some(wrong)).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer);
    }
    let changed = cloud.call(Method::PATCH, HOST, Some(json!({"disk_overcommit": 1.5}))).await.expect(200);
    assert_eq!((&changed["disk_gib"]["total"], &changed["disk_overcommit"]), (&json!(142), &json!(1.5)));
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(cloud.get(&format!("{INSTANCES}/more")).await.expect(200)["state"], "provisioning");

    // Taken back, nothing that is promised is taken away; and what becomes free is not given again.
    let changed = cloud.call(Method::PATCH, HOST, Some(json!({"disk_overcommit": 1.0}))).await.expect(200);
    assert_eq!(changed["disk_gib"]["total"], changed["disk_gib"]["reserved"]);
    cloud.delete(&format!("{INSTANCES}/large")).await.expect(202);
    host.report(&large["id"], 2, 1, json!({"state": "absent"})).await;
    beat(&cloud, &host, 90).await;
    assert_eq!(
        cloud.get(HOST).await.expect(200)["disk_gib"],
        json!({"total": 95, "reserved": 40, "used": 10})
    );
}

#[tokio::test]
async fn a_pool_that_is_almost_full_takes_no_new_volumes() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = create(&cloud, "web", 1).await;
    host.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    cloud.post(VOLUMES, json!({"name": "data", "size_gib": 1})).await.expect(201);
    let low = async || cloud.get(HOST).await.expect(200)["pool"]["low"].clone();
    let events = async || {
        let mut conn = cloud.app.pool.acquire().await.unwrap();
        sqlx::query_scalar::<_, i64>(
            "SELECT (SELECT count(*) FROM events WHERE kind = 'host' AND change = 'state')
                  + (SELECT count(*) FROM pending_events WHERE kind = 'host' AND change = 'state')",
        )
        .fetch_one(&mut *conn)
        .await
        .unwrap()
    };
    let before = events().await;
    beat(&cloud, &host, 9).await;
    assert_eq!((low().await, events().await), (json!(true), before + 1));
    assert_eq!(findings(&cloud).await, ["host_pool_low"]);
    let next = create(&cloud, "next", 1).await;
    assert_eq!(next["placement"]["rejections"], json!([{"reason": "pool_low", "hosts": 1}]));
    // What would be made of what is there needs room as well.
    let memory = json!({"name": "deep", "instance": "web", "memory": true});
    let refused = cloud.post("/v1/projects/demo/snapshots", memory).await;
    let refused = refused.expect_problem(409, "insufficient_capacity");
    assert!(refused["detail"].as_str().unwrap().contains("leave `memory` out"), "{refused}");
    let flat = json!({"name": "flat", "instance": "web"});
    cloud.post("/v1/projects/demo/snapshots", flat).await.expect(202);
    host.report(&web["id"], 2, 1, json!({"state": "running"})).await;
    let copy = json!({"name": "copy", "source": {"snapshot": "flat"}});
    let refused = cloud.post(VOLUMES, copy).await.expect_problem(409, "insufficient_capacity");
    assert!(refused["detail"].as_str().unwrap().contains("almost full"), "{refused}");
    let attach = json!({"volume": "data"});
    let refused = cloud.post(&format!("{INSTANCES}/web/attach_volume"), attach.clone()).await;
    let refused = refused.expect_problem(409, "insufficient_capacity");
    assert!(refused["detail"].as_str().unwrap().contains("almost full"), "{refused}");

    // A little more is not enough.
    beat(&cloud, &host, 11).await;
    assert_eq!((low().await, events().await), (json!(true), before + 1));
    beat(&cloud, &host, 12).await;
    assert_eq!((low().await, events().await), (json!(false), before + 2));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    cloud.post(&format!("{INSTANCES}/web/attach_volume"), attach).await.expect(202);
    // The operator's limit, and none.
    let changed = cloud.call(Method::PATCH, HOST, Some(json!({"pool_low_percent": 20}))).await.expect(200);
    assert_eq!(changed["pool"]["low"], true);
    let changed = cloud.call(Method::PATCH, HOST, Some(json!({"pool_low_percent": 0}))).await.expect(200);
    assert_eq!(changed["pool"]["low"], false);
    beat(&cloud, &host, 0).await;
    assert_eq!(low().await, false);
}

#[tokio::test]
async fn an_instance_that_stands_still_says_why() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = create(&cloud, "web", 1).await;
    beat(&cloud, &host, 50).await;
    host.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    let report = async |paused: Value| {
        let report = json!({"id": web["id"], "generation": 1, "boot": 1, "state": {"state": "running"},
            "detail": "no room", "paused": paused});
        let batch = json!({"epoch": host.epoch, "reports": [report]});
        host.call(Method::POST, "/agent/v1/observed", Some(batch)).await.expect(200);
    };
    let states = async || {
        let mut conn = cloud.app.pool.acquire().await.unwrap();
        sqlx::query_scalar::<_, i64>(
            "SELECT (SELECT count(*) FROM events WHERE kind = 'instance' AND change = 'state')
                  + (SELECT count(*) FROM pending_events WHERE kind = 'instance' AND change = 'state')",
        )
        .fetch_one(&mut *conn)
        .await
        .unwrap()
    };
    for (paused, found) in [("pool_full", 1), ("io_error", 1), ("suspended", 0)] {
        let before = states().await;
        for _ in 0..2 {
            report(json!(paused)).await;
        }
        assert_eq!(states().await, before + 1, "{paused} begins");
        let seen = cloud.get(&format!("{INSTANCES}/web")).await.expect(200);
        assert_eq!((&seen["state"], &seen["state_reason"]), (&json!("paused"), &json!(paused)));
        assert_eq!(findings(&cloud).await.len(), found, "{paused}");
        // Its host says the same of it, so nothing is asked for again.
        let digest = format!("{} 1 1 running -\n- paused {paused}\n", web["id"].as_str().unwrap());
        let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(digest));
        let body = json!({"epoch": host.epoch, "hypervisor": {"status": "ok"}, "observed_digest": digest,
            "quarantined": 0});
        let reply = host.call(Method::POST, "/agent/v1/heartbeat", Some(body)).await.expect(200);
        assert_eq!(reply["report_all"], false);
    }
    let before = states().await;
    report(Value::Null).await;
    assert_eq!(states().await, before + 1, "it ends");
    let seen = cloud.get(&format!("{INSTANCES}/web")).await.expect(200);
    assert_eq!((&seen["state"], &seen["state_reason"]), (&json!("running"), &json!("as_requested")));
}

#[tokio::test]
async fn each_turn_in_the_life_of_a_host_is_one_event() {
    let cloud = TestCloud::start().await;
    let (host, other) = (cloud.join_host("host-1").await, cloud.join_host("host-2").await);
    let news = async || {
        let mut conn = cloud.app.pool.acquire().await.unwrap();
        let sql = "SELECT resource_name || ' ' || change FROM pending_events WHERE kind = 'host' AND change <> 'created'";
        let found = sqlx::query_scalar::<_, String>(sql).fetch_all(&mut *conn).await.unwrap();
        sqlx::query("DELETE FROM pending_events").execute(&mut *conn).await.unwrap();
        found
    };
    let hear = async |host: &TestHost<'_>| {
        host.beat(json!([])).await.expect(200);
        cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    };
    // Each second, of two replicas side by side.
    let watch = async |seconds: i64, heard: &TestHost<'_>| {
        for _ in 0..seconds / 5 {
            cloud.pass(5);
            hear(heard).await;
            let (one, two) = tokio::join!(watch_for_silence(&cloud.app), watch_for_silence(&cloud.app));
            one.and(two).unwrap();
        }
    };
    watch(10, &host).await;
    hear(&other).await;
    news().await;
    watch(20, &host).await;
    assert_eq!(news().await, [""; 0], "it may have been late");
    watch(60, &host).await;
    assert_eq!(news().await, ["host-2 state"], "it is unreachable");
    let path = "/v1/hosts/host-2/declare_dead";
    cloud.post(path, json!({"no_guest_runs": true})).await.expect(200);
    assert_eq!(news().await, ["host-2 state"], "it is dead");
    let session =
        json!({"protocol_version": 1, "agent_version": "older", "inventory": crate::testing::inventory()});
    other.call(Method::POST, "/agent/v1/sessions", Some(session)).await;
    assert_eq!(news().await, ["host-2 state"], "it is back");
    watch(40, &host).await;
    assert_eq!(news().await, ["host-2 state"], "it is unreachable again");
    hear(&host).await;
    sqlx::query("UPDATE hosts SET last_seen_at = $1 WHERE name = 'host-2'")
        .bind(cloud.app.clock.now())
        .execute(&cloud.app.pool)
        .await
        .unwrap();
    assert_eq!(news().await, ["host-2 state"], "it is heard again");

    // While nobody listened, nobody was silent.
    cloud.pass(300);
    watch_for_silence(&cloud.app).await.unwrap();
    assert_eq!(news().await, [""; 0]);

    for (path, body, change) in [("drain", json!({}), "updated"), ("end_maintenance", json!({}), "updated")] {
        cloud.post(&format!("{HOST}/{path}"), body).await.expect(if path == "drain" { 202 } else { 200 });
        assert_eq!(news().await, [format!("host-1 {change}")], "{path}");
    }
}

/// Placement holds several hosts, in an order of its own.
#[tokio::test]
async fn a_host_that_is_held_is_heard_later_and_the_others_at_once() {
    let cloud = TestCloud::start().await;
    let (held, free) = (cloud.join_host("host-1").await, cloud.join_host("host-2").await);
    let heard = async |host: &TestHost<'_>| {
        let sql = "SELECT last_seen_at FROM hosts WHERE id = $1";
        let heard = sqlx::query_scalar::<_, time::OffsetDateTime>(sql).bind(host.id.as_uuid());
        heard.fetch_one(&cloud.app.pool).await.unwrap()
    };
    cloud.pass(5);
    let now = cloud.app.clock.now();
    let mut placing = cloud.app.begin().await.unwrap();
    let hold = "SELECT FROM hosts WHERE id = $1 FOR NO KEY UPDATE";
    sqlx::query(hold).bind(held.id.as_uuid()).execute(&mut *placing).await.unwrap();
    for host in [&held, &free] {
        host.beat(json!([])).await.expect(200);
    }
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    assert!(heard(&held).await < now);
    assert_eq!(heard(&free).await, now);
    placing.commit().await.unwrap();
    cloud.pass(1);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    assert_eq!(heard(&held).await, now, "the word that could not be written then");
}

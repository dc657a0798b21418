//! Hosts that are removed, and what keeps them.

use axum::http::Method;
use serde_json::json;

use super::{HOST, INSTANCES, cordon, drain, findings, made, maintenance, obey, stop, two, work};
use crate::testing::TestCloud;

async fn refused(cloud: &TestCloud, what: &[&str]) {
    let problem = cloud.delete(HOST).await.expect_problem(409, "in_use");
    for part in what {
        assert!(problem["detail"].as_str().unwrap().contains(part), "{part}: {problem}");
    }
}

#[tokio::test]
async fn it_goes_when_nothing_of_anybody_is_on_it() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let [first, _] = &hosts;
    made(&cloud, first, "web", true).await;
    made(&cloud, first, "own", false).await;
    stop(&cloud, first, "web").await;
    cordon(&cloud, "host-2", false).await;
    refused(&cloud, &["2 instances (demo/own, demo/web)", "1 volume (demo/root-", "Drain it"]).await;
    drain(&cloud, false).await;
    // The host that was left has not said so.
    for _ in 0..2 {
        crate::instances::evacuate(&cloud.app).await.unwrap();
    }
    let own = cloud.get(&format!("{INSTANCES}/own")).await.expect(200);
    let root = own["volumes"][0]["volume"]["id"].clone();
    refused(&cloud, &["1 instance (demo/own)", "1 instances that it has not confirmed to have let go of"])
        .await;
    work(&cloud, &hosts).await;
    let snapshot = json!({"name": "kept", "volume": root});
    cloud.post("/v1/projects/demo/snapshots", snapshot).await.expect(202);
    work(&cloud, &hosts).await;
    let path = format!("/v1/projects/demo/volumes/{}", root.as_str().unwrap());
    cloud.delete(&format!("{INSTANCES}/own")).await.expect(202);
    work(&cloud, &hosts).await;
    assert_eq!(cloud.get(&path).await.status, 404);
    refused(&cloud, &["1 snapshot (demo/kept)"]).await;
    cloud.delete("/v1/projects/demo/snapshots/kept").await.expect(204);
    refused(&cloud, &["orders to remove files"]).await;
    work(&cloud, &hosts).await;

    let dry = cloud.delete(&format!("{HOST}?dry_run=true")).await;
    assert!(dry.status.is_success(), "{dry:?}");
    cloud.get(HOST).await.expect(200);
    cloud.delete(HOST).await.expect(204);
    cloud.get(HOST).await.expect_problem(404, "not_found");
    // Its certificate and its session are worth nothing.
    first.beat(json!([])).await.expect_problem(401, "host_removed");
    let session =
        json!({"protocol_version": 1, "agent_version": "test", "inventory": crate::testing::inventory()});
    let answer = first.call(Method::POST, "/agent/v1/sessions", Some(session)).await;
    answer.expect_problem(401, "host_removed");
    let feed = format!("/agent/v1/desired?epoch={}&after=0", first.epoch);
    first.call(Method::GET, &feed, None).await.expect_problem(401, "host_removed");
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    // What has left it goes on, and the machine may join again under its name.
    cloud.post(&format!("{INSTANCES}/web/start"), json!({})).await.expect(202);
    obey(&hosts[1]).await;
    let again = cloud.join_host("host-1").await;
    assert_ne!(again.id, first.id);
    let records = cloud.get("/v1/audit_records?limit=100").await.expect(200);
    assert!(records["items"].as_array().unwrap().iter().any(|one| one["action"] == "host:DeleteHost"));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

/// One made after the backup that was restored, say.
#[tokio::test]
async fn a_guest_that_nobody_knows_stays_and_keeps_its_host() {
    let cloud = TestCloud::start().await;
    let [first, _second] = &two(&cloud).await;
    let beat = async |quarantined: u32| {
        let body = json!({"epoch": first.epoch, "hypervisor": {"status": "ok"}, "observed_digest": "0".repeat(64),
            "quarantined": quarantined});
        first.call(Method::POST, "/agent/v1/heartbeat", Some(body)).await.expect(200);
        cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    };
    beat(1).await;
    let says =
        "1 guest that the cloud does not know runs there (`cumulo host unknown-guest list host-1` names it)";
    let stays = |host: &serde_json::Value| {
        let stays = &host["maintenance"]["unknown_guests"];
        assert!(stays.as_str().is_some_and(|stays| stays.starts_with(says)), "{host}");
    };
    assert_eq!(maintenance(&cloud).await.get("unknown_guests"), None, "of a host in maintenance");
    let dry = cloud.post(&format!("{HOST}/drain?dry_run=true"), json!({})).await.expect(200);
    stays(&dry["host"]);
    stays(&drain(&cloud, false).await["host"]);
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let report = crate::verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
    assert!(report.findings.iter().any(|one| one.code == "host_guests_unknown" && one.detail.contains(says)));
    refused(&cloud, &[says, "docs/operations.md"]).await;
    beat(2).await;
    refused(&cloud, &["2 guests that the cloud does not know run there"]).await;
    // However many it says there are, nothing is counted out.
    beat(u32::MAX).await;
    refused(&cloud, &["2147483647 guests that the cloud does not know run there"]).await;
    beat(2).await;
    // As long as one is there, in whichever way that is known, it is not drained.
    let state = async || {
        crate::instances::evacuate(&cloud.app).await.unwrap();
        maintenance(&cloud).await["state"].clone()
    };
    assert_eq!(state().await, "draining");
    let tell = async |guests: serde_json::Value| {
        let body = json!({"epoch": first.epoch, "reports": [], "unknown_guests": guests});
        first.call(Method::POST, "/agent/v1/observed", Some(body)).await.expect(200);
    };
    tell(json!([{"id": uuid::Uuid::from_u128(1), "runs": true}])).await;
    // An agent that has just started has not listed its domains yet.
    beat(0).await;
    assert_eq!(state().await, "draining");
    stays(&cloud.get(HOST).await.expect(200));
    tell(json!([])).await;
    assert_eq!(state().await, "drained");
    assert_eq!(maintenance(&cloud).await.get("unknown_guests"), None);
    beat(1).await;
    assert_eq!(state().await, "draining", "it is not any more");
    // Of a dead one the operator has said that none runs.
    cloud.pass(30);
    cloud.post(&format!("{HOST}/declare_dead"), json!({"no_guest_runs": true})).await.expect(200);
    let dry = cloud.delete(&format!("{HOST}?dry_run=true")).await;
    assert!(dry.status.is_success(), "{dry:?}");
    assert_eq!(maintenance(&cloud).await.get("unknown_guests"), None);
}

#[tokio::test]
async fn a_dead_one_goes_when_its_owners_have_deleted_what_was_on_it() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    made(&cloud, &hosts[0], "own", false).await;
    made(&cloud, &hosts[0], "web", true).await;
    let volume = json!({"name": "data", "size_gib": 1});
    cloud.post("/v1/projects/demo/volumes", volume).await.expect(201);
    cloud.post(&format!("{INSTANCES}/own/attach_volume"), json!({"volume": "data"})).await.expect(202);
    obey(&hosts[0]).await;
    let own = cloud.get(&format!("{INSTANCES}/own")).await.expect(200);
    let snapshot = json!({"name": "kept", "volume": own["volumes"][0]["volume"]["id"]});
    cloud.post("/v1/projects/demo/snapshots", snapshot).await.expect(202);
    obey(&hosts[0]).await;
    cordon(&cloud, "host-2", false).await;
    cloud.pass(30);
    hosts[1].beat(json!([super::fast()])).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    cloud.post(&format!("{HOST}/declare_dead"), json!({"no_guest_runs": true})).await.expect(200);
    refused(&cloud, &["2 instances (demo/own, demo/web)", "2 volumes", "Nothing is forgotten"]).await;
    drain(&cloud, false).await;
    for _ in 0..2 {
        crate::instances::evacuate(&cloud.app).await.unwrap();
        obey(&hosts[1]).await;
    }
    refused(&cloud, &["1 instance (demo/own)", "2 volumes", "1 snapshot (demo/kept)"]).await;
    // Nobody confirms what its owners delete: that it is removed says it.
    let along = json!({"delete_with_instance": true});
    cloud.call(Method::PATCH, "/v1/projects/demo/volumes/data", Some(along)).await.expect(200);
    cloud.delete(&format!("{INSTANCES}/own")).await.expect(202);
    refused(&cloud, &["1 snapshot (demo/kept)"]).await;
    assert_eq!(cloud.get(&format!("{INSTANCES}/own")).await.status, 200, "a refusal leaves nothing");
    cloud.delete("/v1/projects/demo/snapshots/kept").await.expect(204);
    cloud.delete(HOST).await.expect(204);
    for gone in ["instances/own", "volumes/data", "snapshots/kept"] {
        cloud.get(&format!("/v1/projects/demo/{gone}")).await.expect_problem(404, "not_found");
    }
    assert_eq!(super::home(&cloud, "web").await, "host-2");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_that_names_hosts_is_forgotten() {
    let cloud = TestCloud::start().await;
    let named: Vec<(String, String)> = sqlx::query_as(
        "SELECT conrelid::regclass::text || '.' || a.attname, c.confdeltype::text
         FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
         WHERE c.contype = 'f' AND c.confrelid = 'hosts'::regclass ORDER BY 1",
    )
    .fetch_all(&cloud.app.pool)
    .await
    .unwrap();
    // a: in the way, or removed by hand (`removal.rs`); c: goes with the host.
    let expected = [
        ("departures.host_id", "a"),
        ("host_drains.host_id", "c"),
        ("host_fences.host_id", "c"),
        ("host_join_tokens.host_id", "c"),
        ("host_leases.host_id", "c"),
        ("host_looks.host_id", "c"),
        ("host_pools.host_id", "c"),
        ("image_imports.host_id", "a"),
        ("instances.host_id", "a"),
        ("layer_removals.host_id", "a"),
        ("layers.host_id", "a"),
        ("migrations.destination_host_id", "a"),
        ("migrations.source_host_id", "a"),
        ("transfers.host_id", "a"),
        ("unknown_guests.host_id", "c"),
        ("volumes.host_id", "a"),
    ];
    let named: Vec<_> = named.iter().map(|(column, kind)| (column.as_str(), kind.as_str())).collect();
    assert_eq!(named, expected, "what shall become of it when its host is removed?");
}

//! Metrics, with a host that the test plays.

use axum::http::Method;
use serde_json::json;

use crate::instances::place_pending;
use crate::testing::TestCloud;

async fn metrics(cloud: &TestCloud) -> Vec<String> {
    let answer = cloud.call(Method::GET, "/metrics", None).await;
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn hosts_pools_and_instances_are_counted() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/pools", json!({"name": "fast"})).await.expect(201);
    let host = cloud.join_host("host-1").await;
    let pool = json!({"total_bytes": 100_i64 << 30, "free_bytes": 9_i64 << 30, "image_cache_bytes": 7});
    let shared = json!([{"name": "fast", "state": {"state": "ready", "identity": uuid::Uuid::from_u128(1),
        "total_bytes": 20_i64 << 30, "free_bytes": 3_i64 << 30}}]);
    let body = json!({"epoch": host.epoch, "hypervisor": {"status": "ok"}, "observed_digest": "0".repeat(64),
        "quarantined": 0, "shared_pools": shared});
    host.call(Method::POST, "/agent/v1/heartbeat", Some(body.clone())).await.expect(200);
    for (name, pool) in [("web", json!(null)), ("db", json!({"pool": "fast"}))] {
        let mut body = json!({"name": name, "image": "image", "instance_type": "tiny", "networks": []});
        if !pool.is_null() {
            body["root_volume"] = pool;
        }
        let made = cloud.post("/v1/projects/demo/instances", body).await.expect(202);
        place_pending(&cloud.app).await.unwrap();
        if name == "web" {
            host.report(&made["id"], 1, 1, json!({"state": "running"})).await;
        }
    }
    let mut low = body;
    low["pool"] = pool;
    host.call(Method::POST, "/agent/v1/heartbeat", Some(low)).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    let differs = json!([{"code": "pool_unusable", "about": {"kind": "host"}, "detail": "mount it"}]);
    let differs = json!({"epoch": host.epoch, "total": 3, "differences": differs});
    host.call(Method::POST, "/agent/v1/drift", Some(differs)).await.expect(200);
    cloud.pass(6);
    let lines = metrics(&cloud).await;
    for expected in [
        "# TYPE cumulo_host_ready gauge",
        "cumulo_fleet_up 1",
        "cumulo_host_ready{host=\"host-1\"} 1",
        "cumulo_host_cordoned{host=\"host-1\"} 0",
        "cumulo_host_instances{host=\"host-1\"} 2",
        "cumulo_host_vcpus_reserved{host=\"host-1\"} 2",
        "cumulo_host_memory_reserved_bytes{host=\"host-1\"} 536870912",
        "cumulo_host_disk_capacity_bytes{host=\"host-1\"} 102005473280",
        "cumulo_host_disk_reserved_bytes{host=\"host-1\"} 1073741824",
        "cumulo_host_pool_free_bytes{host=\"host-1\"} 9663676416",
        "cumulo_host_pool_image_cache_bytes{host=\"host-1\"} 7",
        "cumulo_host_pool_low{host=\"host-1\"} 1",
        "cumulo_host_drift{host=\"host-1\"} 3",
        "cumulo_host_drift_look_age_seconds{host=\"host-1\"} 6",
        "cumulo_drift{code=\"pool_unusable\"} 1",
        "cumulo_drift{code=\"unknown_guest\"} 0",
        "cumulo_pool_capacity_bytes{pool=\"fast\"} 21474836480",
        "cumulo_pool_reserved_bytes{pool=\"fast\"} 1073741824",
        "cumulo_pool_free_bytes{pool=\"fast\"} 3221225472",
        "cumulo_pool_low{pool=\"fast\"} 0",
        "cumulo_pool_hosts{pool=\"fast\"} 1",
        "cumulo_instances{state=\"running\"} 1",
        "cumulo_instances{state=\"awaiting_host\"} 1",
        "cumulo_image_store_bytes 4096",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} is not in\n{}", lines.join("\n"));
    }
    // Told again without a look, for a while.
    cloud.call(Method::PATCH, "/v1/hosts/host-1", Some(json!({"cordoned": true}))).await.expect(200);
    assert!(metrics(&cloud).await.contains(&"cumulo_host_cordoned{host=\"host-1\"} 0".to_owned()));
    cloud.pass(30);
    let lines = metrics(&cloud).await;
    assert!(lines.contains(&"cumulo_host_cordoned{host=\"host-1\"} 1".to_owned()));
    assert!(
        lines.contains(&"cumulo_host_ready{host=\"host-1\"} 0".to_owned()),
        "nothing is heard of it any more"
    );
}

//! What a drain waits for: what passes by itself.

use serde_json::json;

use super::super::{HOST, INSTANCES, drain, fast, obey, outline};
use super::{TestCloud, TestHost, evacuate, two, web};

fn way(phase: &str, way: &str, code: &str) -> [String; 3] {
    [phase, way, code].map(str::to_owned)
}

async fn heard(cloud: &TestCloud, hosts: &[&TestHost<'_>]) {
    for host in hosts {
        host.beat(json!([fast()])).await.expect(200);
    }
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
}

#[tokio::test]
async fn what_passes_by_itself_stops_nobody() {
    for (path, body) in [
        ("/v1/projects/demo/snapshots".to_owned(), json!({"name": "one", "instance": "web"})),
        (format!("{INSTANCES}/web/reboot"), json!({})),
        (format!("{INSTANCES}/web/attach_volume"), json!({"volume": "data"})),
    ] {
        let cloud = TestCloud::start().await;
        let (hosts, _) = two(&cloud).await;
        let data = json!({"name": "data", "size_gib": 1, "pool": "fast"});
        cloud.post("/v1/projects/demo/volumes", data).await.expect(201);
        cloud.post(&path, body).await.expect(202);
        let planned = cloud.post(&format!("{HOST}/drain?dry_run=true"), json!({"stop_running": true})).await;
        let planned = planned.expect(200);
        assert_eq!(outline(&planned["evacuations"]), [["web", "waiting", "-", "busy"].map(str::to_owned)]);
        drain(&cloud, true).await;
        for _ in 0..3 {
            evacuate(&cloud.app).await.unwrap();
            assert_eq!(web(&cloud).await, way("waiting", "-", "busy"), "{path}");
        }
        obey(&hosts[0]).await;
        evacuate(&cloud.app).await.unwrap();
        assert_eq!(web(&cloud).await, way("moving", "migrate", "-"), "{path}");
    }
}

#[tokio::test]
async fn a_snapshot_is_waited_for_however_long_it_takes() {
    let cloud = TestCloud::start().await;
    let (hosts, _) = two(&cloud).await;
    cloud.post("/v1/projects/demo/snapshots", json!({"name": "one", "instance": "web"})).await.expect(202);
    drain(&cloud, true).await;
    for _ in 0..3 {
        evacuate(&cloud.app).await.unwrap();
        assert_eq!(web(&cloud).await, way("waiting", "-", "busy"));
        cloud.pass(250);
        heard(&cloud, &[&hosts[0], &hosts[1]]).await;
    }
}

#[tokio::test]
async fn the_host_that_would_take_it_is_waited_for_and_not_for_ever() {
    for comes_back in [true, false] {
        let cloud = TestCloud::start().await;
        let (hosts, _) = two(&cloud).await;
        // That one takes no guest that runs.
        let third = cloud.join_host("host-3").await;
        cloud.pass(30);
        heard(&cloud, &[&hosts[0], &third]).await;
        drain(&cloud, true).await;
        for _ in 0..3 {
            evacuate(&cloud.app).await.unwrap();
            assert_eq!(web(&cloud).await, way("waiting", "-", "busy"));
            cloud.pass(99);
            heard(&cloud, &[&hosts[0], &third]).await;
        }
        if comes_back {
            heard(&cloud, &[&hosts[1]]).await;
            evacuate(&cloud.app).await.unwrap();
            assert_eq!(web(&cloud).await, way("moving", "migrate", "-"));
            continue;
        }
        cloud.pass(10);
        heard(&cloud, &[&hosts[0], &third]).await;
        evacuate(&cloud.app).await.unwrap();
        assert_eq!(web(&cloud).await, way("stopping", "restart_elsewhere", "-"));
    }
}

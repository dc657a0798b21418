//! What a drain waits for: what passes by itself, and guests that come.

use serde_json::{Value, json};

use super::super::{HOST, INSTANCES, drain, fast, obey, outline};
use super::{TestCloud, TestHost, evacuate, runs, say, send, spec, two, web};

const OTHER: &str = "/v1/hosts/host-2";

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

/// Of the second host, which is drained, too: its state, and what remains.
async fn other(cloud: &TestCloud) -> (Value, Vec<[String; 4]>) {
    let told = cloud.get(OTHER).await.expect(200)["maintenance"].clone();
    (told["state"].clone(), outline(&told["remaining"]))
}

#[tokio::test]
async fn a_host_to_which_a_guest_is_on_its_way_is_not_drained() {
    for arrives in [false, true] {
        let cloud = TestCloud::start().await;
        let (hosts, id) = two(&cloud).await;
        let body = json!({"host": "host-2"});
        cloud.post(&format!("{INSTANCES}/web/migrate"), body).await.expect(202);
        let begun = cloud.post(&format!("{OTHER}/drain"), json!({})).await.expect(202);
        let arriving = [["web", "waiting", "-", "arriving"].map(str::to_owned)];
        assert_eq!(outline(&begun["evacuations"]), arriving);
        let migration = send(&hosts, &id).await;
        for _ in 0..2 {
            evacuate(&cloud.app).await.unwrap();
            assert_eq!(other(&cloud).await, (json!("draining"), arriving.to_vec()));
        }
        if !arrives {
            let ended = json!({"kind": "ended", "detail": "The other side hung up."});
            say(&hosts[0], &migration, &id, ended).await;
            evacuate(&cloud.app).await.unwrap();
            assert_eq!(other(&cloud).await, (json!("drained"), vec![]));
            let told = cloud.get(&format!("{OTHER}/evacuations")).await.expect(200);
            assert_eq!(told["items"], json!([]), "it never was here");
            continue;
        }
        say(&hosts[0], &migration, &id, json!({"kind": "handed_over"})).await;
        evacuate(&cloud.app).await.unwrap();
        assert_eq!(other(&cloud).await.0, "draining");
        obey(&hosts[0]).await;
        runs(&hosts[1], &id).await;
        evacuate(&cloud.app).await.unwrap();
        assert_eq!(other(&cloud).await.1, [["web", "moving", "migrate", "-"].map(str::to_owned)]);
        assert_eq!(spec(&hosts[0], &id).await["migration"]["part"], "incoming");
    }
}

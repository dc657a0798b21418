//! Guests that leave while they run.

mod waiting;

use protocol::agent::{Inventory, LIVE_MIGRATION};
use serde_json::{Value, json};

use super::{INSTANCES, cordon, drain, evacuations, findings, home, made, outline, state, work};
use crate::instances::evacuate;
use crate::testing::{TestCloud, TestHost, inventory};

/// Two hosts between which guests go; `web` runs on the first one.
async fn two(cloud: &TestCloud) -> ([TestHost<'_>; 2], Value) {
    let mut hosts = super::two(cloud).await;
    for (host, number) in hosts.iter_mut().zip(1..) {
        let able = Inventory {
            features: vec![LIVE_MIGRATION.to_owned()],
            underlay_address: Some([192, 0, 2, number].into()),
            ..inventory()
        };
        host.open_session_with(able).await;
        host.beat(json!([super::fast()])).await.expect(200);
    }
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    let web = made(cloud, &hosts[0], "web", true).await["id"].clone();
    cordon(cloud, "host-2", false).await;
    (hosts, web)
}

async fn spec(host: &TestHost<'_>, id: &Value) -> Value {
    let page = host.desired(0).await;
    let mut objects = page["objects"].as_array().unwrap().iter();
    objects.find(|one| one["kind"] == "instance" && one["id"] == *id).cloned().unwrap_or_default()
}

/// The second host waits for the guest, and the first one sends it.
async fn send([first, second]: &[TestHost<'_>; 2], id: &Value) -> Value {
    let migration = spec(second, id).await["migration"]["id"].clone();
    let ready = json!({"kind": "ready", "address": "192.0.2.2:40000"});
    say(second, &migration, id, ready).await;
    assert_eq!(spec(first, id).await["migration"]["part"], "outgoing");
    migration
}

async fn say(host: &TestHost<'_>, migration: &Value, id: &Value, state: Value) {
    let report = json!([{"id": migration, "instance_id": id, "state": state}]);
    host.report_migrations(report).await.expect(200);
}

/// Of `web`: phase, way and code.
async fn web(cloud: &TestCloud) -> [String; 3] {
    let [[_, phase, way, code]] = <[_; 1]>::try_from(evacuations(cloud).await).unwrap();
    [phase, way, code]
}

#[tokio::test]
async fn what_can_go_while_it_runs_is_not_stopped() {
    let cloud = TestCloud::start().await;
    let (hosts, id) = two(&cloud).await;
    let planned = cloud.post(&format!("{}/drain?dry_run=true", super::HOST), json!({})).await.expect(200);
    assert_eq!(outline(&planned["evacuations"]), [["web", "waiting", "migrate", "-"].map(str::to_owned)]);
    drain(&cloud, true).await;
    for _ in 0..3 {
        evacuate(&cloud.app).await.unwrap();
        assert_eq!(web(&cloud).await, ["moving", "migrate", "-"]);
    }
    let migration = send(&hosts, &id).await;
    say(&hosts[0], &migration, &id, json!({"kind": "handed_over"})).await;
    let arrived = spec(&hosts[1], &id).await;
    assert_eq!(arrived["boot"], 1, "the guest was not started anew");
    hosts[1].report(&id, arrived["generation"].as_i64().unwrap(), 1, json!({"state": "running"})).await;
    work(&cloud, &hosts).await;
    assert_eq!(web(&cloud).await, ["left", "migrate", "-"]);
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-2"), json!("running")));
    assert_eq!(super::maintenance(&cloud).await["state"], "drained");
    let operations = cloud.get("/v1/projects/demo/operations").await.expect(200);
    let kinds: Vec<_> = operations["items"].as_array().unwrap().iter().map(|one| &one["kind"]).collect();
    assert!(kinds.contains(&&json!("migrate_for_maintenance")), "{kinds:?}");
    assert!(!kinds.contains(&&json!("stop_for_maintenance")), "{kinds:?}");
    assert_eq!(findings(&cloud).await, [""; 0]);
}

/// The newest operation that a drain has begun to send `web` with.
async fn operation(cloud: &TestCloud) -> Value {
    let operations = cloud.get("/v1/projects/demo/operations").await.expect(200);
    let mut items = operations["items"].as_array().unwrap().iter();
    items.find(|one| one["kind"] == "migrate_for_maintenance").cloned().unwrap()
}

/// Its host says that the guest runs, as it is wanted now.
async fn runs(host: &TestHost<'_>, id: &Value) {
    let here = spec(host, id).await["generation"].as_i64().unwrap();
    host.report(id, here, 1, json!({"state": "running"})).await;
}

#[tokio::test]
async fn its_operation_ends_with_the_migration_and_not_before() {
    for ends_with in ["ended", "handed_over", "cancelled"] {
        let cloud = TestCloud::start().await;
        let (hosts, id) = two(&cloud).await;
        drain(&cloud, false).await;
        evacuate(&cloud.app).await.unwrap();
        runs(&hosts[0], &id).await;
        assert_eq!(operation(&cloud).await["status"], "running", "it has not begun");
        let migration = send(&hosts, &id).await;
        runs(&hosts[0], &id).await;
        let progress = json!({"kind": "transferring", "done_bytes": 250, "total_bytes": 1000});
        say(&hosts[0], &migration, &id, progress).await;
        let told = operation(&cloud).await;
        assert_eq!((&told["status"], &told["progress_percent"]), (&json!("running"), &json!(25)));
        if ends_with == "handed_over" {
            say(&hosts[0], &migration, &id, json!({"kind": "handed_over"})).await;
            evacuate(&cloud.app).await.unwrap();
            assert_eq!(super::maintenance(&cloud).await["state"], "draining", "the guest stands still");
            runs(&hosts[1], &id).await;
            evacuate(&cloud.app).await.unwrap();
            assert_eq!(super::maintenance(&cloud).await["state"], "drained");
            assert_eq!(operation(&cloud).await["status"], "succeeded");
            continue;
        }
        if ends_with == "cancelled" {
            let id = told["id"].as_str().unwrap();
            cloud.post(&format!("/v1/projects/demo/operations/{id}/cancel"), json!({})).await.expect(200);
        }
        say(&hosts[0], &migration, &id, json!({"kind": "ended", "detail": "The other side hung up."})).await;
        let told = operation(&cloud).await;
        let (status, code) =
            if ends_with == "ended" { ("failed", "migration_failed") } else { ("cancelled", "cancelled") };
        assert_eq!((&told["status"], &told["error"]["code"]), (&json!(status), &json!(code)));
    }
}

#[tokio::test]
async fn what_did_not_get_there_is_shut_down_if_it_may_be_and_sent_again_later_if_not() {
    for stop_running in [false, true] {
        let cloud = TestCloud::start().await;
        let (hosts, id) = two(&cloud).await;
        drain(&cloud, stop_running).await;
        evacuate(&cloud.app).await.unwrap();
        let migration = send(&hosts, &id).await;
        say(&hosts[0], &migration, &id, json!({"kind": "ended", "detail": "The other host did not answer."}))
            .await;
        let here = spec(&hosts[0], &id).await["generation"].as_i64().unwrap();
        hosts[0].report(&id, here, 1, json!({"state": "running"})).await;
        hosts[1].report_with(&id, here, 1, json!({"state": "absent"}), json!([])).await;
        evacuate(&cloud.app).await.unwrap();
        if stop_running {
            assert_eq!(web(&cloud).await, ["stopping", "restart_elsewhere", "-"]);
            work(&cloud, &hosts).await;
            assert_eq!(web(&cloud).await, ["left", "restart_elsewhere", "-"]);
            assert_eq!(
                (home(&cloud, "web").await, state(&cloud, "web").await),
                (json!("host-2"), json!("running"))
            );
        } else {
            for _ in 0..2 {
                assert_eq!(web(&cloud).await, ["stays", "-", "running"]);
                evacuate(&cloud.app).await.unwrap();
            }
            let told = cloud.get(&format!("{}/evacuations", super::HOST)).await.expect(200);
            assert!(told["items"][0]["message"].as_str().unwrap().contains("did not get there"), "{told}");
            cloud.pass(601);
            for host in &hosts {
                host.beat(json!([super::fast()])).await.expect(200);
            }
            cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
            evacuate(&cloud.app).await.unwrap();
            assert_eq!(web(&cloud).await, ["moving", "migrate", "-"]);
            cloud.delete(&format!("{INSTANCES}/web")).await.expect(202);
        }
        assert_eq!(findings(&cloud).await, [""; 0], "{stop_running}");
    }
}

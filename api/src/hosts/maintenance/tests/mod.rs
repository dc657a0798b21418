//! Hosts that are emptied, kept empty and given back, with hosts that do what they are told when a test says so.

mod emptying;
mod guide;
mod live;
mod races;
mod removal;

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::instances::{evacuate, place_pending};
use crate::testing::{TestCloud, TestHost};
use crate::verify;

const HOST: &str = "/v1/hosts/host-1";
const INSTANCES: &str = "/v1/projects/demo/instances";

fn fast() -> Value {
    let bytes = 100_u64 << 30;
    json!({"name": "fast", "state": {"state": "ready", "identity": Uuid::from_u128(1), "total_bytes": bytes,
        "free_bytes": bytes}})
}

/// Two hosts with the pool `fast`. New instances go to the first one, until the second takes some.
async fn two(cloud: &TestCloud) -> [TestHost<'_>; 2] {
    cloud.furnish().await;
    cloud.post("/v1/pools", json!({"name": "fast"})).await.expect(201);
    let hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    for host in &hosts {
        host.beat(json!([fast()])).await.expect(200);
    }
    cordon(cloud, "host-2", true).await;
    hosts
}

async fn cordon(cloud: &TestCloud, host: &str, cordoned: bool) {
    let patch = json!({"cordoned": cordoned});
    cloud.call(Method::PATCH, &format!("/v1/hosts/{host}"), Some(patch)).await.expect(200);
}

/// An instance on the first host, with its disk in the pool or on that host.
async fn made(cloud: &TestCloud, host: &TestHost<'_>, name: &str, shared: bool) -> Value {
    let mut body = json!({"name": name, "image": "image", "instance_type": "tiny", "networks": []});
    if shared {
        body["root_volume"] = json!({"pool": "fast"});
    }
    let made = cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    obey(host).await;
    assert_eq!(state(cloud, name).await, "running");
    made
}

async fn stop(cloud: &TestCloud, host: &TestHost<'_>, name: &str) {
    cloud.post(&format!("{INSTANCES}/{name}/stop"), json!({})).await.expect(202);
    obey(host).await;
    assert_eq!(state(cloud, name).await, "stopped");
}

/// The host does everything that it was told.
async fn obey(host: &TestHost<'_>) {
    let page = host.desired(0).await;
    for object in page["objects"].as_array().unwrap() {
        let generation = object["generation"].as_i64().unwrap_or_default();
        match object["kind"].as_str().unwrap() {
            "instance" => {
                let state = match object["power"].as_str().unwrap() {
                    "stopped" => json!({"state": "stopped", "reason": "requested"}),
                    _ => json!({"state": "running"}),
                };
                host.report(&object["id"], generation, object["boot"].as_i64().unwrap(), state).await;
            }
            "delete_instance" => {
                host.report(&object["id"], generation, 0, json!({"state": "absent"})).await;
            }
            "remove_layers" => host.report_removed(json!([object["removal_id"]])).await,
            "take_disks" => {
                let say = async |state: Value| {
                    let report =
                        json!([{"id": object["id"], "instance_id": object["instance_id"], "state": state}]);
                    host.report_migrations(report).await.expect(200);
                };
                // That of another host is of no account.
                for address in ["192.0.2.1:40000", "192.0.2.2:40000"] {
                    say(json!({"kind": "ready", "address": address})).await;
                }
                say(json!({"kind": "received"})).await;
            }
            "give_disks" => {}
            other => panic!("{other}"),
        }
    }
}

/// Everybody does what they can, some times over.
async fn work(cloud: &TestCloud, hosts: &[TestHost<'_>]) {
    for _ in 0..4 {
        evacuate(&cloud.app).await.unwrap();
        place_pending(&cloud.app).await.unwrap();
        for host in hosts {
            obey(host).await;
        }
    }
    evacuate(&cloud.app).await.unwrap();
}

async fn state(cloud: &TestCloud, name: &str) -> Value {
    cloud.get(&format!("{INSTANCES}/{name}")).await.expect(200)["state"].clone()
}

/// The host that an instance is on.
async fn home(cloud: &TestCloud, name: &str) -> Value {
    cloud.get(&format!("{INSTANCES}/{name}")).await.expect(200)["host"]["name"].clone()
}

async fn maintenance(cloud: &TestCloud) -> Value {
    cloud.get(HOST).await.expect(200)["maintenance"].clone()
}

async fn drain(cloud: &TestCloud, stop_running: bool) -> Value {
    let body = json!({"stop_running": stop_running});
    cloud.post(&format!("{HOST}/drain"), body).await.expect(202)
}

/// Name, phase, way and code of each.
fn outline(evacuations: &Value) -> Vec<[String; 4]> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let of = |one: &Value| {
        [text(&one["instance"]["name"]), text(&one["phase"]), text(&one["way"]), text(&one["code"])]
    };
    let mut found: Vec<_> = evacuations.as_array().unwrap().iter().map(of).collect();
    found.sort();
    found
}

async fn evacuations(cloud: &TestCloud) -> Vec<[String; 4]> {
    outline(&cloud.get(&format!("{HOST}/evacuations")).await.expect(200)["items"])
}

async fn execute(cloud: &TestCloud, sql: &str) {
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&cloud.app.pool).await.unwrap();
}

async fn findings(cloud: &TestCloud) -> Vec<String> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let report = verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
    report
        .findings
        .into_iter()
        .filter(|finding| !finding.code.starts_with("host_") && finding.code != "network_changes_untold")
        .map(|finding| format!("{}: {}", finding.code, finding.detail))
        .collect()
}

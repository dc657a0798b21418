//! Snapshots through the router, with a host that the test plays.

mod contents;
mod guide;
mod held;
mod memory;
mod merging;
mod restoring;
mod taking;

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::instances::place_pending;
use crate::testing::{Answer, TestCloud, TestHost};
use crate::verify;

const SNAPSHOTS: &str = "/v1/projects/demo/snapshots";
const VOLUMES: &str = "/v1/projects/demo/volumes";
const INSTANCES: &str = "/v1/projects/demo/instances";
const WEB: &str = "/v1/projects/demo/instances/web";

fn running() -> Value {
    json!({"state": "running"})
}

fn stopped() -> Value {
    json!({"state": "stopped", "reason": "requested"})
}

/// An instance `web` that runs on the host, with the volume `data` of 2 GiB.
async fn web(cloud: &TestCloud, host: &TestHost<'_>) -> Value {
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": [],
        "volumes": [{"size_gib": 2, "name": "data"}]});
    let made = cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&made["id"], 1, 1, running()).await;
    made
}

/// Stops `web` and lets its host say so.
async fn stop(cloud: &TestCloud, host: &TestHost<'_>, web: &Value) {
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    follow(host, web, stopped()).await;
}

/// The host has seen the newest of `web` through.
async fn follow(host: &TestHost<'_>, web: &Value, state: Value) {
    let (generation, _) = host.disks(&web["id"]).await.unwrap();
    host.report(&web["id"], generation, 1, state).await;
}

/// The host says more of `web`, whose volumes are in a state and so many generations behind.
async fn say(host: &TestHost<'_>, web: &Value, state: &str, behind: i64, more: Value) {
    let (generation, disks) = host.disks(&web["id"]).await.unwrap();
    let volume = |disk: &Value| {
        let generation = disk["volume"]["generation"].as_i64().unwrap() - behind;
        json!({"id": disk["volume"]["id"], "generation": generation, "state": state})
    };
    let mut report = json!({"id": web["id"], "generation": generation, "boot": 1,
        "volumes": disks.iter().map(volume).collect::<Vec<_>>()});
    report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = json!({"epoch": host.epoch, "reports": [report]});
    host.call(Method::POST, "/agent/v1/observed", Some(body)).await.expect(200);
}

async fn snapshot(cloud: &TestCloud, name: &str, what: Value) -> Answer {
    let mut body = what;
    body["name"] = json!(name);
    cloud.post(SNAPSHOTS, body).await
}

async fn get(cloud: &TestCloud, name: &str) -> Value {
    cloud.get(&format!("{SNAPSHOTS}/{name}")).await.expect(200)
}

async fn count(cloud: &TestCloud, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&cloud.app.pool).await.unwrap()
}

async fn layers(cloud: &TestCloud) -> i64 {
    count(cloud, "SELECT count(*) FROM layers").await
}

async fn operation(cloud: &TestCloud, of: &Value) -> Value {
    let id = of["operation"]["id"].as_str().unwrap();
    cloud.get(&format!("/v1/projects/demo/operations/{id}")).await.expect(200)
}

async fn findings(cloud: &TestCloud) -> Vec<String> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let report = verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
    let codes = report.findings.into_iter().map(|finding| format!("{} {}", finding.code, finding.detail));
    // Nobody tells the hosts of these tests of their networks.
    let of_networks = |code: &String| code.starts_with("network_") || code.starts_with("host_network_");
    codes.filter(|code| !of_networks(code)).collect()
}

//! Consoles from the ticket to the last record, with both halves played by the test over real sockets.

mod ends;
mod halves;
mod replicas;
mod screenshots;
mod tickets;

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use self::halves::{HostHalf, UserHalf, listen_for_host};
use super::ConsoleOptions;
use crate::instances::place_pending;
use crate::testing::{Answer, TestCloud, TestHost};

const WEB: &str = "/v1/projects/demo/instances/web";
const CONSOLES: &str = "/v1/projects/demo/instances/web/consoles";

/// A cloud in which it is looked often whether callers still may.
async fn start() -> TestCloud {
    let options = ConsoleOptions { check_every: Duration::from_millis(100), ..ConsoleOptions::default() };
    let cloud = TestCloud::start_with_consoles(options).await;
    cloud.furnish().await;
    cloud
}

/// Instance `web`, running on the host.
async fn running(cloud: &TestCloud, host: &TestHost<'_>) -> Value {
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    let created = cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&created["id"], 1, 1, json!({"state": "running"})).await;
    created
}

async fn ask(cloud: &TestCloud, kind: &str) -> Value {
    cloud.post(CONSOLES, json!({"kind": kind})).await.expect(201)
}

async fn ask_as(cloud: &TestCloud, bearer: &str, kind: &str) -> Answer {
    cloud.call_with(Method::POST, CONSOLES, &[("authorization", bearer)], Some(json!({"kind": kind}))).await
}

/// The request of the host's feed for this console.
async fn requested(host: &TestHost<'_>, console: &Value) -> Value {
    let found = async {
        loop {
            let page = host.feed(0).await;
            let requests = page["requests"].as_array().cloned().unwrap_or_default();
            if let Some(request) = requests.into_iter().find(|request| request["id"] == console["id"]) {
                return request;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found).await.expect("the host is asked")
}

/// Both halves of a console.
async fn open(
    cloud: &TestCloud,
    host: &TestHost<'_>,
    at: SocketAddr,
    console: &Value,
) -> (UserHalf, HostHalf) {
    let agents = listen_for_host(cloud, host.id).await;
    let bring = async {
        requested(host, console).await;
        HostHalf::bring(agents, &console["id"], host.epoch).await.unwrap()
    };
    let (user, half) = tokio::join!(UserHalf::open(at, console), bring);
    (user.unwrap(), half)
}

/// The records about consoles, oldest first: action and what it says.
async fn records(cloud: &TestCloud) -> Vec<(String, Value)> {
    let list = cloud.get("/v1/projects/demo/audit_records?limit=500").await.expect(200);
    let records = list["items"].as_array().unwrap().iter().rev();
    let of_consoles = records.filter(|record| record["action"].as_str().unwrap().ends_with("Console"));
    of_consoles
        .map(|record| (record["action"].as_str().unwrap().to_owned(), record["after"].clone()))
        .collect()
}

async fn until_records(cloud: &TestCloud, count: usize) -> Vec<(String, Value)> {
    let all = async {
        loop {
            let found = records(cloud).await;
            if found.len() >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("so many records")
}

async fn left(cloud: &TestCloud) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM consoles) + (SELECT count(*) FROM transfers)";
    sqlx::query_scalar(sql).fetch_one(&cloud.app.pool).await.unwrap()
}

#[tokio::test]
async fn a_console_joins_both_halves_and_is_written_down() {
    let cloud = start().await;
    let at = cloud.listen().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    let console = ask(&cloud, "serial").await;
    assert_eq!(console["instance"]["id"], web["id"]);
    let (mut user, mut half) = open(&cloud, &host, at, &console).await;

    half.write(b"login: ").await;
    assert_eq!(user.read().await.as_deref(), Some(&b"login: "[..]));
    user.send_text("root\n").await;
    half.expect(b"root\n").await;
    user.send(vec![0, 255]).await;
    half.expect(&[0, 255]).await;

    // The client closes: the host's half ends, and what was open is over.
    user.close().await;
    half.expect_end().await;
    let records = until_records(&cloud, 3).await;
    let actions: Vec<_> = records.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(actions, ["compute:OpenConsole", "compute:BeginConsole", "compute:EndConsole"]);
    let end = &records[2].1;
    assert_eq!(
        (&end["reason"], &end["kind"], &end["seconds"]),
        (&json!("closed"), &json!("serial"), &json!(0))
    );
    assert_eq!((&end["to_guest_bytes"], &end["from_guest_bytes"]), (&json!(7), &json!(7)));
    let written = format!("{records:?}");
    let ticket = console["subprotocols"][1].as_str().unwrap().trim_start_matches("cumulo.ticket.");
    assert!(!written.contains(ticket));
    assert_eq!(left(&cloud).await, 0);
}

#[tokio::test]
async fn neither_side_can_make_anything_pile_up() {
    let cloud = start().await;
    let at = cloud.listen().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let console = ask(&cloud, "vnc").await;
    let (mut user, mut half) = open(&cloud, &host, at, &console).await;
    // What the sockets between take, and no more.
    let (to_host, to_user) = (user.flood().await, half.flood().await);
    for (direction, bytes) in [("to the host", to_host), ("to the user", to_user)] {
        assert!(bytes < 64 << 20, "{bytes} bytes {direction}");
    }
    drop((user, half));
    // A message that is too long ends it.
    let console = ask(&cloud, "vnc").await;
    let (mut user, mut half) = open(&cloud, &host, at, &console).await;
    user.send(vec![0; (64 << 10) + 1]).await;
    half.expect_end().await;
}

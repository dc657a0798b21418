//! An agent that has not been upgraded speaks the version before: what its release wrote, as recorded.

use axum::http::Method;
use protocol::agent::{DISK_MOVES, EARLIEST_PROTOCOL_VERSION, Inventory, PROTOCOL_VERSION};
use protocol::recorded::{messages, unknown_to};
use serde_json::{Value, json};

use super::{WEB, create};
use crate::testing::{TestCloud, TestHost, inventory};

const BEFORE: u32 = EARLIEST_PROTOCOL_VERSION;

/// The first message of this name that the release before wrote, with these properties in place of its own.
fn said(name: &str, own: &Value) -> Value {
    let mut message = messages(BEFORE, name).swap_remove(0);
    message.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
    message
}

/// Joins as that release did, and opens a session.
async fn join<'a>(cloud: &'a TestCloud, name: &str) -> TestHost<'a> {
    let token = cloud.post("/v1/host_join_tokens", json!({})).await.expect(201)["token"].clone();
    let own = super::join_body(&token, name);
    let body = said("join_request", &json!({"token": token, "name": name, "csr_pem": own["csr_pem"]}));
    let joined = cloud.agent_call(None, Method::POST, "/agent/v1/join", Some(body)).await.expect(200);
    assert_eq!(unknown_to(BEFORE, "join_response", &joined), Vec::<String>::new());
    let mut host = TestHost::joined(cloud, joined["host_id"].as_str().unwrap().parse().unwrap());
    open(&mut host).await;
    host
}

async fn open(host: &mut TestHost<'_>) {
    let opened = host.call(Method::POST, "/agent/v1/sessions", Some(said("open_session", &json!({})))).await;
    let opened = opened.expect(200);
    // Answers may say more: agents pass it over.
    assert_eq!(opened["protocol_version"], BEFORE);
    host.epoch = opened["epoch"].as_i64().unwrap();
}

/// Everything that is wanted of the host, none of which the release before does not know.
async fn wanted(host: &TestHost<'_>) -> Vec<Value> {
    let page = host.feed(0).await;
    assert_eq!(unknown_to(BEFORE, "desired_page", &page), Vec::<String>::new(), "{page}");
    page["objects"].as_array().unwrap().clone()
}

async fn report(host: &TestHost<'_>, instance: &Value, state: Value) {
    let wanted = wanted(host).await.into_iter().find(|one| one["id"] == *instance).unwrap();
    let volumes = wanted["disks"].as_array().into_iter().flatten().map(|disk| {
        json!({"id": disk["volume"]["id"], "generation": disk["volume"]["generation"], "state": "ready"})
    });
    let report = said("observed_batch", &json!({}))["reports"][1].clone();
    let own = json!({"id": instance, "generation": wanted["generation"], "boot": i32::from(state["state"] != "absent"), "state": state,
        "volumes": volumes.collect::<Value>(), "leaving_cards": []});
    let mut report = report.as_object().unwrap().clone();
    report.extend(own.as_object().unwrap().clone());
    report.retain(|key, _| !["paused", "not_taken", "saved_memory", "detail"].contains(&key.as_str()));
    let batch = json!({"epoch": host.epoch, "reports": [report]});
    host.call(Method::POST, "/agent/v1/observed", Some(batch)).await.expect(200);
}

#[tokio::test]
async fn an_agent_of_the_release_before_lives_on() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = join(&cloud, "host-1").await;
    for (path, name) in [
        ("heartbeat", "heartbeat"),
        ("observed", "observed_batch"),
        ("insight", "insight_batch"),
        ("drift", "drift_report"),
    ] {
        let body = said(name, &json!({"epoch": host.epoch}));
        host.call(Method::POST, &format!("/agent/v1/{path}"), Some(body)).await.expect(200);
    }
    let created = create(&cloud).await;
    let id = &created["id"];
    report(&host, id, json!({"state": "running"})).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    report(&host, id, json!({"state": "stopped", "reason": "requested"})).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "stopped");
    cloud.delete(WEB).await.expect(202);
    assert!(wanted(&host).await.iter().any(|one| one["kind"] == "delete_instance"));
    report(&host, id, json!({"state": "absent"})).await;
    cloud.get(WEB).await.expect_problem(404, "not_found");
}

async fn shown(cloud: &TestCloud) -> Value {
    cloud.get("/v1/hosts/host-1").await.expect(200)
}

async fn findings(cloud: &TestCloud) -> Vec<String> {
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let found = crate::hosts::verify(&mut conn, cloud.app.clock.now()).await.unwrap();
    let codes = found.into_iter().map(|finding| finding.code);
    codes.filter(|code| code.starts_with("host_agent")).collect()
}

#[tokio::test]
async fn an_outdated_agent_is_shown_and_asked_for_nothing_that_it_does_not_know() {
    let able = |number: u8| Inventory {
        features: vec![DISK_MOVES.to_owned()],
        underlay_address: Some([192, 0, 2, number].into()),
        ..inventory()
    };
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let mut host = join(&cloud, "host-1").await;
    let created = create(&cloud).await;
    report(&host, &created["id"], json!({"state": "running"})).await;
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    report(&host, &created["id"], json!({"state": "stopped", "reason": "requested"})).await;
    let mut other = cloud.join_host("host-2").await;
    other.open_session_with(able(2)).await;

    let seen = shown(&cloud).await;
    assert_eq!((&seen["protocol_version"], &seen["agent_outdated"]), (&json!(BEFORE), &json!(true)));
    assert_eq!(findings(&cloud).await, ["host_agent_outdated"]);
    let refused = cloud.post(&format!("{WEB}/move"), json!({})).await.expect_problem(409, "wrong_state");
    let why = refused["detail"].as_str().unwrap();
    assert!(why.contains("its agent is of an earlier release") && why.contains("upgrade it"), "{why}");

    // A feature of a later version in the mouth of an agent of this one is not believed.
    let mut liar = said("open_session", &json!({}));
    liar["inventory"]["features"] = json!([DISK_MOVES]);
    let opened = host.call(Method::POST, "/agent/v1/sessions", Some(liar)).await.expect(200);
    host.epoch = opened["epoch"].as_i64().unwrap();
    cloud.post(&format!("{WEB}/move"), json!({})).await.expect_problem(409, "wrong_state");

    host.open_session_with(able(1)).await;
    let seen = shown(&cloud).await;
    assert_eq!(
        (&seen["protocol_version"], &seen["agent_outdated"]),
        (&json!(PROTOCOL_VERSION), &Value::Null)
    );
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    cloud.post(&format!("{WEB}/move"), json!({})).await.expect(202);
    let order = other.feed(0).await["objects"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["kind"] == "take_disks")
        .cloned();
    let order = order.unwrap();
    let ready = json!([{"id": order["id"], "instance_id": order["instance_id"],
        "state": {"kind": "ready", "address": "192.0.2.2:40000"}}]);
    other.report_migrations(ready).await.expect(200);
    assert_ne!(unknown_to(BEFORE, "desired_page", &host.feed(0).await), Vec::<String>::new());
    // Put back to the release before in the middle of it, it can read what it is told.
    open(&mut host).await;
    wanted(&host).await;
}

#[tokio::test]
async fn an_agent_of_any_other_release_is_refused_and_the_operator_sees_why() {
    let cloud = TestCloud::start().await;
    let mut host = cloud.join_host("host-1").await;
    let open = async |version: u32| {
        let body = said("open_session", &json!({"protocol_version": version}));
        host.call(Method::POST, "/agent/v1/sessions", Some(body)).await
    };
    let refused = open(BEFORE - 1).await.expect_problem(422, "unsupported_protocol");
    assert!(refused["detail"].as_str().unwrap().contains("upgrade cumulo-agent"), "{refused}");
    let older = shown(&cloud).await["agent_refused"].clone();
    assert!(older.as_str().unwrap().contains("upgrade cumulo-agent on the host"), "{older}");
    assert_eq!(findings(&cloud).await, ["host_agent_refused"]);
    // It may try an older version after its own: the newest is shown.
    open(PROTOCOL_VERSION + 2).await.expect_problem(422, "unsupported_protocol");
    open(PROTOCOL_VERSION + 1).await.expect_problem(422, "unsupported_protocol");
    open(u32::MAX).await.expect_problem(422, "unsupported_protocol");
    let newer = shown(&cloud).await["agent_refused"].clone();
    assert!(newer.as_str().unwrap().contains("upgrade the control plane first"), "{newer}");
    host.open_session().await;
    assert_eq!(shown(&cloud).await["agent_refused"], Value::Null);
    // One of the next release speaks our version, too: it is not told of as refused before it has asked for that.
    let body = said("open_session", &json!({"protocol_version": PROTOCOL_VERSION + 1}));
    host.call(Method::POST, "/agent/v1/sessions", Some(body))
        .await
        .expect_problem(422, "unsupported_protocol");
    assert_eq!(shown(&cloud).await["agent_refused"], Value::Null);
    let told = "SELECT count(*) FROM pending_events WHERE kind = 'host' AND change = 'state'";
    let told: i64 = sqlx::query_scalar(told).fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(told, 4, "refused three times, and let in");
}

//! Hosts whose certificate has run out.

use axum::http::Method;
use protocol::HostId;
use protocol::agent::PROTOCOL_VERSION;
use serde_json::{Value, json};

use crate::testing::TestCloud;

fn csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

fn body(token: &Value, host: Option<HostId>) -> Value {
    let mut body =
        json!({"protocol_version": PROTOCOL_VERSION, "token": token, "name": "host-1", "csr_pem": csr()});
    if let Some(host) = host {
        body["host_id"] = json!(host);
    }
    body
}

#[tokio::test]
async fn a_host_that_was_away_for_long_is_let_in_again_as_itself_and_nobody_else_is() {
    let cloud = TestCloud::start().await;
    let (host, other) = (cloud.join_host("host-1").await, cloud.join_host("host-2").await);
    let join = async |body: Value| cloud.agent_call(None, Method::POST, "/agent/v1/join", Some(body)).await;
    let readmit = async |body: Value| cloud.post("/v1/hosts/host-1/readmit", body).await;
    let expires = async || cloud.get("/v1/hosts/host-1").await.expect(200)["certificate_expires_at"].clone();
    let first = expires().await;
    assert!(first.is_string(), "{first}");
    let heard = readmit(json!({})).await.expect_problem(409, "wrong_state");
    assert!(heard["detail"].as_str().unwrap().contains("is heard"), "{heard}");

    cloud.pass(31 * 86_400);
    for wrong in [json!({"ttl_seconds": 59}), json!({"ttl_seconds": 3601}), json!({"host": "host-1"})] {
        readmit(wrong).await.expect_problem(422, "validation_failed");
    }
    let token = readmit(json!({"ttl_seconds": 60})).await.expect(201)["token"].clone();
    let new = cloud.post("/v1/host_join_tokens", json!({})).await.expect(201)["token"].clone();
    for (token, claimed) in [(&token, None), (&token, Some(other.id)), (&new, Some(host.id))] {
        join(body(token, claimed)).await.expect_problem(401, "invalid_credentials");
    }
    let mut unsigned = body(&token, Some(host.id));
    unsigned["csr_pem"] = json!("nonsense");
    join(unsigned).await.expect_problem(422, "validation_failed");

    let joined = join(body(&token, Some(host.id))).await.expect(200);
    assert_eq!(joined["host_id"], json!(host.id));
    assert_ne!(expires().await, first);
    join(body(&token, Some(host.id))).await.expect_problem(401, "invalid_credentials");
    assert_eq!(cloud.get("/v1/hosts").await.expect(200)["items"].as_array().unwrap().len(), 2);

    let late = readmit(json!({"ttl_seconds": 60})).await.expect(201)["token"].clone();
    cloud.pass(61);
    join(body(&late, Some(host.id))).await.expect_problem(401, "invalid_credentials");
    let removed = readmit(json!({})).await.expect(201)["token"].clone();
    cloud.delete("/v1/hosts/host-1").await.expect(204);
    join(body(&removed, Some(host.id))).await.expect_problem(401, "invalid_credentials");
}

#[tokio::test]
async fn a_renewed_certificate_ends_later() {
    let cloud = TestCloud::start().await;
    let host = cloud.join_host("host-1").await;
    let expires = async || cloud.get("/v1/hosts/host-1").await.expect(200)["certificate_expires_at"].clone();
    let first = expires().await;
    cloud.pass(20 * 86_400);
    host.call(Method::POST, "/agent/v1/renew", Some(json!({"csr_pem": csr()}))).await.expect(200);
    assert!(expires().await.as_str() > first.as_str());
}

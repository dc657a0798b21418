//! Hosts whose certificate has run out.

use axum::http::Method;
use protocol::HostId;
use protocol::agent::PROTOCOL_VERSION;
use serde_json::{Value, json};

use crate::testing::TestCloud;

fn csr(key: &rcgen::KeyPair) -> String {
    rcgen::CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

fn body(token: &Value, host: Option<HostId>, key: &rcgen::KeyPair) -> Value {
    let mut body =
        json!({"protocol_version": PROTOCOL_VERSION, "token": token, "name": "host-1", "csr_pem": csr(key)});
    if let Some(host) = host {
        body["host_id"] = json!(host);
    }
    body
}

#[tokio::test]
async fn a_host_that_was_away_for_long_is_let_in_again_as_itself_and_nobody_else_is() {
    let cloud = TestCloud::start().await;
    let (host, other) = (cloud.join_host("host-1").await, cloud.join_host("host-2").await);
    let [key, stolen] = [(); 2].map(|()| rcgen::KeyPair::generate().unwrap());
    host.call(Method::POST, "/agent/v1/renew", Some(json!({"csr_pem": csr(&key)}))).await.expect(200);
    let join = async |body: Value| cloud.agent_call(None, Method::POST, "/agent/v1/join", Some(body)).await;
    let refused = async |body: Value| drop(join(body).await.expect_problem(401, "invalid_credentials"));
    let readmit = async |body: Value| cloud.post("/v1/hosts/host-1/readmit", body).await;
    let expires = async || cloud.get("/v1/hosts/host-1").await.expect(200)["certificate_expires_at"].clone();
    let first = expires().await;
    assert!(first.is_string(), "{first}");
    let heard = readmit(json!({})).await.expect_problem(409, "wrong_state");
    assert!(heard["detail"].as_str().unwrap().contains("is heard"), "{heard}");

    cloud.pass(31 * 86_400);
    cloud.sign_in_again().await;
    for wrong in [json!({"ttl_seconds": 59}), json!({"ttl_seconds": 3601}), json!({"host": "host-1"})] {
        readmit(wrong).await.expect_problem(422, "validation_failed");
    }
    let token = readmit(json!({"ttl_seconds": 60})).await.expect(201)["token"].clone();
    let new = cloud.post("/v1/host_join_tokens", json!({})).await.expect(201)["token"].clone();
    refused(body(&token, None, &key)).await;
    refused(body(&token, Some(other.id), &key)).await;
    refused(body(&token, Some(host.id), &stolen)).await;
    refused(body(&new, Some(host.id), &key)).await;
    let mut unsigned = body(&token, Some(host.id), &key);
    unsigned["csr_pem"] = json!("nonsense");
    join(unsigned).await.expect_problem(422, "validation_failed");

    let joined = join(body(&token, Some(host.id), &key)).await.expect(200);
    assert_eq!(joined["host_id"], json!(host.id));
    assert_ne!(expires().await, first);
    for (action, count) in [("host:RejoinHost", 1), ("host:JoinHost", 2)] {
        let records = cloud.get(&format!("/v1/audit_records?action={action}")).await.expect(200);
        let records = records["items"].as_array().unwrap().clone();
        assert_eq!(records.len(), count, "{records:?}");
        let of_it: Vec<_> = records.iter().filter(|one| one["resource_id"] == json!(host.id)).collect();
        let [record] = of_it[..] else { panic!("{records:?}") };
        assert_eq!(record["resource"], "crn:cumulo:host::host/host-1");
        assert_eq!((&record["principal_name"], &record["outcome"]), (&json!("admin"), &json!("allowed")));
        assert_eq!(record["credential_kind"], "join_token");
        assert!(record["credential_id"].is_string(), "{record}");
    }
    refused(body(&token, Some(host.id), &key)).await;
    assert_eq!(cloud.get("/v1/hosts").await.expect(200)["items"].as_array().unwrap().len(), 2);

    let late = readmit(json!({"ttl_seconds": 60})).await.expect(201)["token"].clone();
    cloud.pass(61);
    refused(body(&late, Some(host.id), &key)).await;
    let removed = readmit(json!({})).await.expect(201)["token"].clone();
    cloud.delete("/v1/hosts/host-1").await.expect(204);
    refused(body(&removed, Some(host.id), &key)).await;
}

#[tokio::test]
async fn of_a_host_of_an_earlier_release_the_key_is_not_known_and_the_token_is_enough() {
    let cloud = TestCloud::start().await;
    let host = cloud.join_host("host-1").await;
    sqlx::query("UPDATE hosts SET certificate_key_sha256 = NULL, certificate_expires_at = NULL")
        .execute(&cloud.app.pool)
        .await
        .unwrap();
    assert!(cloud.get("/v1/hosts/host-1").await.expect(200).get("certificate_expires_at").is_none());
    cloud.pass(60);
    let token = cloud.post("/v1/hosts/host-1/readmit", json!({})).await.expect(201)["token"].clone();
    let body = body(&token, Some(host.id), &rcgen::KeyPair::generate().unwrap());
    let join = async || cloud.agent_call(None, Method::POST, "/agent/v1/join", Some(body.clone())).await;
    // It is back by itself: whoever finds the token does not take its place.
    host.beat(json!([])).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    join().await.expect_problem(401, "invalid_credentials");
    cloud.pass(60);
    join().await.expect(200);
}

#[tokio::test]
async fn a_renewed_certificate_ends_later() {
    let cloud = TestCloud::start().await;
    let host = cloud.join_host("host-1").await;
    let expires = async || cloud.get("/v1/hosts/host-1").await.expect(200)["certificate_expires_at"].clone();
    let first = expires().await;
    cloud.pass(20 * 86_400);
    cloud.sign_in_again().await;
    let body = json!({"csr_pem": csr(&rcgen::KeyPair::generate().unwrap())});
    host.call(Method::POST, "/agent/v1/renew", Some(body)).await.expect(200);
    assert!(expires().await.as_str() > first.as_str());
}

//! Rotation, as replicas, clients and strangers see it.

use axum::http::Method;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::testing::{Answer, TestCloud, request};

async fn login(cloud: &TestCloud) -> Value {
    let body = cloud.credentials().to_string();
    cloud.send(request(Method::POST, "/v1/auth/login", &[], body)).await.expect(200)
}

async fn me(cloud: &TestCloud, tokens: &Value) -> Answer {
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    cloud.send(request(Method::GET, "/v1/me", &[("authorization", &bearer)], String::new())).await
}

fn kid(tokens: &Value) -> String {
    jsonwebtoken::decode_header(tokens["access_token"].as_str().unwrap()).unwrap().kid.unwrap()
}

async fn jwks(cloud: &TestCloud) -> Vec<Value> {
    let answer = cloud.send(request(Method::GET, "/.well-known/jwks.json", &[], String::new())).await;
    assert_eq!(answer.headers["cache-control"], "public, max-age=300");
    answer.expect(200)["keys"].as_array().unwrap().clone()
}

/// As a sweep does it.
async fn sweep(cloud: &TestCloud) {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    super::look_after(&mut conn, &cloud.app, cloud.app.clock.now()).await.unwrap();
}

#[tokio::test]
async fn rotation_signs_nobody_out_on_any_replica() {
    let cloud = TestCloud::start().await;
    let replica = cloud.replica().await;
    let before = [login(&cloud).await, login(&replica).await];
    assert_eq!(kid(&before[0]), kid(&before[1]));

    let new = cloud.post("/v1/signing_keys", Value::Null).await.expect(201);
    assert_eq!(new["state"], "signing");
    let after = [login(&cloud).await, login(&replica).await];
    for tokens in &after {
        assert_eq!(kid(tokens), new["id"].as_str().unwrap(), "whichever replica signs, it is the new key");
    }
    for api in [&cloud, &replica] {
        for tokens in before.iter().chain(&after) {
            me(api, tokens).await.expect(200);
        }
    }
    // A replica that has only ever verified learns of the key from the token, at once.
    let third = cloud.replica().await;
    let newer = cloud.post("/v1/signing_keys", Value::Null).await.expect(201);
    let newest = login(&cloud).await;
    assert_eq!(kid(&newest), newer["id"].as_str().unwrap());
    me(&third, &newest).await.expect(200);
    me(&third, &before[0]).await.expect(200);
}

#[tokio::test]
async fn a_key_goes_when_its_last_token_has_long_expired() {
    let cloud = TestCloud::start().await;
    let old = login(&cloud).await;
    cloud.pass(60);
    cloud.post("/v1/signing_keys", Value::Null).await.expect(201);
    let states = async || -> Vec<(Value, Value)> {
        let page = cloud.get("/v1/signing_keys").await.expect(200);
        let keys = page["items"].as_array().unwrap().iter();
        keys.map(|key| (key["state"].clone(), key["accepted_until"].clone())).collect()
    };
    let both = [(json!("verifying"), json!("2026-06-01T12:31:00Z")), (json!("signing"), Value::Null)];
    assert_eq!(states().await, both);
    assert_eq!(jwks(&cloud).await.len(), 2);

    sweep(&cloud).await;
    me(&cloud, &old).await.expect(200);
    cloud.pass(14 * 60 - 1);
    me(&cloud, &old).await.expect(200);
    cloud.pass(16 * 60 + 1);
    sweep(&cloud).await;
    assert_eq!(jwks(&cloud).await.len(), 2);
    cloud.pass(1);
    sweep(&cloud).await;
    let left = jwks(&cloud).await;
    assert_eq!(left.len(), 1);
    assert_ne!(left[0]["kid"], kid(&old));
    me(&cloud, &old).await.expect_problem(401, "invalid_token");
    // The session lives on: it is no key's.
    let refresh = json!({"refresh_token": old["refresh_token"]}).to_string();
    let new = cloud.send(request(Method::POST, "/v1/auth/refresh", &[], refresh)).await.expect(200);
    me(&cloud, &new).await.expect(200);
}

#[tokio::test]
async fn anybody_can_verify_a_token_with_the_published_keys() {
    let cloud = TestCloud::start().await;
    cloud.post("/v1/signing_keys", Value::Null).await.expect(201);
    let tokens = login(&cloud).await;
    let keys = jwks(&cloud).await;
    let key = keys.iter().find(|key| key["kid"] == kid(&tokens)).unwrap();
    let mut expected = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig"});
    for name in ["kid", "x"] {
        expected[name] = key[name].clone();
    }
    assert_eq!(*key, expected, "and nothing private");
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&["cumulo"]);
    validation.validate_exp = false;
    let token = tokens["access_token"].as_str().unwrap();
    let verify = |x: &str| {
        jsonwebtoken::decode::<Value>(token, &DecodingKey::from_ed_components(x).unwrap(), &validation)
    };
    verify(key["x"].as_str().unwrap()).unwrap();
    let other = keys.iter().find(|other| other["kid"] != key["kid"]).unwrap();
    verify(other["x"].as_str().unwrap()).unwrap_err();
}

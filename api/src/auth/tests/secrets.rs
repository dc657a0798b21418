//! Whatever is logged, and however loudly: no password, token or user data.

use std::sync::Arc;

use axum::http::Method;
use serde_json::json;

use super::post;
use crate::testing::TestCloud;

#[tokio::test]
async fn nothing_secret_is_ever_logged() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(Arc::new(file.reopen().unwrap()))
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let tokens = post(&cloud, "/v1/auth/login", cloud.credentials().clone()).await.expect(200);
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    let second = post(&cloud, "/v1/auth/refresh", refresh.clone()).await.expect(200);
    // Refusals are the wordy ones.
    post(&cloud, "/v1/auth/refresh", refresh).await.expect_problem(401, "invalid_token");
    let typo = json!({"username": "admin", "password": "canary-typo", "surprise": "canary-surprise"});
    post(&cloud, "/v1/auth/login", typo).await.expect_problem(422, "validation_failed");
    let wrong = json!({"username": "admin", "password": "canary-wrong"});
    post(&cloud, "/v1/auth/login", wrong).await.expect_problem(401, "invalid_credentials");
    let join = cloud.post("/v1/host_join_tokens", json!({})).await.expect(201);
    let instance = json!({"name": "web", "image": "image", "instance_type": "tiny",
        "user_data": "#!/bin/sh\necho canary-user-data"});
    cloud.post("/v1/projects/demo/instances", instance).await.expect(202);
    cloud.call_with(Method::GET, "/v1/projects", &[("authorization", "Basic canary-basic")], None).await;
    let ada = json!({"name": "ada", "password": "canary-password"});
    cloud.post("/v1/users", ada.clone()).await.expect(201);
    cloud.post("/v1/users", ada).await.expect_problem(409, "name_taken");
    let invited = cloud.post("/v1/users", json!({"name": "bob"})).await.expect(201);
    let wrong = json!({"username": "bob", "code": "canary-code", "new_password": "canary-new-password"});
    post(&cloud, "/v1/auth/reset_password", wrong).await.expect_problem(401, "invalid_password_code");
    let change = json!({"current_password": "canary-current", "new_password": "canary-new-password"});
    cloud.post("/v1/users/admin/password", change).await.expect_problem(422, "validation_failed");
    let totp = cloud.post("/v1/users/admin/totp", json!({})).await.expect(201);
    let wrong = json!({"code": "canary-totp"});
    cloud.post("/v1/users/admin/totp/confirm", wrong).await.expect_problem(422, "validation_failed");
    let key = cloud.post("/v1/users/admin/api_keys", json!({})).await.expect(201);
    let bearer = format!("Bearer {}", key["key"].as_str().unwrap());
    cloud.call_with(Method::GET, "/v1/me", &[("authorization", &bearer)], None).await.expect(200);

    let log = std::fs::read_to_string(file.path()).unwrap();
    assert!(
        log.contains("answered") && log.contains("INSERT INTO"),
        "the log is not what it should be: {log}"
    );
    let secrets = [
        &cloud.credentials()["password"],
        &tokens["access_token"],
        &tokens["refresh_token"],
        &second["access_token"],
        &second["refresh_token"],
        &join["token"],
        &invited["password_code"],
        &totp["secret"],
        &totp["url"],
        &key["key"],
    ];
    for secret in secrets.map(|secret| secret.as_str().unwrap()).into_iter().chain(["canary"]) {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

//! Service accounts through the router.

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::TestCloud;

const ACCOUNTS: &str = "/v1/projects/demo/service_accounts";

#[tokio::test]
async fn a_service_account_is_made_read_changed_and_deleted() {
    let cloud = TestCloud::start().await;
    for project in ["demo", "other"] {
        cloud.post("/v1/projects", json!({"name": project})).await.expect(201);
    }
    let made = cloud.post(ACCOUNTS, json!({"name": "terraform"})).await.expect(201);
    let id = made["id"].as_str().unwrap();
    cloud.post(ACCOUNTS, json!({"name": "terraform"})).await.expect_problem(409, "name_taken");
    cloud.post(ACCOUNTS, json!({"name": "-"})).await.expect_problem(422, "validation_failed");
    // A name is the project's; users and other projects have names of their own.
    cloud.post("/v1/projects/other/service_accounts", json!({"name": "terraform"})).await.expect(201);
    cloud.user("terraform", false).await;

    let path = format!("{ACCOUNTS}/terraform");
    let read = cloud.get(&path).await;
    assert_eq!(read.expect(200), made);
    for foreign in [format!("/v1/projects/other/service_accounts/{id}"), format!("/v1/users/{id}")] {
        cloud.get(&foreign).await.expect_problem(404, "not_found");
        cloud.delete(&foreign).await.expect_problem(404, "not_found");
    }
    let tag = read.headers["etag"].to_str().unwrap();
    let patch = async |tag: &str, body: Value| {
        cloud.call_with(Method::PATCH, &path, &[("if-match", tag)], Some(body)).await
    };
    patch(tag, json!({"description": "builds"})).await.expect(200);
    patch(tag, json!({"description": "late"})).await.expect_problem(412, "precondition_failed");
    patch("*", json!({"project": "other"})).await.expect_problem(422, "validation_failed");
    let page = cloud.get(&format!("{ACCOUNTS}?name=terraform")).await.expect(200);
    assert_eq!(page["items"][0]["description"], "builds");
    let problem = cloud.delete("/v1/projects/demo").await.expect_problem(409, "in_use");
    assert_eq!(problem["detail"], "it still owns 1 service account; delete what it owns first");
    cloud.delete(&path).await.expect(204);
    cloud.delete(&path).await.expect_problem(404, "not_found");
    cloud.delete("/v1/projects/demo").await.expect(204);
    cloud.post(ACCOUNTS, json!({"name": "terraform"})).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_disabled_service_account_is_out_at_the_next_request_on_every_replica() {
    let cloud = TestCloud::start().await;
    let replica = cloud.replica().await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    cloud.post(ACCOUNTS, json!({"name": "robot"})).await.expect(201);
    let path = format!("{ACCOUNTS}/robot");
    let key = cloud.post(&format!("{path}/api_keys"), json!({})).await.expect(201);
    let key = format!("Bearer {}", key["key"].as_str().unwrap());
    let me = async || replica.call_with(Method::GET, "/v1/me", &[("authorization", &key)], None).await;
    let seen = me().await.expect(200);
    assert_eq!((&seen["kind"], &seen["name"]), (&json!("service_account"), &json!("robot")));
    assert_eq!((&seen["project"]["name"], &seen["credential"]["kind"]), (&json!("demo"), &json!("api_key")));
    let disable = async |disabled: bool| {
        cloud.call(Method::PATCH, &path, Some(json!({"disabled": disabled}))).await.expect(200)
    };
    assert_eq!(disable(true).await["disabled"], true);
    me().await.expect_problem(401, "invalid_token");
    disable(false).await;
    me().await.expect(200);
    cloud.delete(&path).await.expect(204);
    me().await.expect_problem(401, "invalid_token");
}

#[tokio::test]
async fn a_service_account_cannot_sign_in() {
    let cloud = TestCloud::start().await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    let robot = cloud.post(ACCOUNTS, json!({"name": "robot"})).await.expect(201);
    // Not even with a password from nowhere.
    let hash = cloud.app.passwords.hash("correct horse".to_owned()).await.unwrap();
    sqlx::query(
        "INSERT INTO user_passwords (user_id, password_hash, changed_at, change_required)
         VALUES ($1::uuid, $2, now(), false)",
    )
    .bind(robot["id"].as_str().unwrap())
    .bind(hash)
    .execute(&cloud.app.pool)
    .await
    .unwrap();
    let body = json!({"username": "robot", "password": "correct horse"}).to_string();
    let answer = cloud.send(crate::testing::request(Method::POST, "/v1/auth/login", &[], body)).await;
    answer.expect_problem(401, "invalid_credentials");
    for path in ["reset_password", "totp"] {
        let id = robot["id"].as_str().unwrap();
        cloud.post(&format!("/v1/users/{id}/{path}"), json!({})).await.expect_problem(404, "not_found");
    }
}

//! Users through the router: made, invited, reset, disabled and deleted.

mod password_changes;
mod passwords;
mod second_factor;
mod sessions;

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::{Answer, TestCloud, request};

const PASSWORD: &str = "correct horse";

/// Calls without a credential.
async fn visit(cloud: &TestCloud, path: &str, body: Value) -> Answer {
    cloud.send(request(Method::POST, path, &[], body.to_string())).await
}

async fn login(cloud: &TestCloud, name: &str, password: &str) -> Answer {
    visit(cloud, "/v1/auth/login", json!({"username": name, "password": password})).await
}

fn bearer(tokens: &Value) -> String {
    format!("Bearer {}", tokens["access_token"].as_str().unwrap())
}

/// Calls as somebody.
async fn call(cloud: &TestCloud, bearer: &str, method: Method, path: &str, body: Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    cloud.send(request(method, path, &[("authorization", bearer)], body)).await
}

async fn get(cloud: &TestCloud, bearer: &str, path: &str) -> Answer {
    call(cloud, bearer, Method::GET, path, Value::Null).await
}

async fn post(cloud: &TestCloud, bearer: &str, path: &str, body: Value) -> Answer {
    call(cloud, bearer, Method::POST, path, body).await
}

/// What the audit log says about an action: outcome and what became of it.
async fn recorded(cloud: &TestCloud, action: &str) -> Vec<(String, Value)> {
    sqlx::query_as("SELECT outcome, coalesce(after, 'null') FROM audit_records WHERE action = $1 ORDER BY id")
        .bind(action)
        .fetch_all(&cloud.app.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_user_is_made_read_changed_and_deleted() {
    let cloud = TestCloud::start().await;
    let new = json!({"name": "ada", "description": "first", "password": PASSWORD});
    let made = cloud.post("/v1/users", new.clone()).await.expect(201);
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!((&made["name"], &made["disabled"]), (&json!("ada"), &json!(false)));
    assert_eq!((&made["has_password"], &made["password_code"]), (&json!(true), &Value::Null));
    assert!(!made.to_string().contains(PASSWORD));
    cloud.post("/v1/users", new).await.expect_problem(409, "name_taken");

    let read = cloud.get("/v1/users/ada").await;
    assert_eq!(read.expect(200), cloud.get(&format!("/v1/users/{id}")).await.expect(200));
    let tag = read.headers["etag"].to_str().unwrap();
    let patch = async |tag: &str, body: Value| {
        cloud.call_with(Method::PATCH, "/v1/users/ada", &[("if-match", tag)], Some(body)).await
    };
    let changed = patch(tag, json!({"description": "second"})).await.expect(200);
    assert_eq!(changed["description"], "second");
    patch(tag, json!({"description": "third"})).await.expect_problem(412, "precondition_failed");
    patch("*", json!({"name": null})).await.expect_problem(422, "validation_failed");
    patch("*", json!({"password": PASSWORD})).await.expect_problem(422, "validation_failed");
    patch("*", json!({"name": "admin"})).await.expect_problem(409, "name_taken");
    patch("*", json!({"name": "lovelace"})).await.expect(200);
    login(&cloud, "lovelace", PASSWORD).await.expect(200);

    let all = cloud.get("/v1/users").await.expect(200);
    let names: Vec<_> = all["items"].as_array().unwrap().iter().map(|user| &user["name"]).collect();
    assert_eq!(names, ["admin", "lovelace"]);
    let some = cloud.get("/v1/users?name=lovelace").await.expect(200);
    assert_eq!(some["items"][0]["id"], *id);
    cloud.get("/v1/users?label_selector=a").await.expect_problem(400, "invalid_query");

    cloud.delete("/v1/users/lovelace").await.expect(204);
    cloud.get(&format!("/v1/users/{id}")).await.expect_problem(404, "not_found");
    login(&cloud, "lovelace", PASSWORD).await.expect_problem(401, "invalid_credentials");
    // What they did stays.
    let (outcome, _) = &recorded(&cloud, "iam:DeleteUser").await[0];
    assert_eq!(outcome, "allowed");
    let signed_in: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit_records WHERE principal_name = 'lovelace' AND action = 'iam:SignIn'",
    )
    .fetch_one(&cloud.app.pool)
    .await
    .unwrap();
    assert_eq!(signed_in, 2);
}

#[tokio::test]
async fn wrong_fields_of_a_new_user_are_named() {
    let cloud = TestCloud::start().await;
    let long = "x".repeat(1025);
    for (body, pointer, code) in [
        (json!({"name": "Ada"}), "/name", "invalid"),
        (json!({"name": "ada", "password": "correct hor"}), "/password", "too_short"),
        (json!({"name": "ada", "password": long}), "/password", "too_long"),
        (json!({"name": "ada-of-lovelace", "password": "Ada-of-Lovelace"}), "/password", "invalid"),
        (json!({"name": "ada", "description": "a\0b"}), "/description", "invalid"),
        (json!({"name": "ada", "administrator": true}), "/administrator", "invalid"),
    ] {
        let problem = cloud.post("/v1/users", body.clone()).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
        assert_eq!(problem["errors"][0]["code"], code, "{body}");
    }
    assert_eq!(cloud.get("/v1/users").await.expect(200)["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_disabled_user_is_out_at_the_next_request_on_every_replica() {
    let cloud = TestCloud::start().await;
    let replica = cloud.replica().await;
    let ada = cloud.user("ada", false).await;
    let key = post(&cloud, &ada, "/v1/users/ada/api_keys", json!({})).await.expect(201);
    let key = format!("Bearer {}", key["key"].as_str().unwrap());
    let tokens = login(&cloud, "ada", PASSWORD).await.expect(200);
    let disable = async |disabled: bool| {
        let body = Some(json!({"disabled": disabled}));
        cloud.call(Method::PATCH, "/v1/users/ada", body).await.expect(200)
    };
    for credential in [&ada, &key] {
        get(&replica, credential, "/v1/me").await.expect(200);
    }
    assert_eq!(disable(true).await["disabled"], true);
    for credential in [&ada, &key] {
        for api in [&cloud, &replica] {
            get(api, credential, "/v1/me").await.expect_problem(401, "invalid_token");
        }
    }
    login(&replica, "ada", PASSWORD).await.expect_problem(401, "invalid_credentials");
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    visit(&replica, "/v1/auth/refresh", refresh.clone()).await.expect_problem(401, "invalid_token");

    disable(false).await;
    // Sessions have ended for good; a program goes on.
    get(&cloud, &ada, "/v1/me").await.expect_problem(401, "invalid_token");
    visit(&replica, "/v1/auth/refresh", refresh).await.expect_problem(401, "invalid_token");
    get(&cloud, &key, "/v1/me").await.expect(200);
    login(&cloud, "ada", PASSWORD).await.expect(200);

    cloud.delete("/v1/users/ada").await.expect(204);
    get(&replica, &key, "/v1/me").await.expect_problem(401, "invalid_token");
}

#[tokio::test]
async fn nobody_locks_themselves_out() {
    let cloud = TestCloud::start().await;
    let disable = Some(json!({"disabled": true}));
    cloud.call(Method::PATCH, "/v1/users/admin", disable).await.expect_problem(403, "forbidden");
    cloud.delete("/v1/users/admin").await.expect_problem(403, "forbidden");
    cloud.post("/v1/users/admin/reset_password", json!({})).await.expect_problem(403, "forbidden");
    cloud.call(Method::PATCH, "/v1/users/admin", Some(json!({"disabled": false}))).await.expect(200);
    for action in ["iam:DeleteUser", "iam:ResetUserPassword"] {
        assert_eq!(recorded(&cloud, action).await, [("denied".to_owned(), Value::Null)], "{action}");
    }
    let other = cloud.user("other", true).await;
    call(&cloud, &other, Method::DELETE, "/v1/users/admin", Value::Null).await.expect(204);
}

#[tokio::test]
async fn users_look_after_themselves_and_after_nobody_else() {
    let cloud = TestCloud::start().await;
    let (ada, _bob) = (cloud.user("ada", false).await, cloud.user("bob", false).await);
    assert_eq!(get(&cloud, &ada, "/v1/users/ada").await.expect(200)["name"], "ada");
    get(&cloud, &ada, "/v1/users/bob").await.expect_problem(404, "not_found");
    get(&cloud, &ada, "/v1/users").await.expect_problem(403, "forbidden");
    for path in ["bob/totp", "bob/api_keys", "bob/reset_password"] {
        post(&cloud, &ada, &format!("/v1/users/{path}"), json!({})).await.expect_problem(404, "not_found");
    }
    // Administrators may do everything but be somebody else.
    for (path, body) in [
        ("bob/totp", json!({})),
        ("bob/totp/confirm", json!({"code": "123456"})),
        ("bob/recovery_codes", json!({"code": "123456"})),
        ("bob/api_keys", json!({})),
        ("bob/password", json!({"current_password": PASSWORD, "new_password": "battery staple"})),
    ] {
        cloud.post(&format!("/v1/users/{path}"), body).await.expect_problem(403, "forbidden");
    }
    let me = get(&cloud, &ada, "/v1/me").await.expect(200);
    assert_eq!((&me["name"], &me["kind"]), (&json!("ada"), &json!("user")));
    assert_eq!(me["credential"]["kind"], "session");
    assert_eq!(me["second_factor"], json!({"set_up": false}));
    assert_eq!((&me["groups"], &me["policies"][0]["via"]), (&json!([]), &json!("everyone")));
    assert_eq!(me["policies"].as_array().unwrap().len(), 1);
    let admin = cloud.get("/v1/me").await.expect(200);
    let policies = admin["policies"].as_array().unwrap();
    let administrator = policies.iter().find(|policy| policy["name"] == "administrator").unwrap();
    assert_eq!((&administrator["via"], &administrator["project"]), (&json!("principal"), &Value::Null));
}

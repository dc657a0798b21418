//! Where users are signed in.

use axum::http::Method;
use serde_json::{Value, json};

use super::{PASSWORD, bearer, call, get, login, visit};
use crate::testing::{TestCloud, request};

async fn sessions(cloud: &TestCloud, bearer: &str) -> Vec<Value> {
    let page = get(cloud, bearer, "/v1/users/ada/sessions").await.expect(200);
    page["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn sessions_are_listed_as_people_recognise_them() {
    let cloud = TestCloud::start().await;
    let ada = cloud.user("ada", false).await;
    let body = json!({"username": "ada", "password": PASSWORD}).to_string();
    let agent = [("user-agent", "Browser/1.0")];
    let sign_in = request(Method::POST, "/v1/auth/login", &agent, body);
    let tokens = cloud.send_from("198.51.100.7", sign_in).await.expect(200);
    cloud.pass(60);
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    let tokens = visit(&cloud, "/v1/auth/refresh", refresh).await.expect(200);

    let seen = sessions(&cloud, &bearer(&tokens)).await;
    assert_eq!(seen.len(), 2);
    assert_eq!((&seen[0]["current"], &seen[0]["refreshed_at"]), (&json!(false), &Value::Null));
    let mut expected = json!({
        "current": true, "source_address": "198.51.100.7", "user_agent": "Browser/1.0",
        "created_at": "2026-06-01T12:00:00Z", "refreshed_at": "2026-06-01T12:01:00Z",
        "expires_at": "2026-06-15T12:00:00Z",
    });
    expected["id"] = seen[1]["id"].clone();
    assert_eq!(seen[1], expected);
    assert_eq!(sessions(&cloud, &ada).await[0]["current"], true);
    // Those that have ended are not shown.
    cloud.pass(14 * 86400 - 61);
    let again = login(&cloud, "ada", PASSWORD).await.expect(200);
    assert_eq!(sessions(&cloud, &bearer(&again)).await.len(), 3);
    cloud.pass(1);
    assert_eq!(sessions(&cloud, &bearer(&again)).await.len(), 1);
}

#[tokio::test]
async fn a_session_that_is_revoked_is_out_at_the_next_request_on_every_replica() {
    let cloud = TestCloud::start().await;
    let replica = cloud.replica().await;
    let ada = cloud.user("ada", false).await;
    let thief = login(&cloud, "ada", PASSWORD).await.expect(200);
    get(&replica, &bearer(&thief), "/v1/me").await.expect(200);
    let id = sessions(&cloud, &ada).await[1]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/users/ada/sessions/{id}");
    call(&cloud, &ada, Method::DELETE, &path, Value::Null).await.expect(204);
    get(&replica, &bearer(&thief), "/v1/me").await.expect_problem(401, "invalid_token");
    let refresh = json!({"refresh_token": thief["refresh_token"]});
    visit(&replica, "/v1/auth/refresh", refresh).await.expect_problem(401, "invalid_token");
    get(&replica, &ada, "/v1/me").await.expect(200);
    call(&cloud, &ada, Method::DELETE, &path, Value::Null).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn another_users_session_is_not_there() {
    let cloud = TestCloud::start().await;
    let (ada, bob) = (cloud.user("ada", false).await, cloud.user("bob", false).await);
    let foreign = sessions(&cloud, &ada).await[0]["id"].as_str().unwrap().to_owned();
    for id in [foreign.as_str(), "0190a0a0-0000-7000-8000-000000000000", "x"] {
        let path = format!("/v1/users/bob/sessions/{id}");
        call(&cloud, &bob, Method::DELETE, &path, Value::Null).await.expect_problem(404, "not_found");
    }
    get(&cloud, &ada, "/v1/me").await.expect(200);
    get(&cloud, &bob, "/v1/users/ada/sessions").await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn signing_out_everywhere_spares_the_session_that_asks() {
    let cloud = TestCloud::start().await;
    let ada = cloud.user("ada", false).await;
    let others = [login(&cloud, "ada", PASSWORD).await, login(&cloud, "ada", PASSWORD).await];
    call(&cloud, &ada, Method::DELETE, "/v1/users/ada/sessions", Value::Null).await.expect(204);
    get(&cloud, &ada, "/v1/me").await.expect(200);
    for other in others {
        get(&cloud, &bearer(&other.expect(200)), "/v1/me").await.expect_problem(401, "invalid_token");
    }
    // For whoever else asks, there is nothing to spare.
    cloud.delete("/v1/users/ada/sessions").await.expect(204);
    get(&cloud, &ada, "/v1/me").await.expect_problem(401, "invalid_token");
    cloud.get("/v1/me").await.expect(200);
}

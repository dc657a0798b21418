//! Invitations, resets and changes of passwords.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use super::{PASSWORD, bearer, get, login, post, recorded, visit};
use crate::auth::store;
use crate::testing::{Answer, TestCloud};

const NEW: &str = "battery staple";

async fn redeem(cloud: &TestCloud, name: &str, code: &Value, password: &str) -> Answer {
    let body = json!({"username": name, "code": code, "new_password": password});
    visit(cloud, "/v1/auth/reset_password", body).await
}

#[tokio::test]
async fn an_invitation_is_shown_once_and_works_once() {
    let cloud = TestCloud::start().await;
    let invite = async || {
        let headers = [("idempotency-key", "invite")];
        let body = Some(json!({"name": "ada"}));
        cloud.call_with(Method::POST, "/v1/users", &headers, body).await.expect(201)
    };
    let made = invite().await;
    let code = &made["password_code"];
    assert_eq!(made["has_password"], false);
    assert_eq!(made["password_code_expires_at"], "2026-06-04T12:00:00Z");
    let again = invite().await;
    assert_eq!((&again["id"], &again["password_code"]), (&made["id"], &Value::Null));
    // Neither log nor store knows the code.
    let stored: Vec<String> = sqlx::query_scalar(
        "SELECT t::text FROM audit_records t UNION ALL SELECT t::text FROM password_codes t
         UNION ALL SELECT convert_from(body, 'UTF8') FROM idempotency_keys",
    )
    .fetch_all(&cloud.app.pool)
    .await
    .unwrap();
    assert!(stored.len() > 3 && !stored.iter().any(|row| row.contains(code.as_str().unwrap())));

    login(&cloud, "ada", "").await.expect_problem(401, "invalid_credentials");
    redeem(&cloud, "ada", code, "short").await.expect_problem(422, "validation_failed");
    redeem(&cloud, "ada", code, PASSWORD).await.expect(204);
    redeem(&cloud, "ada", code, NEW).await.expect_problem(401, "invalid_password_code");
    login(&cloud, "ada", PASSWORD).await.expect(200);
    let ada = cloud.get("/v1/users/ada").await.expect(200);
    assert_eq!((&ada["has_password"], &ada["password_code_expires_at"]), (&json!(true), &Value::Null));
}

#[tokio::test]
async fn every_wrong_code_looks_the_same_and_is_recorded() {
    let cloud = TestCloud::start().await;
    let code = cloud.post("/v1/users", json!({"name": "ada"})).await.expect(201)["password_code"].clone();
    cloud.post("/v1/users", json!({"name": "bob"})).await.expect(201);
    let mut answers = Vec::new();
    for (name, code) in
        [("ada", json!("wrong")), ("nobody", code.clone()), ("bob", code.clone()), ("Ada\0", code.clone())]
    {
        let mut problem = redeem(&cloud, name, &code, NEW).await.expect_problem(401, "invalid_password_code");
        problem["request_id"] = Value::Null;
        answers.push(problem);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(answers[0]["title"], "The code is wrong or has expired");
    let failed = ("failed".to_owned(), json!({"code": "invalid_password_code"}));
    assert_eq!(recorded(&cloud, "iam:RedeemPasswordCode").await, vec![failed; 4]);

    cloud.call(Method::PATCH, "/v1/users/ada", Some(json!({"disabled": true}))).await.expect(200);
    redeem(&cloud, "ada", &code, NEW).await.expect_problem(401, "invalid_password_code");
    cloud.call(Method::PATCH, "/v1/users/ada", Some(json!({"disabled": false}))).await.expect(200);
    cloud.pass(72 * 3600);
    redeem(&cloud, "ada", &code, NEW).await.expect_problem(401, "invalid_password_code");
    store::forget_old(&mut cloud.app.pool.acquire().await.unwrap(), cloud.app.clock.now()).await.unwrap();
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM password_codes").fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_code_is_good_until_its_last_second() {
    let cloud = TestCloud::start().await;
    let code = cloud.post("/v1/users", json!({"name": "ada"})).await.expect(201)["password_code"].clone();
    cloud.pass(72 * 3600 - 1);
    redeem(&cloud, "ada", &code, NEW).await.expect(204);
}

#[tokio::test]
async fn of_two_uses_of_a_code_at_once_one_wins() {
    let cloud = TestCloud::start().await;
    let code = cloud.post("/v1/users", json!({"name": "ada"})).await.expect(201)["password_code"].clone();
    let passwords: Vec<String> = (0..4).map(|number| format!("{NEW} {number}")).collect();
    let uses = passwords.iter().map(|password| redeem(&cloud, "ada", &code, password));
    let answers = futures_util::future::join_all(uses).await;
    let won: Vec<usize> = (0..4).filter(|at| answers[*at].status == 204).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    login(&cloud, "ada", &passwords[won[0]]).await.expect(200);
}

#[tokio::test]
async fn a_reset_takes_password_and_sessions_at_once() {
    let cloud = TestCloud::start().await;
    let replica = cloud.replica().await;
    let ada = cloud.user("ada", false).await;
    let first = cloud.post("/v1/users/ada/reset_password", json!({})).await.expect(200);
    let reset = cloud.post("/v1/users/ada/reset_password", json!({})).await.expect(200);
    get(&replica, &ada, "/v1/me").await.expect_problem(401, "invalid_token");
    login(&replica, "ada", PASSWORD).await.expect_problem(401, "invalid_credentials");
    // The newest code alone counts.
    redeem(&cloud, "ada", &first["password_code"], NEW).await.expect_problem(401, "invalid_password_code");
    redeem(&cloud, "ada", &reset["password_code"], NEW).await.expect(204);
    login(&cloud, "ada", NEW).await.expect(200);
    cloud.post("/v1/users/nobody/reset_password", json!({})).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn changing_the_password_needs_the_current_one_and_ends_the_other_sessions() {
    let cloud = TestCloud::start().await;
    let (ada, other) = (cloud.user("ada", false).await, login(&cloud, "ada", PASSWORD).await.expect(200));
    let change = async |credential: &str, current: &str, new: &str| {
        let body = json!({"current_password": current, "new_password": new});
        post(&cloud, credential, "/v1/users/ada/password", body).await
    };
    let wrong = change(&ada, "wrong", NEW).await.expect_problem(422, "validation_failed");
    assert_eq!(wrong["errors"][0]["pointer"], "/current_password");
    let short = change(&ada, PASSWORD, "short").await.expect_problem(422, "validation_failed");
    assert_eq!(short["errors"][0]["pointer"], "/new_password");
    get(&cloud, &bearer(&other), "/v1/me").await.expect(200);

    let key = post(&cloud, &ada, "/v1/users/ada/api_keys", json!({})).await.expect(201);
    let key = format!("Bearer {}", key["key"].as_str().unwrap());
    change(&key, PASSWORD, NEW).await.expect_problem(403, "forbidden");

    change(&ada, PASSWORD, NEW).await.expect(204);
    get(&cloud, &ada, "/v1/me").await.expect(200);
    get(&cloud, &bearer(&other), "/v1/me").await.expect_problem(401, "invalid_token");
    login(&cloud, "ada", PASSWORD).await.expect_problem(401, "invalid_credentials");
    login(&cloud, "ada", NEW).await.expect(200);
    let outcomes: Vec<String> =
        recorded(&cloud, "iam:ChangeUserPassword").await.into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["failed", "denied", "allowed"]);
}

#[tokio::test]
async fn guesses_at_the_current_password_wait_like_sign_ins() {
    let cloud = TestCloud::start().await;
    let ada = cloud.user("ada", false).await;
    let change = async |query: &str, current: &str| {
        let body = json!({"current_password": current, "new_password": NEW});
        post(&cloud, &ada, &format!("/v1/users/ada/password{query}"), body).await
    };
    // A dry run tells as much as any other guess.
    for query in ["", "?dry_run=true", "", "?dry_run=true"] {
        change(query, "guess").await.expect_problem(422, "validation_failed");
    }
    for query in ["", "?dry_run=true"] {
        for current in ["guess", PASSWORD] {
            let delayed = change(query, current).await;
            delayed.expect_problem(429, "sign_in_delayed");
            assert_eq!(delayed.headers["retry-after"], "1");
        }
    }
    login(&cloud, "ada", PASSWORD).await.expect_problem(429, "sign_in_delayed");
    // Four guesses, and of the refusals the first.
    let recorded = recorded(&cloud, "iam:ChangeUserPassword").await;
    assert_eq!(recorded.len(), 5);
    assert!(recorded.iter().all(|(outcome, _)| outcome == "failed"), "{recorded:?}");

    cloud.pass(1);
    change("", "guess").await.expect_problem(422, "validation_failed");
    assert_eq!(change("", PASSWORD).await.headers["retry-after"], "2");
    cloud.pass(2);
    // The right password is no failure, whether it is changed or not.
    for _ in 0..6 {
        change("?dry_run=true", PASSWORD).await.expect(200);
    }
    change("", PASSWORD).await.expect(204);
    login(&cloud, "ada", NEW).await.expect(200);
}

#[tokio::test]
async fn a_repeated_request_with_another_password_is_another_request() {
    let cloud = TestCloud::start().await;
    let make = async |password: &str| {
        let body = Some(json!({"name": "ada", "password": password}));
        cloud.call_with(Method::POST, "/v1/users", &[("idempotency-key", "k")], body).await
    };
    let made = make(PASSWORD).await.expect(201);
    let again = make(PASSWORD).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.expect(201)["id"], made["id"]);
    make(NEW).await.expect_problem(422, "idempotency_key_reused");
    login(&cloud, "ada", PASSWORD).await.expect(200);
}

/// What is stored of a request, in a cloud of its own.
async fn stored_hash(path: &str, body: Value) -> Vec<u8> {
    let cloud = TestCloud::start().await;
    cloud.call_with(Method::POST, path, &[("idempotency-key", "k")], Some(body)).await.expect(201);
    sqlx::query_scalar("SELECT request_hash FROM idempotency_keys").fetch_one(&cloud.app.pool).await.unwrap()
}

#[tokio::test]
async fn passwords_cannot_be_guessed_from_what_is_stored_of_a_request() {
    let (user, group) = (json!({"name": "ada", "password": PASSWORD}), json!({"name": "all"}));
    // Without secrets, anybody can compute it; with them, only who has the key of this cloud.
    assert_eq!(stored_hash("/v1/groups", group.clone()).await, stored_hash("/v1/groups", group).await);
    assert_ne!(stored_hash("/v1/users", user.clone()).await, stored_hash("/v1/users", user).await);
}

#[tokio::test]
async fn nobody_who_may_not_make_users_has_a_password_hashed() {
    let cloud = TestCloud::start().await;
    let bob = cloud.user("bob", false).await;
    let key = "7b1c2f0e-7d5a-4a53-9a63-0d5c8f6e1a11";
    let admin = format!("Bearer {}", cloud.token().await);
    let make = async |bearer: &str, name: &str| {
        let headers = [("authorization", bearer), ("idempotency-key", key)];
        let body = json!({"name": name, "password": PASSWORD});
        cloud.call_with(Method::POST, "/v1/users", &headers, Some(body)).await
    };
    let made = make(&admin, "ada").await.expect(201);
    let occupied = cloud.app.passwords.occupy().await;
    let soon = Duration::from_secs(20);
    let refused = tokio::time::timeout(soon, make(&bob, "eve")).await.expect("an answer without a hash");
    refused.expect_problem(403, "forbidden");
    // Nor for a repetition.
    let again = tokio::time::timeout(soon, make(&admin, "ada")).await.expect("an answer without a hash");
    assert_eq!(again.expect(201)["id"], made["id"]);
    drop(occupied);
    let refusals = recorded(&cloud, "iam:CreateUser").await;
    assert_eq!(refusals.iter().filter(|(outcome, _)| outcome == "denied").count(), 1, "{refusals:?}");
}

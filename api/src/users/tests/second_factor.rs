//! The second factor, from its secret to its loss.

use axum::http::Method;
use serde_json::{Value, json};
use totp_rs::{Algorithm, Builder, Secret};

use super::{PASSWORD, bearer, call, get, login, post, recorded, visit};
use crate::testing::{Answer, TestCloud};

/// What an app shows now, or so many steps later.
pub(super) fn code(cloud: &TestCloud, secret: &str, steps: i64) -> String {
    let app = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_secret(Secret::try_from_base32(secret).unwrap())
        .build()
        .unwrap();
    let now = cloud.app.clock.now().unix_timestamp() + 30 * steps;
    app.generate(u64::try_from(now).unwrap()).to_string()
}

/// A code that is none of those that count now.
fn wrong_code(cloud: &TestCloud, secret: &str) -> String {
    let near: Vec<String> = (-1..=1).map(|steps| code(cloud, secret, steps)).collect();
    (0..).map(|number| format!("{number:06}")).find(|code| !near.contains(code)).unwrap()
}

pub(super) async fn sign_in(cloud: &TestCloud, otp: &str) -> Answer {
    visit(cloud, "/v1/auth/login", json!({"username": "ada", "password": PASSWORD, "otp": otp})).await
}

pub(super) struct Enrolled {
    pub bearer: String,
    pub secret: String,
    pub recovery_codes: Vec<String>,
}

/// Ada, with a second factor that was confirmed a step ago.
pub(super) async fn enrolled(cloud: &TestCloud) -> Enrolled {
    let bearer = cloud.user("ada", false).await;
    let enrolment = post(cloud, &bearer, "/v1/users/ada/totp", Value::Null).await.expect(201);
    let secret = enrolment["secret"].as_str().unwrap().to_owned();
    let body = json!({"code": code(cloud, &secret, 0)});
    let confirmed = post(cloud, &bearer, "/v1/users/ada/totp/confirm", body).await.expect(200);
    let recovery_codes = confirmed["recovery_codes"].as_array().unwrap();
    let recovery_codes = recovery_codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
    cloud.pass(30);
    Enrolled { bearer, secret, recovery_codes }
}

#[tokio::test]
async fn a_second_factor_counts_from_its_first_code_on() {
    let cloud = TestCloud::start().await;
    let ada = cloud.user("ada", false).await;
    let enrol = async || post(&cloud, &ada, "/v1/users/ada/totp", Value::Null).await;
    let first = enrol().await.expect(201);
    let second = enrol().await.expect(201);
    assert_ne!(first["secret"], second["secret"]);
    let secret = second["secret"].as_str().unwrap();
    assert!(second["url"].as_str().unwrap().starts_with("otpauth://totp/Cumulo:ada?secret="));
    // Nothing has changed yet.
    login(&cloud, "ada", PASSWORD).await.expect(200);

    let confirm =
        async |code: &str| post(&cloud, &ada, "/v1/users/ada/totp/confirm", json!({"code": code})).await;
    let wrong = confirm(&code(&cloud, first["secret"].as_str().unwrap(), 0)).await;
    assert_eq!(wrong.expect_problem(422, "validation_failed")["errors"][0]["pointer"], "/code");
    assert_eq!(get(&cloud, &ada, "/v1/me").await.expect(200)["second_factor"], json!({"set_up": false}));
    let codes = confirm(&code(&cloud, secret, 0)).await.expect(200);
    assert_eq!(codes["recovery_codes"].as_array().unwrap().len(), 10);
    let me = get(&cloud, &ada, "/v1/me").await.expect(200);
    assert_eq!(me["second_factor"], json!({"set_up": true, "shown_at": "2026-06-01T12:00:00Z"}));

    enrol().await.expect_problem(409, "wrong_state");
    confirm(&code(&cloud, secret, 1)).await.expect_problem(409, "wrong_state");
    assert_eq!(cloud.get("/v1/users/ada").await.expect(200)["has_second_factor"], true);
    // Secrets are in no log and in no stored answer.
    let stored: Vec<String> =
        sqlx::query_scalar("SELECT t::text FROM audit_records t").fetch_all(&cloud.app.pool).await.unwrap();
    assert!(!stored.iter().any(|row| row.contains(secret)));
    assert!(!stored.iter().any(|row| row.contains(codes["recovery_codes"][0].as_str().unwrap())));
}

#[tokio::test]
async fn signing_in_needs_a_code_and_each_works_once() {
    let cloud = TestCloud::start().await;
    let ada = enrolled(&cloud).await;
    let required = login(&cloud, "ada", PASSWORD).await.expect_problem(401, "second_factor_required");
    assert!(required["detail"].as_str().unwrap().contains("`otp`"), "{required}");
    // Whoever does not know the password learns nothing of a second factor.
    let wrong = json!({"username": "ada", "password": "wrong", "otp": code(&cloud, &ada.secret, 0)});
    visit(&cloud, "/v1/auth/login", wrong).await.expect_problem(401, "invalid_credentials");
    login(&cloud, "ada", "wrong").await.expect_problem(401, "invalid_credentials");

    sign_in(&cloud, &wrong_code(&cloud, &ada.secret)).await.expect_problem(401, "invalid_second_factor");
    cloud.pass(1);
    // That of the confirmation, a step ago.
    sign_in(&cloud, &code(&cloud, &ada.secret, -1)).await.expect_problem(401, "invalid_second_factor");
    cloud.pass(2);
    let now = code(&cloud, &ada.secret, 0);
    let tokens = sign_in(&cloud, &now).await.expect(200);
    sign_in(&cloud, &now).await.expect_problem(401, "invalid_second_factor");
    let me = get(&cloud, &bearer(&tokens), "/v1/me").await.expect(200);
    assert_eq!(me["second_factor"]["shown_at"], "2026-06-01T12:00:33Z");

    // It stays shown for as long as the session lives.
    cloud.pass(3600);
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    let tokens = visit(&cloud, "/v1/auth/refresh", refresh).await.expect(200);
    let me = get(&cloud, &bearer(&tokens), "/v1/me").await.expect(200);
    assert_eq!(me["second_factor"]["shown_at"], "2026-06-01T12:00:33Z");
    let codes: Vec<Value> = recorded(&cloud, "iam:SignIn")
        .await
        .into_iter()
        .filter(|(outcome, _)| outcome == "failed")
        .map(|(_, after)| after["code"].clone())
        .collect();
    let (required, wrong) = ("second_factor_required", "invalid_second_factor");
    assert_eq!(codes, [required, "invalid_credentials", "invalid_credentials", wrong, wrong, wrong]);
}

#[tokio::test]
async fn of_many_uses_of_a_code_at_once_one_wins() {
    let cloud = TestCloud::start().await;
    let ada = enrolled(&cloud).await;
    for otp in [code(&cloud, &ada.secret, 0), ada.recovery_codes[0].clone()] {
        let uses = futures_util::future::join_all((0..4).map(|_| sign_in(&cloud, &otp))).await;
        let won = uses.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(won, 1, "{uses:?}");
    }
}

#[tokio::test]
async fn a_recovery_code_replaces_the_app_once() {
    let cloud = TestCloud::start().await;
    let ada = enrolled(&cloud).await;
    let [first, second] = [&ada.recovery_codes[0], &ada.recovery_codes[1]];
    sign_in(&cloud, first).await.expect(200);
    sign_in(&cloud, first).await.expect_problem(401, "invalid_second_factor");
    let typed = second.to_uppercase().replace('-', " ");
    let tokens = sign_in(&cloud, &typed).await.expect(200);

    let renew = async |code: &str| {
        post(&cloud, &bearer(&tokens), "/v1/users/ada/recovery_codes", json!({"code": code})).await
    };
    renew(first).await.expect_problem(422, "validation_failed");
    let renewed = renew(&ada.recovery_codes[2]).await.expect(200);
    sign_in(&cloud, &ada.recovery_codes[3]).await.expect_problem(401, "invalid_second_factor");
    sign_in(&cloud, renewed["recovery_codes"][0].as_str().unwrap()).await.expect(200);
}

#[tokio::test]
async fn guessing_ends_after_five_wrong_codes_but_recovery_codes_open() {
    let cloud = TestCloud::start().await;
    let ada = enrolled(&cloud).await;
    let wrong = wrong_code(&cloud, &ada.secret);
    // Also where it is only tried, and by somebody who is signed in.
    for number in 0..5 {
        if number % 2 == 0 {
            sign_in(&cloud, &wrong).await.expect_problem(401, "invalid_second_factor");
        } else {
            let body = json!({"code": wrong});
            let path = "/v1/users/ada/totp?dry_run=true";
            call(&cloud, &ada.bearer, Method::DELETE, path, body)
                .await
                .expect_problem(422, "validation_failed");
        }
    }
    let now = || code(&cloud, &ada.secret, 0);
    let closed = sign_in(&cloud, &now()).await;
    let problem = closed.expect_problem(429, "sign_in_delayed");
    assert!(problem["detail"].as_str().unwrap().contains("from 2026-06-01T12:15:30Z on"), "{problem}");
    assert_eq!(closed.headers["retry-after"], "900");
    // The same for who is signed in, and written down no more.
    let before = recorded(&cloud, "iam:RemoveUserTotp").await.len();
    for body in [json!({"code": now()}), json!({"code": wrong})] {
        let closed = call(&cloud, &ada.bearer, Method::DELETE, "/v1/users/ada/totp", body.clone()).await;
        closed.expect_problem(429, "sign_in_delayed");
        let closed = post(&cloud, &ada.bearer, "/v1/users/ada/recovery_codes", body).await;
        closed.expect_problem(429, "sign_in_delayed");
        assert_eq!(closed.headers["retry-after"], "900");
    }
    assert_eq!(recorded(&cloud, "iam:RemoveUserTotp").await.len(), before);
    cloud.pass(1);
    sign_in(&cloud, &ada.recovery_codes[0]).await.expect(200);
    cloud.pass(14 * 60);
    let closed = sign_in(&cloud, &now()).await;
    closed.expect_problem(429, "sign_in_delayed");
    assert_eq!(closed.headers["retry-after"], "59");
    cloud.pass(60);
    // Another wrong one closes it again.
    sign_in(&cloud, &wrong_code(&cloud, &ada.secret)).await.expect_problem(401, "invalid_second_factor");
    sign_in(&cloud, &now()).await.expect_problem(429, "sign_in_delayed");
    cloud.pass(15 * 60);
    sign_in(&cloud, &code(&cloud, &ada.secret, 0)).await.expect(200);
    cloud.pass(30);
    // A right one begins the count anew.
    sign_in(&cloud, &wrong_code(&cloud, &ada.secret)).await.expect_problem(401, "invalid_second_factor");
    sign_in(&cloud, &code(&cloud, &ada.secret, 0)).await.expect(200);
}

#[tokio::test]
async fn no_code_is_no_guess() {
    let cloud = TestCloud::start().await;
    let ada = enrolled(&cloud).await;
    for _ in 0..8 {
        login(&cloud, "ada", PASSWORD).await.expect_problem(401, "second_factor_required");
        sign_in(&cloud, " ").await.expect_problem(401, "second_factor_required");
        for body in [Value::Null, json!({}), json!({"code": ""})] {
            let remove = call(&cloud, &ada.bearer, Method::DELETE, "/v1/users/ada/totp", body).await;
            let problem = remove.expect_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], "/code");
        }
        for body in [json!({}), json!({"code": ""})] {
            let renew = post(&cloud, &ada.bearer, "/v1/users/ada/recovery_codes", body).await;
            let problem = renew.expect_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], "/code");
        }
    }
    sign_in(&cloud, &code(&cloud, &ada.secret, 0)).await.expect(200);
    // But it makes no wait shorter either.
    for _ in 0..4 {
        sign_in(&cloud, &wrong_code(&cloud, &ada.secret)).await.expect_problem(401, "invalid_second_factor");
    }
    login(&cloud, "ada", PASSWORD).await.expect_problem(429, "sign_in_delayed");
    cloud.pass(1);
    login(&cloud, "ada", PASSWORD).await.expect_problem(401, "second_factor_required");
    sign_in(&cloud, &wrong_code(&cloud, &ada.secret)).await.expect_problem(401, "invalid_second_factor");
    let delayed = login(&cloud, "ada", PASSWORD).await;
    delayed.expect_problem(429, "sign_in_delayed");
    assert_eq!(delayed.headers["retry-after"], "2");
}

#[tokio::test]
async fn the_second_factor_cannot_be_removed_without_itself() {
    let cloud = TestCloud::start().await;
    let ada = enrolled(&cloud).await;
    let remove = async |bearer: &str, body: Value| {
        call(&cloud, bearer, Method::DELETE, "/v1/users/ada/totp", body).await
    };
    for body in [Value::Null, json!({}), json!({"code": wrong_code(&cloud, &ada.secret)})] {
        let problem = remove(&ada.bearer, body).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/code");
    }
    let key = post(&cloud, &ada.bearer, "/v1/users/ada/api_keys", json!({})).await.expect(201);
    let key = format!("Bearer {}", key["key"].as_str().unwrap());
    remove(&key, json!({"code": ada.recovery_codes[0]})).await.expect_problem(403, "forbidden");

    remove(&ada.bearer, json!({"code": code(&cloud, &ada.secret, 0)})).await.expect(204);
    let me = get(&cloud, &ada.bearer, "/v1/me").await.expect(200);
    assert_eq!(me["second_factor"], json!({"set_up": false}));
    login(&cloud, "ada", PASSWORD).await.expect(200);
    remove(&ada.bearer, json!({})).await.expect_problem(409, "wrong_state");
}

#[tokio::test]
async fn an_administrator_removes_a_lost_second_factor_and_signs_the_user_out() {
    let cloud = TestCloud::start().await;
    let ada = enrolled(&cloud).await;
    let stranger = cloud.user("stranger", false).await;
    let path = "/v1/users/ada/totp";
    call(&cloud, &stranger, Method::DELETE, path, Value::Null).await.expect_problem(404, "not_found");
    cloud.delete(path).await.expect(204);
    get(&cloud, &ada.bearer, "/v1/me").await.expect_problem(401, "invalid_token");
    login(&cloud, "ada", PASSWORD).await.expect(200);
}

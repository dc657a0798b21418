//! Passwords that somebody else knows, and what is asked of whoever signs in with one.

use axum::http::Method;
use serde_json::{Value, json};

use super::second_factor::{code, enrolled, sign_in};
use super::{PASSWORD, bearer, call, get, login, post, recorded, visit};
use crate::testing::{Answer, TestCloud};

const NEW: &str = "battery staple";
const CODE: &str = "password_change_required";

async fn change(cloud: &TestCloud, bearer: &str, new: &str) -> Answer {
    let body = json!({"current_password": PASSWORD, "new_password": new});
    post(cloud, bearer, "/v1/users/ada/password", body).await
}

async fn require(cloud: &TestCloud, required: bool) -> Answer {
    cloud.call(Method::PATCH, "/v1/users/ada", Some(json!({CODE: required}))).await
}

#[tokio::test]
async fn a_password_by_an_administrator_is_good_for_choosing_another_one() {
    let cloud = TestCloud::start().await;
    let made = cloud.post("/v1/users", json!({"name": "ada", "password": PASSWORD})).await.expect(201);
    assert_eq!((&made["has_password"], &made[CODE]), (&json!(true), &json!(true)));
    let (tokens, other) =
        (login(&cloud, "ada", PASSWORD).await.expect(200), login(&cloud, "ada", PASSWORD).await.expect(200));
    assert_eq!(tokens[CODE], true);
    let ada = bearer(&tokens);
    assert_eq!(get(&cloud, &ada, "/v1/me").await.expect(200)[CODE], true);
    let refused = get(&cloud, &ada, "/v1/projects").await.expect_problem(403, CODE);
    let detail = refused["detail"].as_str().unwrap();
    for way in ["console", "`cumulo login`", "POST /v1/users/ada/password"] {
        assert!(detail.contains(way), "{detail}");
    }

    // New tokens are those of the same session.
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    let tokens = visit(&cloud, "/v1/auth/refresh", refresh).await.expect(200);
    assert_eq!(tokens[CODE], true);
    let ada = bearer(&tokens);
    get(&cloud, &ada, "/v1/users/ada").await.expect_problem(403, CODE);

    let same = change(&cloud, &ada, PASSWORD).await.expect_problem(422, "validation_failed");
    assert_eq!(
        (&same["errors"][0]["pointer"], &same["errors"][0]["code"]),
        (&json!("/new_password"), &json!("unchanged"))
    );
    change(&cloud, &ada, "short").await.expect_problem(422, "validation_failed");
    get(&cloud, &ada, "/v1/projects").await.expect_problem(403, CODE);
    let replica = cloud.replica().await;
    change(&cloud, &ada, NEW).await.expect(204);
    get(&replica, &ada, "/v1/projects").await.expect(200);
    assert_eq!(get(&replica, &ada, "/v1/me").await.expect(200)[CODE], false);
    get(&replica, &bearer(&other), "/v1/me").await.expect_problem(401, "invalid_token");
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    assert_eq!(visit(&cloud, "/v1/auth/refresh", refresh).await.expect(200)[CODE], false);
    assert_eq!(login(&cloud, "ada", NEW).await.expect(200)[CODE], false);
    assert_eq!(cloud.get("/v1/users/ada").await.expect(200)[CODE], false);
    let outcomes: Vec<_> = recorded(&cloud, "iam:ChangeUserPassword").await;
    assert_eq!(outcomes, [("allowed".to_owned(), Value::Null)]);
}

#[tokio::test]
async fn whoever_does_not_want_a_new_password_signs_out() {
    let cloud = TestCloud::start().await;
    cloud.post("/v1/users", json!({"name": "ada", "password": PASSWORD})).await.expect(201);
    let tokens = login(&cloud, "ada", PASSWORD).await.expect(200);
    let out = json!({"refresh_token": tokens["refresh_token"]});
    visit(&cloud, "/v1/auth/logout", out).await.expect(204);
    get(&cloud, &bearer(&tokens), "/v1/me").await.expect_problem(401, "invalid_token");
    assert_eq!(login(&cloud, "ada", PASSWORD).await.expect(200)[CODE], true);
}

#[tokio::test]
async fn an_administrator_decides_whether_a_password_stays() {
    let cloud = TestCloud::start().await;
    let stays = json!({"name": "ada", "password": PASSWORD, CODE: false});
    assert_eq!(cloud.post("/v1/users", stays).await.expect(201)[CODE], false);
    let tokens = login(&cloud, "ada", PASSWORD).await.expect(200);
    assert_eq!(tokens[CODE], false);
    let ada = bearer(&tokens);
    get(&cloud, &ada, "/v1/projects").await.expect(200);
    // Where somebody has signed in already, it counts at once.
    let before = cloud.get("/v1/users/ada").await.headers["etag"].clone();
    let changed = require(&cloud, true).await;
    assert_eq!(changed.expect(200)[CODE], true);
    assert_ne!(changed.headers["etag"], before);
    get(&cloud, &ada, "/v1/projects").await.expect_problem(403, CODE);
    // What is not said stays.
    cloud.call(Method::PATCH, "/v1/users/ada", Some(json!({"description": "x"}))).await.expect(200);
    get(&cloud, &ada, "/v1/projects").await.expect_problem(403, CODE);
    require(&cloud, false).await.expect(200);
    get(&cloud, &ada, "/v1/projects").await.expect(200);

    // Others than administrators decide nothing.
    call(&cloud, &ada, Method::PATCH, "/v1/users/ada", json!({CODE: true}))
        .await
        .expect_problem(403, "forbidden");
    let (_, after) = &recorded(&cloud, "iam:UpdateUser").await[0];
    assert_eq!(after[CODE], true);
}

#[tokio::test]
async fn a_one_time_code_leaves_nothing_to_be_changed() {
    let cloud = TestCloud::start().await;
    for given in [true, false] {
        let body = json!({"name": "ada", CODE: given});
        let problem = cloud.post("/v1/users", body).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/password_change_required");
    }
    let made = cloud.post("/v1/users", json!({"name": "ada"})).await.expect(201);
    assert_eq!(made[CODE], false);
    require(&cloud, true).await.expect_problem(409, "wrong_state");
    require(&cloud, false).await.expect(200);
    let null = Some(json!({CODE: null}));
    cloud.call(Method::PATCH, "/v1/users/ada", null).await.expect_problem(422, "validation_failed");
    let redeem = async |code: &Value| {
        let body = json!({"username": "ada", "code": code, "new_password": PASSWORD});
        visit(&cloud, "/v1/auth/reset_password", body).await.expect(204);
        login(&cloud, "ada", PASSWORD).await.expect(200)
    };
    assert_eq!(redeem(&made["password_code"]).await[CODE], false);
    require(&cloud, true).await.expect(200);
    let reset = cloud.post("/v1/users/ada/reset_password", json!({})).await.expect(200);
    assert_eq!(cloud.get("/v1/users/ada").await.expect(200)[CODE], false);
    assert_eq!(redeem(&reset["password_code"]).await[CODE], false);
}

#[tokio::test]
async fn api_keys_go_on_working_and_are_no_way_around() {
    let cloud = TestCloud::start().await;
    let ada = cloud.user("ada", true).await;
    let key = post(&cloud, &ada, "/v1/users/ada/api_keys", json!({})).await.expect(201);
    let key = format!("Bearer {}", key["key"].as_str().unwrap());
    require(&cloud, true).await.expect(200);
    get(&cloud, &ada, "/v1/users").await.expect_problem(403, CODE);
    post(&cloud, &ada, "/v1/users/ada/api_keys", json!({})).await.expect_problem(403, CODE);
    get(&cloud, &key, "/v1/users").await.expect(200);
    assert_eq!(get(&cloud, &key, "/v1/me").await.expect(200)[CODE], false);
    // A program that somebody left behind does not choose a password, nor does it say that none is needed.
    change(&cloud, &key, NEW).await.expect_problem(403, "forbidden");
    let lift = json!({CODE: false});
    call(&cloud, &key, Method::PATCH, "/v1/users/ada", lift.clone()).await.expect_problem(403, "forbidden");
    call(&cloud, &ada, Method::PATCH, "/v1/users/ada", lift).await.expect_problem(403, CODE);
    get(&cloud, &ada, "/v1/users").await.expect_problem(403, CODE);
    change(&cloud, &ada, NEW).await.expect(204);
    get(&cloud, &ada, "/v1/users").await.expect(200);
}

#[tokio::test]
async fn a_second_factor_is_asked_for_first() {
    let cloud = TestCloud::start().await;
    let ada = enrolled(&cloud).await;
    require(&cloud, true).await.expect(200);
    login(&cloud, "ada", PASSWORD).await.expect_problem(401, "second_factor_required");
    let tokens = sign_in(&cloud, &code(&cloud, &ada.secret, 0)).await.expect(200);
    assert_eq!(tokens[CODE], true);
    get(&cloud, &bearer(&tokens), "/v1/projects").await.expect_problem(403, CODE);
    // It stays as it is: what comes with a stolen password takes no second factor away.
    let remove = json!({"code": ada.recovery_codes[0]});
    let removed = call(&cloud, &bearer(&tokens), Method::DELETE, "/v1/users/ada/totp", remove).await;
    removed.expect_problem(403, CODE);
    change(&cloud, &bearer(&tokens), NEW).await.expect(204);
    let me = get(&cloud, &bearer(&tokens), "/v1/me").await.expect(200);
    assert_eq!(me["second_factor"]["set_up"], true);
    get(&cloud, &ada.bearer, "/v1/me").await.expect_problem(401, "invalid_token");
}

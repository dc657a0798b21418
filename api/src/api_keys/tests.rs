//! API keys through the router.

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::{Answer, TestCloud};

const KEYS: &str = "/v1/projects/demo/service_accounts/robot/api_keys";

/// A cloud with a service account that is an administrator.
async fn cloud_with_robot() -> TestCloud {
    let cloud = TestCloud::start().await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    let robot = cloud.post("/v1/projects/demo/service_accounts", json!({"name": "robot"})).await.expect(201);
    sqlx::query(
        "INSERT INTO policy_attachments (id, policy_id, principal_id, created_at)
         SELECT gen_random_uuid(), id, $1::uuid, now() FROM policies WHERE name = 'administrator'",
    )
    .bind(robot["id"].as_str().unwrap())
    .execute(&cloud.app.pool)
    .await
    .unwrap();
    cloud
}

async fn with_key(cloud: &TestCloud, key: &Value, method: Method, path: &str, body: Value) -> Answer {
    let bearer = format!("Bearer {}", key["key"].as_str().unwrap());
    let body = (!body.is_null()).then_some(body);
    cloud.call_with(method, path, &[("authorization", &bearer)], body).await
}

async fn me(cloud: &TestCloud, key: &Value) -> Answer {
    with_key(cloud, key, Method::GET, "/v1/me", Value::Null).await
}

#[tokio::test]
async fn a_key_is_shown_once_used_and_revoked() {
    let cloud = cloud_with_robot().await;
    let replica = cloud.replica().await;
    let make = async || {
        let body = Some(json!({"description": "ci"}));
        cloud.call_with(Method::POST, KEYS, &[("idempotency-key", "k")], body).await.expect(201)
    };
    let key = make().await;
    let secret = key["key"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("cumulo_key_") && secret.starts_with(key["hint"].as_str().unwrap()));
    assert_eq!(make().await["key"], Value::Null);
    let stored: Vec<String> = sqlx::query_scalar(
        "SELECT t::text FROM audit_records t UNION ALL SELECT t::text FROM api_keys t
         UNION ALL SELECT convert_from(body, 'UTF8') FROM idempotency_keys",
    )
    .fetch_all(&cloud.app.pool)
    .await
    .unwrap();
    assert!(stored.len() > 3 && !stored.iter().any(|row| row.contains(&secret)));

    with_key(&replica, &key, Method::POST, "/v1/projects", json!({"name": "made"})).await.expect(201);
    let (kind, actor): (String, String) = sqlx::query_as(
        "SELECT credential_kind, principal_name FROM audit_records WHERE action = 'project:CreateProject'
         AND after ->> 'name' = 'made'",
    )
    .fetch_one(&cloud.app.pool)
    .await
    .unwrap();
    assert_eq!((kind.as_str(), actor.as_str()), ("api_key", "robot"));

    replica.app.key_uses.flush(&cloud.app.pool).await.unwrap();
    let listed = cloud.get(KEYS).await.expect(200);
    let [one] = &listed["items"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!((&one["id"], &one["description"]), (&key["id"], &json!("ci")));
    assert_eq!((&one["last_used_at"], &one["key"]), (&json!("2026-06-01T12:00:00Z"), &Value::Null));
    assert_eq!((&one["expires_at"], &one["policy"]), (&Value::Null, &Value::Null));

    let path = format!("{KEYS}/{}", key["id"].as_str().unwrap());
    cloud.delete(&path).await.expect(204);
    me(&replica, &key).await.expect_problem(401, "invalid_token");
    cloud.delete(&path).await.expect_problem(404, "not_found");
    assert_eq!(cloud.get(KEYS).await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn a_key_ends_when_it_expires_and_is_forgotten_later() {
    let cloud = cloud_with_robot().await;
    let short = cloud.post(KEYS, json!({"expires_in_seconds": 3600})).await.expect(201);
    let dated = cloud.post(KEYS, json!({"expires_at": "2026-06-01T15:00:00+02:00"})).await.expect(201);
    for key in [&short, &dated] {
        assert_eq!(key["expires_at"], "2026-06-01T13:00:00Z");
        me(&cloud, key).await.expect(200);
    }
    let ada = cloud.user("ada", false).await;
    let own = Some(json!({}));
    let headers = [("authorization", ada.as_str())];
    let own = cloud.call_with(Method::POST, "/v1/users/ada/api_keys", &headers, own).await.expect(201);
    assert_eq!(own["expires_at"], "2026-08-30T12:00:00Z");
    cloud.pass(3599);
    me(&cloud, &short).await.expect(200);
    cloud.pass(1);
    me(&cloud, &short).await.expect_problem(401, "invalid_token");
    let forget = async || {
        let before = cloud.app.clock.now() - time::Duration::days(7);
        super::forget(&mut cloud.app.pool.acquire().await.unwrap(), before).await.unwrap();
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM api_keys")
            .fetch_one(&cloud.app.pool)
            .await
            .unwrap()
    };
    assert_eq!(forget().await, 3);
    cloud.pass(7 * 86400 + 1);
    assert_eq!(forget().await, 1);
}

#[tokio::test]
async fn a_policy_narrows_a_key_and_is_checked_field_by_field() {
    let cloud = cloud_with_robot().await;
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Sid": "Look", "Effect": "Allow", "Action": "project:Get*", "Resource": "*"},
    ]});
    let key = cloud.post(KEYS, json!({"policy": policy})).await.expect(201);
    assert_eq!(key["policy"]["Statement"][0]["Sid"], "Look");
    assert_eq!(me(&cloud, &key).await.expect(200)["credential"]["narrowed"], true);
    with_key(&cloud, &key, Method::GET, "/v1/projects/demo", Value::Null).await.expect(200);
    let denied = with_key(&cloud, &key, Method::DELETE, "/v1/projects/demo", Value::Null).await;
    denied.expect_problem(403, "forbidden");
    // It does not widen: ada may do nothing in the cloud.
    let ada = cloud.user("ada", false).await;
    let all = json!({"policy": {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
    ]}});
    let headers = [("authorization", ada.as_str())];
    let own = cloud.call_with(Method::POST, "/v1/users/ada/api_keys", &headers, Some(all)).await.expect(201);
    with_key(&cloud, &own, Method::GET, "/v1/users", Value::Null).await.expect_problem(403, "forbidden");

    let wrong = json!({"expires_in_seconds": 1, "policy": {"Version": "2012-10-17", "Statement": [
        {"Effect": "Perhaps", "Action": "project:Fly", "Resource": "*"},
    ]}});
    let problem = cloud.post(KEYS, wrong).await.expect_problem(422, "validation_failed");
    let pointers: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert!(pointers.contains(&"/expires_in_seconds"), "{pointers:?}");
    assert!(pointers.contains(&"/policy/Statement/0/Effect"), "{pointers:?}");
    assert_eq!(cloud.get(KEYS).await.expect(200)["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn no_key_makes_another_for_its_own_principal() {
    let cloud = cloud_with_robot().await;
    let key = cloud.post(KEYS, json!({})).await.expect(201);
    with_key(&cloud, &key, Method::POST, KEYS, json!({})).await.expect_problem(403, "forbidden");
    let other = "/v1/projects/demo/service_accounts";
    with_key(&cloud, &key, Method::POST, other, json!({"name": "other"})).await.expect(201);
    let path = format!("{other}/other/api_keys");
    with_key(&cloud, &key, Method::POST, &path, json!({})).await.expect(201);
    with_key(&cloud, &key, Method::POST, "/v1/users/admin/api_keys", json!({}))
        .await
        .expect_problem(403, "forbidden");

    let own = cloud.post("/v1/users/admin/api_keys", json!({})).await.expect(201);
    for (path, body) in [
        ("api_keys", json!({})),
        ("totp", json!({})),
        ("password", json!({"current_password": "x", "new_password": "battery staple"})),
    ] {
        let path = format!("/v1/users/admin/{path}");
        with_key(&cloud, &own, Method::POST, &path, body).await.expect_problem(403, "forbidden");
    }
    // But it may end itself.
    let path = format!("/v1/users/admin/api_keys/{}", own["id"].as_str().unwrap());
    with_key(&cloud, &own, Method::DELETE, &path, Value::Null).await.expect(204);
    me(&cloud, &own).await.expect_problem(401, "invalid_token");
}

#[tokio::test]
async fn a_principal_has_at_most_twenty_live_keys_also_when_asked_at_once() {
    let cloud = cloud_with_robot().await;
    for _ in 0..18 {
        cloud.post(KEYS, json!({"expires_in_seconds": 60})).await.expect(201);
    }
    let racing = futures_util::future::join_all((0..4).map(|_| cloud.post(KEYS, json!({})))).await;
    let mut made = 0;
    for answer in &racing {
        if answer.status == 201 {
            made += 1;
        } else {
            answer.expect_problem(409, "wrong_state");
        }
    }
    assert_eq!(made, 2);
    // Those that have expired do not count.
    cloud.pass(60);
    cloud.post(KEYS, json!({})).await.expect(201);
}

#[tokio::test]
async fn foreign_keys_are_not_there() {
    let cloud = cloud_with_robot().await;
    cloud.post("/v1/projects/demo/service_accounts", json!({"name": "other"})).await.expect(201);
    let key = cloud.post(KEYS, json!({})).await.expect(201);
    let id = key["id"].as_str().unwrap();
    for path in ["projects/demo/service_accounts/other", "users/admin"] {
        cloud.delete(&format!("/v1/{path}/api_keys/{id}")).await.expect_problem(404, "not_found");
        assert_eq!(
            cloud.get(&format!("/v1/{path}/api_keys")).await.expect(200)["items"],
            json!([]),
            "{path}"
        );
    }
    for path in [format!("{KEYS}/x"), "/v1/users/nobody/api_keys/x".to_owned()] {
        cloud.delete(&path).await.expect_problem(404, "not_found");
    }
    cloud.get("/v1/users/nobody/api_keys").await.expect_problem(404, "not_found");
    // A service account is no user, whatever path asks.
    let account = cloud.get("/v1/projects/demo/service_accounts/robot").await.expect(200);
    let path = format!("/v1/users/{}/api_keys", account["id"].as_str().unwrap());
    cloud.get(&path).await.expect_problem(404, "not_found");
    me(&cloud, &key).await.expect(200);
}

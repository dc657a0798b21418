//! A session that is good for choosing a new password, against everything that there is.

use axum::http::Method;
use serde_json::{Value, json};

use super::body_of;
use crate::auth::Passwords;
use crate::auth::bootstrap::{FirstRunOptions, PasswordChange, run};
use crate::clock::Clock;
use crate::database::testing::TestDatabase;
use crate::testing::{TestCloud, request};

const CODE: &str = "password_change_required";
/// What goes on, beside signing in and out, which need no session.
const OPEN: &[&str] = &["get_me", "change_user_password"];

#[tokio::test]
async fn nothing_is_open_but_the_change_of_the_password() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    // Nothing is forbidden to her otherwise.
    let ada = cloud.user("ada", true).await;
    let patch = Some(json!({CODE: true}));
    cloud.call(Method::PATCH, "/v1/users/ada", patch).await.expect(200);
    let records = async || -> i64 {
        let query = "SELECT count(*) FROM audit_records WHERE principal_name = 'ada' AND outcome = 'denied'
             AND deciding = '[{\"password_change_required\": true}]' AND after IS NULL";
        sqlx::query_scalar(query).fetch_one(&cloud.app.pool).await.unwrap()
    };
    let (mut tried, mut changing, mut open_doors) = (0, 0, Vec::new());
    for (path, item) in crate::http::openapi_document().paths.paths {
        let path = named(&path);
        for (method, operation) in [
            (Method::GET, item.get),
            (Method::POST, item.post),
            (Method::PUT, item.put),
            (Method::PATCH, item.patch),
            (Method::DELETE, item.delete),
        ] {
            let Some(operation) = operation else { continue };
            let open = operation
                .security
                .as_ref()
                .is_some_and(|all| all.iter().all(|one| *one == Default::default()));
            if open || OPEN.contains(&operation.operation_id.as_deref().unwrap()) {
                continue;
            }
            let before = records().await;
            let body = body_of(&operation).to_owned();
            let headers = [("authorization", ada.as_str()), ("upload-offset", "0")];
            let answer = cloud.send(request(method.clone(), &path, &headers, body)).await;
            if answer.status != 403 || answer.json()["code"] != CODE {
                open_doors.push(format!("{method} {path}: {}", String::from_utf8_lossy(&answer.body)));
            }
            tried += 1;
            changing += records().await - before;
        }
    }
    assert!(open_doors.is_empty(), "{open_doors:#?}");
    assert!(tried >= 100 && changing >= 60, "{tried} operations were tried, {changing} of them changes");
    let (projects, users): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM projects), (SELECT count(*) FROM principals)")
            .fetch_one(&cloud.app.pool)
            .await
            .unwrap();
    assert_eq!((projects, users), (1, 2));
    let me = cloud.send(request(Method::GET, "/v1/me", &[("authorization", &ada)], String::new())).await;
    assert_eq!(me.expect(200)[CODE], true);
}

/// The path with names in it, and ids of nothing where only an id will do.
fn named(path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment {
        "{project}" => "demo",
        "{image}" => "image",
        "{instance_type}" => "tiny",
        _ if segment.starts_with('{') => "0190a0a0-0000-7000-8000-000000000000",
        _ => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn a_browser_is_told_as_well_and_goes_on_with_the_same_cookies() {
    let cloud = TestCloud::start().await;
    let ada = json!({"name": "ada", "password": "correct horse"});
    cloud.post("/v1/users", ada).await.expect(201);
    let own = [("sec-fetch-site", "same-origin")];
    let body = json!({"username": "ada", "password": "correct horse"}).to_string();
    let signed_in = cloud.send(request(Method::POST, "/v1/auth/browser_session", &own, body)).await;
    assert_eq!(signed_in.expect(200)[CODE], true);
    let cookies = signed_in.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
    let cookies: Vec<_> = cookies.map(|line| line.split(';').next().unwrap()).collect();
    let headers = [("sec-fetch-site", "same-origin"), ("cookie", &cookies.join("; "))];
    let ask = async |method: Method, path: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        cloud.send(request(method, path, &headers, body)).await
    };
    ask(Method::GET, "/v1/projects", Value::Null).await.expect_problem(403, CODE);
    let change = json!({"current_password": "correct horse", "new_password": "battery staple"});
    ask(Method::POST, "/v1/users/ada/password", change).await.expect(204);
    ask(Method::GET, "/v1/projects", Value::Null).await.expect(200);
    let prolonged = ask(Method::POST, "/v1/auth/browser_session/prolong", Value::Null).await;
    assert_eq!(prolonged.expect(200)[CODE], false);
    let out = ask(Method::DELETE, "/v1/auth/browser_session", Value::Null).await;
    assert_eq!(out.status, 204);
}

#[tokio::test]
async fn the_first_administrator_chooses_a_password_unless_the_operator_says_otherwise() {
    assert_eq!(FirstRunOptions::default().first_run_password_change, PasswordChange::Required);
    for (first_run_password_change, required) in
        [(PasswordChange::Required, true), (PasswordChange::Optional, false)]
    {
        let database = TestDatabase::create().await;
        let folder = tempfile::tempdir().unwrap();
        let path = camino::Utf8Path::from_path(folder.path()).unwrap().join("credentials.json");
        let options = FirstRunOptions { first_run_credentials: Some(path), first_run_password_change };
        run(&database.pool, &Clock::system(), &Passwords::new().unwrap(), &options).await.unwrap();
        let found: Vec<bool> = sqlx::query_scalar("SELECT change_required FROM user_passwords")
            .fetch_all(&database.pool)
            .await
            .unwrap();
        assert_eq!(found, [required]);
    }
}

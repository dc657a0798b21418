//! Sessions in cookies.

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::{Answer, TestCloud, request};

const OWN: (&str, &str) = ("sec-fetch-site", "same-origin");

/// The cookies that an answer sets, as a browser would send them.
fn cookies(answer: &Answer) -> String {
    let lines = answer.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
    let pairs: Vec<_> = lines
        .map(|line| {
            let (pair, attributes) = line.split_once("; ").unwrap();
            assert!(pair.starts_with("__Host-cumulo_"), "{line}");
            assert!(attributes.ends_with("Path=/; Secure; HttpOnly; SameSite=Strict"), "{line}");
            pair.to_owned()
        })
        .collect();
    pairs.join("; ")
}

async fn send(
    cloud: &TestCloud,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> Answer {
    cloud.send(request(method, path, headers, body.to_string())).await
}

async fn begin(cloud: &TestCloud, headers: &[(&str, &str)]) -> Answer {
    send(cloud, Method::POST, "/v1/auth/browser_session", headers, cloud.credentials().clone()).await
}

#[tokio::test]
async fn a_page_of_ours_acts_without_ever_seeing_a_token() {
    let cloud = TestCloud::start().await;
    let began = begin(&cloud, &[OWN]).await;
    assert_eq!(began.expect(200), json!({"expires_in": 900, "password_change_required": false}));
    let cookie = cookies(&began);
    let shown = [("cookie", cookie.as_str()), OWN];
    let me = send(&cloud, Method::GET, "/v1/me", &shown, json!({})).await.expect(200);
    assert_eq!(me["name"], "admin");
    send(&cloud, Method::POST, "/v1/projects", &shown, json!({"name": "shop"})).await.expect(201);

    cloud.pass(901);
    send(&cloud, Method::GET, "/v1/me", &shown, json!({})).await.expect_problem(401, "expired_token");
    let path = "/v1/auth/browser_session/prolong";
    let prolonged = send(&cloud, Method::POST, path, &shown, json!({})).await;
    prolonged.expect(200);
    let next = cookies(&prolonged);
    let shown = [("cookie", next.as_str()), OWN];
    send(&cloud, Method::GET, "/v1/me", &shown, json!({})).await.expect(200);

    let ended = send(&cloud, Method::DELETE, "/v1/auth/browser_session", &shown, json!({})).await;
    assert_eq!(ended.status, 204);
    assert_eq!(cookies(&ended), "__Host-cumulo_access=; __Host-cumulo_refresh=");
    send(&cloud, Method::GET, "/v1/me", &shown, json!({})).await.expect_problem(401, "invalid_token");
    send(&cloud, Method::POST, path, &shown, json!({})).await.expect_problem(401, "invalid_token");
    send(&cloud, Method::POST, path, &[OWN], json!({})).await.expect_problem(401, "unauthenticated");
}

#[tokio::test]
async fn somebody_elses_page_gets_nothing_with_our_cookies() {
    let cloud = TestCloud::start().await;
    let cookie = cookies(&begin(&cloud, &[OWN]).await);
    let refused = async |method: Method, path: &str, lines: &[(&str, &str)]| {
        let mut headers = vec![("cookie", cookie.as_str()), ("host", "cloud.example")];
        headers.extend(lines);
        send(&cloud, method, path, &headers, json!({"name": "shop"}))
            .await
            .expect_problem(403, "cross_site_request");
    };
    for lines in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[],
    ] {
        refused(Method::POST, "/v1/projects", lines).await;
        refused(Method::POST, "/v1/auth/browser_session/prolong", lines).await;
        refused(Method::DELETE, "/v1/auth/browser_session", lines).await;
        begin(&cloud, lines).await.expect_problem(403, "cross_site_request");
    }
    refused(Method::GET, "/v1/projects", &[("sec-fetch-site", "cross-site")]).await;
    // Nothing of it ended the session; and a page may still show a token of its own.
    let shown = [("cookie", cookie.as_str()), OWN];
    let projects = send(&cloud, Method::GET, "/v1/projects", &shown, json!({})).await.expect(200);
    assert_eq!(projects["items"], json!([]));
    let bearer = format!("Bearer {}", cloud.token().await);
    let with_token = [("cookie", cookie.as_str()), ("authorization", bearer.as_str())];
    send(&cloud, Method::POST, "/v1/projects", &with_token, json!({"name": "shop"})).await.expect(201);
}

#[tokio::test]
async fn a_cookie_holds_no_api_key_and_a_wrong_password_gives_none() {
    let cloud = TestCloud::start().await;
    let wrong = json!({"username": "admin", "password": "wrong"});
    let answer = send(&cloud, Method::POST, "/v1/auth/browser_session", &[OWN], wrong).await;
    answer.expect_problem(401, "invalid_credentials");
    assert!(!answer.headers.contains_key("set-cookie"));
    let key = cloud.post("/v1/users/admin/api_keys", json!({})).await.expect(201);
    let cookie = format!("__Host-cumulo_access={}", key["key"].as_str().unwrap());
    let shown = [("cookie", cookie.as_str()), OWN];
    send(&cloud, Method::GET, "/v1/me", &shown, json!({})).await.expect_problem(401, "invalid_token");
}

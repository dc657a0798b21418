//! The console's files over HTTP, built or not.

use axum::http::Method;

use super::{FILES, File, STUB, send, takes_gzip};
use crate::testing::{TestCloud, request};

fn get(path: &str, headers: &[(&str, &str)]) -> axum::http::Request<axum::body::Body> {
    request(Method::GET, path, headers, String::new())
}

#[tokio::test]
async fn its_pages_are_one_page_that_runs_only_our_scripts() {
    let cloud = TestCloud::start().await;
    let first = cloud.send(get("/", &[])).await;
    let text = String::from_utf8(first.body.clone()).unwrap();
    assert!(text.contains("<title>Cumulo</title>"), "{text}");
    for path in ["/", "/projects", "/projects/demo/instances", "/cloud/hosts", "/account"] {
        let page = cloud.send(get(path, &[])).await;
        assert_eq!(page.status, 200, "{path}");
        assert_eq!(page.body, first.body, "{path}");
        assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
        assert_eq!(page.headers["cache-control"], "no-cache");
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
        for word in ["unsafe-eval", "http:", "https:", "*"] {
            assert!(!policy.contains(word), "{policy}");
        }
    }
    // No script stands in the page itself, and none comes from elsewhere.
    for script in text.split("<script").skip(1) {
        let (attributes, content) = script.split_once('>').unwrap();
        assert!(
            attributes.contains(" src=\"/assets/") && content.trim_start().starts_with("</script"),
            "{script}"
        );
    }
    let etag = first.headers["etag"].to_str().unwrap();
    let again = cloud.send(get("/projects", &[("if-none-match", etag)])).await;
    assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
}

#[tokio::test]
async fn it_takes_nothing_from_the_api() {
    let cloud = TestCloud::start().await;
    let html = ("accept", "text/html");
    for path in
        ["/nowhere", "/v1", "/v1/nowhere", "/v1/projects/demo/nowhere", "/assets/nowhere.js", "/assets/../x"]
    {
        cloud.send(get(path, &[html])).await.expect_problem(404, "not_found");
    }
    cloud.send(get("/v1/projects", &[html])).await.expect_problem(401, "unauthenticated");
    let posted = request(Method::POST, "/projects", &[], String::new());
    cloud.send(posted).await.expect_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn every_file_that_was_built_is_served_for_good() {
    let cloud = TestCloud::start().await;
    for file in FILES.iter().filter(|file| file.name.starts_with("assets/")) {
        let answer = cloud.send(get(&format!("/{}", file.name), &[])).await;
        assert_eq!(answer.status, 200, "{}", file.name);
        assert_eq!(answer.body, file.plain);
        assert_eq!(answer.headers["cache-control"], "public, max-age=31536000, immutable");
        assert_ne!(answer.headers["content-type"], "application/octet-stream", "{}", file.name);
    }
}

#[test]
fn compressed_for_those_who_take_it() {
    static FILE: File = File { name: "assets/x.js", plain: b"plain", gzip: Some(b"gz") };
    let headers = |value: &'static str| {
        [(axum::http::header::ACCEPT_ENCODING, axum::http::HeaderValue::from_static(value))]
            .into_iter()
            .collect()
    };
    for (value, taken) in [
        ("gzip, deflate, br, zstd", true),
        ("br;q=1.0, GZIP;q=0.5", true),
        ("br", false),
        ("gzip;q=0", false),
        ("x-gzip-not", false),
        ("", false),
    ] {
        assert_eq!(takes_gzip(&headers(value)), taken, "{value}");
        let answer = send(&headers(value), &FILE, super::FOREVER);
        assert_eq!(answer.headers().contains_key("content-encoding"), taken, "{value}");
        assert_eq!(answer.headers()["vary"], "accept-encoding");
    }
    let etag = |value| send(&headers(value), &FILE, super::FOREVER).headers()["etag"].clone();
    assert_ne!(etag("gzip"), etag(""), "two encodings are two representations");
    assert!(!send(&headers("gzip"), &STUB, super::ASK_AGAIN).headers().contains_key("content-encoding"));
}

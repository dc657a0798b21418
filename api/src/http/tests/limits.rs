//! What a caller may get wrong beyond single fields.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode};
use axum::routing::get;
use serde_json::json;
use tower::ServiceExt;

use super::super::router::layered;
use crate::testing::TestCloud;

#[tokio::test]
async fn a_patch_merges() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let instance =
        json!({"name": "web", "image": "image", "instance_type": "tiny", "labels": {"a": "1", "b": "2"}});
    cloud.post("/v1/projects/demo/instances", instance).await.expect(202);
    let labels = json!({"labels": {"a": "1", "b": "2"}, "description": "kept"});
    cloud.call(Method::PATCH, "/v1/projects/demo", Some(labels)).await.expect(200);
    for path in ["/v1/projects/demo", "/v1/projects/demo/instances/web"] {
        let patch = json!({"labels": {"a": null, "c": "3", "never": null}});
        let merged = cloud.call(Method::PATCH, path, Some(patch)).await.expect(200);
        assert_eq!(merged["labels"], json!({"b": "2", "c": "3"}), "{path}");
        for (patch, pointer) in [
            (json!({"name": null}), "/name"),
            (json!({"labels": null}), "/labels"),
            (json!({"labels": {"a b": "x"}}), "/labels"),
            (json!({"labels": {"a": 1}}), "/labels/a"),
        ] {
            let refused = cloud.call(Method::PATCH, path, Some(patch)).await;
            assert_eq!(refused.expect_problem(422, "validation_failed")["errors"][0]["pointer"], pointer);
        }
        assert_eq!(cloud.get(path).await.expect(200)["labels"], merged["labels"]);
    }
    assert_eq!(cloud.get("/v1/projects/demo").await.expect(200)["description"], "kept");
}

#[tokio::test]
async fn a_304_does_not_hide_that_a_host_has_fallen_silent() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let _host = cloud.join_host("host-1").await;
    let path = "/v1/hosts/host-1";
    let tag = cloud.get(path).await.headers["etag"].to_str().unwrap().to_owned();
    let again = async || cloud.call_with(Method::GET, path, &[("if-none-match", &tag)], None).await;
    assert_eq!(again().await.status, StatusCode::NOT_MODIFIED);
    cloud.pass(30);
    assert_eq!(again().await.expect(200)["state"], "unreachable");
}

#[tokio::test]
async fn a_body_is_sent_as_json_and_is_not_too_large_however_it_comes() {
    let cloud = TestCloud::start().await;
    let send = async |content_type: &str, body: Body| {
        let request = Request::post("/v1/auth/login").header("content-type", content_type);
        cloud.send(request.body(body).unwrap()).await
    };
    let login = cloud.credentials().to_string();
    for form in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"] {
        send(form, Body::from(login.clone())).await.expect_problem(415, "unsupported_media_type");
    }
    let none = Request::post("/v1/auth/login").body(Body::from(login.clone())).unwrap();
    cloud.send(none).await.expect_problem(415, "unsupported_media_type");
    send("Application/JSON; charset=utf-8", Body::from(login)).await.expect(200);
    // Without a length, and without an end.
    let endless =
        futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 65536])));
    send("application/json", Body::from_stream(endless)).await.expect_problem(413, "payload_too_large");
    let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("cable pulled"))]);
    send("application/json", Body::from_stream(broken)).await.expect_problem(400, "bad_request");
    let deep = "[".repeat(100_000);
    send("application/json", Body::from(format!(r#"{{"username":{deep}"#)))
        .await
        .expect_problem(422, "validation_failed");
}

#[tokio::test]
async fn keys_of_different_callers_have_nothing_to_do_with_each_other() {
    let cloud = TestCloud::start().await;
    let bearer = cloud.user("second", true).await;
    let mine = [("idempotency-key", "same")];
    let theirs = [("idempotency-key", "same"), ("authorization", bearer.as_str())];
    let post = async |headers: &[(&str, &str)], name: &str| {
        cloud.call_with(Method::POST, "/v1/projects", headers, Some(json!({"name": name}))).await
    };
    post(&mine, "one").await.expect(201);
    post(&theirs, "two").await.expect(201);
    assert_eq!(post(&mine, "one").await.expect(201)["name"], "one");
    // After a day the key is free.
    cloud.pass(24 * 3600 + 1);
    super::super::forget_old_answers(&mut cloud.app.pool.acquire().await.unwrap(), cloud.app.clock.now())
        .await
        .unwrap();
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM idempotency_keys").fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_panic_is_a_500_that_says_nothing() {
    async fn handler() -> StatusCode {
        assert!(std::hint::black_box(false), "secret detail");
        StatusCode::OK
    }
    let cloud = TestCloud::start().await;
    let router = layered(Router::new().route("/panic", get(handler)), cloud.app.clone());
    let answer = router.oneshot(Request::get("/panic").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let body = axum::body::to_bytes(answer.into_body(), 4096).await.unwrap();
    assert!(!String::from_utf8_lossy(&body).contains("secret"));
}

//! Key pairs through the router.

use axum::http::Method;
use serde_json::json;

use crate::testing::TestCloud;

const KEY_PAIRS: &str = "/v1/projects/demo/key_pairs";
const LAPTOP: &str = "/v1/projects/demo/key_pairs/laptop";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me@here";

#[tokio::test]
async fn a_key_is_taken_in_renamed_and_deleted() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let new = json!({"name": "laptop", "public_key": KEY, "labels": {"owner": "ada"}});
    let dry = cloud.post(&format!("{KEY_PAIRS}?dry_run=true"), new.clone()).await.expect(200);
    assert_eq!(dry["fingerprint"], "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ");
    cloud.get(LAPTOP).await.expect_problem(404, "not_found");

    let made = cloud.post(KEY_PAIRS, new.clone()).await.expect(201);
    assert_eq!((&made["algorithm"], &made["public_key"]), (&json!("ssh-ed25519"), &json!(KEY)));
    assert!(made.get("private_key").is_none());
    assert_eq!(cloud.get(LAPTOP).await.expect(200), made);
    cloud.post(KEY_PAIRS, new).await.expect_problem(409, "name_taken");
    let listed = cloud.get(&format!("{KEY_PAIRS}?label_selector=owner=ada")).await.expect(200);
    assert_eq!(listed["items"], json!([made]));
    assert_eq!(
        cloud.get(&format!("{KEY_PAIRS}?label_selector=!owner")).await.expect(200)["items"],
        json!([])
    );
    let quotas = cloud.get("/v1/projects/demo/quotas").await.expect(200);
    let quota =
        quotas["items"].as_array().unwrap().iter().find(|one| one["resource"] == "key_pairs").unwrap();
    assert_eq!((&quota["used"], &quota["limit"]), (&json!(1), &json!(100)));

    let stale = [("if-match", "\"7.0\"")];
    let patch = json!({"name": "desktop", "labels": {"owner": null}});
    cloud
        .call_with(Method::PATCH, LAPTOP, &stale, Some(patch.clone()))
        .await
        .expect_problem(412, "precondition_failed");
    let renamed = cloud.call(Method::PATCH, LAPTOP, Some(patch)).await.expect(200);
    assert_eq!((&renamed["name"], &renamed["labels"]), (&json!("desktop"), &json!({})));
    let key = json!({"public_key": KEY});
    let desktop = &format!("{KEY_PAIRS}/desktop");
    cloud.call(Method::PATCH, desktop, Some(key)).await.expect_problem(422, "validation_failed");
    cloud.delete(desktop).await.expect(204);
    cloud.get(desktop).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_wrong_key_is_refused_at_its_field() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for wrong in ["", "ssh-ed25519 AAAA", "ssh-dss AAAAB3NzaC1kc3MAAAABBwAAAAEHAAAAAQcAAAABBw== me"] {
        let refused = cloud.post(KEY_PAIRS, json!({"name": "laptop", "public_key": wrong})).await;
        let errors = refused.expect_problem(422, "validation_failed")["errors"].clone();
        assert_eq!(errors[0]["pointer"], "/public_key", "{wrong}");
    }
    let extra = json!({"name": "laptop", "public_key": KEY, "private_key": "x"});
    cloud.post(KEY_PAIRS, extra).await.expect_problem(422, "validation_failed");
}

#[tokio::test]
async fn a_generated_private_key_is_shown_once_and_kept_nowhere() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let new = json!({"name": "laptop"});
    let dry = cloud.post(&format!("{KEY_PAIRS}?dry_run=true"), new.clone()).await.expect(200);
    assert!(dry.get("private_key").is_none(), "{dry}");
    let key = [("idempotency-key", "once")];
    let made = cloud.call_with(Method::POST, KEY_PAIRS, &key, Some(new.clone())).await.expect(201);
    let private = made["private_key"].as_str().unwrap();
    assert!(private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));

    let again = cloud.call_with(Method::POST, KEY_PAIRS, &key, Some(new)).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let again = again.expect(201);
    assert_eq!((&again["id"], again.get("private_key")), (&made["id"], None));
    assert!(again["private_key_detail"].as_str().unwrap().contains("kept nowhere"));
    let secret = private.lines().nth(2).unwrap();
    for (table, sql) in [
        ("key_pairs", "SELECT string_agg(t::text, '') FROM key_pairs t"),
        ("answers", "SELECT string_agg(convert_from(body, 'UTF8'), '') FROM idempotency_keys"),
        ("audit", "SELECT string_agg(t::text, '') FROM audit_records t"),
        ("events", "SELECT coalesce(string_agg(t::text, ''), '') FROM pending_events t"),
    ] {
        let text: String = sqlx::query_scalar(sql).fetch_one(&cloud.app.pool).await.unwrap();
        assert!(!text.contains(secret), "{table}");
    }
}

#[tokio::test]
async fn strangers_see_no_key_pairs() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post(KEY_PAIRS, json!({"name": "laptop", "public_key": KEY})).await.expect(201);
    let stranger = cloud.user("eve", false).await;
    let eve = [("authorization", stranger.as_str())];
    for (method, path, body) in [
        (Method::GET, LAPTOP, None),
        (Method::GET, KEY_PAIRS, None),
        (Method::POST, KEY_PAIRS, Some(json!({"name": "mine"}))),
        (Method::DELETE, LAPTOP, None),
    ] {
        cloud.call_with(method, path, &eve, body).await.expect_problem(404, "not_found");
    }
}

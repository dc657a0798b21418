//! The agent protocol, spoken well and badly.

mod crowd;
mod readmission;
mod restored;
mod skew;

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use crate::instances::place_pending;
use crate::testing::TestCloud;

const WEB: &str = "/v1/projects/demo/instances/web";

async fn create(cloud: &TestCloud) -> Value {
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    let created = cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    created
}

fn join_body(token: &Value, name: &str) -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    json!({"protocol_version": 1, "token": token, "name": name, "csr_pem": csr})
}

#[tokio::test]
async fn a_join_token_lets_exactly_one_host_in() {
    let cloud = TestCloud::start().await;
    let token = async || {
        cloud.post("/v1/host_join_tokens", json!({"ttl_seconds": 60})).await.expect(201)["token"].clone()
    };
    let join = async |body: Value| cloud.agent_call(None, Method::POST, "/agent/v1/join", Some(body)).await;
    let one = token().await;
    let racing = (0..6).map(|n| join(join_body(&one, &format!("host-{n}"))));
    let racing = futures_util::future::join_all(racing).await;
    assert_eq!(racing.iter().filter(|answer| answer.status == 200).count(), 1);
    join(join_body(&one, "late")).await.expect_problem(401, "invalid_credentials");
    join(join_body(&json!("garbage"), "garbage")).await.expect_problem(401, "invalid_credentials");

    // What is refused for another reason does not use the token up.
    let other = token().await;
    let mut wrong = join_body(&other, "host-x");
    wrong["csr_pem"] = json!("garbage");
    join(wrong).await.expect_problem(422, "validation_failed");
    let mut wrong = join_body(&other, "host-x");
    wrong["protocol_version"] = json!(99);
    join(wrong).await.expect_problem(422, "unsupported_protocol");
    cloud.pass(60);
    join(join_body(&other, "host-x")).await.expect_problem(401, "invalid_credentials");
}

#[tokio::test]
async fn reports_are_bounded_cleaned_and_idempotent() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let created = create(&cloud).await;
    let step = |operation: &Value| json!({"operation_id": operation, "step": "image_cached", "at": "2026-06-01T12:00:01Z"});
    let report = json!({"id": created["id"], "generation": 1, "boot": 1, "state": {"state": "failed"},
        "detail": format!("disk\0 full\n{}", "x".repeat(2000)),
        "steps": [step(&created["operation"]["id"]), step(&json!("0190a0a0-0000-7000-8000-000000000000"))]});
    let batch = json!({"epoch": host.epoch, "reports": [report, report]});
    for _ in 0..2 {
        host.call(Method::POST, "/agent/v1/observed", Some(batch.clone())).await.expect(200);
    }
    let instance = cloud.get(WEB).await.expect(200);
    assert_eq!(instance["state"], "error");
    let detail = instance["state_detail"].as_str().unwrap();
    assert!(detail.starts_with("disk full") && detail.chars().count() == 1000, "{detail}");
    let path = format!("/v1/projects/demo/operations/{}", created["operation"]["id"].as_str().unwrap());
    let trail = cloud.get(&path).await.expect(200)["trail"].clone();
    let steps: Vec<_> = trail.as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["authorised", "placed", "image_cached"]);

    let many = json!({"epoch": host.epoch, "reports": vec![json!({"id": created["id"], "generation": 1,
        "boot": 1, "state": {"state": "running"}}); 501]});
    host.call(Method::POST, "/agent/v1/observed", Some(many)).await.expect_problem(422, "validation_failed");
}

#[tokio::test]
async fn a_heartbeat_with_another_digest_asks_for_everything() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let empty = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(""));
    let beat = async |digest: &str, health: Value| {
        let body =
            json!({"epoch": host.epoch, "hypervisor": health, "observed_digest": digest, "quarantined": 2});
        host.call(Method::POST, "/agent/v1/heartbeat", Some(body)).await.expect(200)
    };
    assert_eq!(beat(&empty, json!({"status": "ok"})).await["report_all"], false);
    assert_eq!(
        beat(&"0".repeat(64), json!({"status": "degraded", "reason": "gone\0"})).await["report_all"],
        true
    );
    let seen = &cloud.get("/v1/hosts/host-1").await.expect(200);
    assert_eq!((&seen["state"], &seen["state_reason"]), (&json!("degraded"), &json!("gone")));
    assert_eq!(seen["quarantined_domains"], 2);
    cloud.pass(21);
    assert_eq!(cloud.get("/v1/hosts/host-1").await.expect(200)["state"], "unreachable");
    beat(&empty, json!({"status": "ok"})).await;
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    assert_eq!(cloud.get("/v1/hosts/host-1").await.expect(200)["state"], "ready");
}

#[tokio::test]
async fn a_long_poll_wakes_when_something_changes() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    create(&cloud).await;
    let revision = host.desired(0).await["revision"].clone();
    let path = format!("/agent/v1/desired?epoch={}&after={revision}&wait_seconds=30", host.epoch);
    let polling = tokio::time::timeout(Duration::from_secs(20), host.call(Method::GET, &path, None));
    let stop = format!("{WEB}/stop");
    let (page, _) = tokio::join!(polling, cloud.post(&stop, json!({})));
    let page = page.unwrap().expect(200);
    assert_eq!(page["objects"][0]["power"], "stopped");
    assert_eq!(page["complete"], false);
    let wrong = format!("/agent/v1/desired?epoch={}&after=x", host.epoch);
    host.call(Method::GET, &wrong, None).await.expect_problem(400, "invalid_query");
}

#[tokio::test]
async fn the_serial_log_comes_from_the_instances_own_host_alone() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    create(&cloud).await;
    let revision = host.desired(0).await["revision"].clone();
    let stranger = cloud.join_host("host-2").await;
    let answering = async {
        let path = format!("/agent/v1/desired?epoch={}&after={revision}&wait_seconds=20", host.epoch);
        let page = host.call(Method::GET, &path, None).await.expect(200);
        let wish = &page["objects"][0];
        assert_eq!(wish["kind"], "send_serial_log");
        let transfer = wish["transfer_id"].as_str().unwrap();
        let theirs = format!("/agent/v1/transfers/{transfer}?epoch={}", stranger.epoch);
        stranger.call(Method::POST, &theirs, Some(json!("evil"))).await.expect_problem(404, "not_found");
        let ours = format!("/agent/v1/transfers/{transfer}?epoch={}", host.epoch);
        host.call(Method::POST, &ours, Some(json!("<b>login:</b>"))).await.expect(204);
        host.call(Method::POST, &ours, Some(json!("twice"))).await.expect_problem(404, "not_found");
    };
    let path = format!("{WEB}/serial");
    let (log, ()) = tokio::join!(cloud.get(&path), answering);
    assert_eq!(log.body, br#""<b>login:</b>""#);
    assert_eq!(log.headers["content-type"], "text/plain; charset=utf-8");
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM transfers").fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(left, 0);
}

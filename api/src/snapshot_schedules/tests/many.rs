//! Schedules that keep much.

use axum::http::Method;
use serde_json::json;

use super::{INSTANCES, SCHEDULES, VOLUMES, data};
use crate::testing::TestCloud;

#[tokio::test]
async fn no_volume_comes_to_an_instance_with_which_its_schedules_would_keep_too_much() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": []});
    cloud.post(INSTANCES, body).await.expect(202);
    data(&cloud).await;
    cloud.post(VOLUMES, json!({"name": "other", "size_gib": 1})).await.expect(201);
    let of = |name: &str, what: &str, which: &str, keep: i32| {
        let mut body = json!({"name": name, "at": "03:00", "keep": keep});
        body[what] = json!(which);
        cloud.post(SCHEDULES, body)
    };
    of("all", "instance", "web", 10).await.expect(201);
    of("of-data", "volume", "data", 9).await.expect(201);
    let attach = async |volume: &str, query: &str| {
        let path = format!("{INSTANCES}/web/attach_volume{query}");
        cloud.post(&path, json!({"volume": volume})).await
    };
    for query in ["?dry_run=true", ""] {
        let refused = attach("data", query).await.expect_problem(409, "wrong_state");
        let detail = refused["detail"].as_str().unwrap();
        assert!(
            detail.contains("all, of-data together would keep 19 snapshots of the volume data"),
            "{detail}"
        );
    }
    attach("other", "").await.expect(202);
    let fewer = cloud.call(Method::PATCH, &format!("{SCHEDULES}/of-data"), Some(json!({"keep": 8}))).await;
    fewer.expect(200);
    attach("data", "").await.expect(202);
}

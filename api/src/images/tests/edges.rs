//! Uploads that are announced too large, checked only, outdated, or whose receiver was killed.

use axum::http::{Method, Request};
use serde_json::{Value, json};

use super::{IMAGES, announce, cloud, content, swept};
use crate::backup::restored_in;
use crate::testing::Answer;
use crate::testing::TestCloud;

async fn put(cloud: &TestCloud, query: &str, headers: &[(&str, &str)]) -> Answer {
    let bearer = format!("Bearer {}", cloud.token().await);
    let mut request = Request::builder().method(Method::PUT).uri(format!("{}{query}", content("image")));
    request = request.header("authorization", bearer);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    cloud.send(request.body(vec![7_u8; 4096].into()).unwrap()).await
}

async fn image(cloud: &TestCloud) -> Value {
    cloud.get(&format!("{IMAGES}/image")).await.expect(200)
}

#[tokio::test]
async fn a_dry_run_checks_the_content_and_keeps_nothing() {
    let cloud = cloud().await;
    announce(&cloud, "image", "raw").await;
    let would_be = put(&cloud, "?dry_run=true", &[]).await;
    assert_eq!(would_be.headers["cumulo-dry-run"], "true");
    assert_eq!(would_be.expect(200)["state"], "available");
    assert_eq!(
        (image(&cloud).await["state"].clone(), swept(&cloud).await),
        (json!("awaiting_upload"), (0, 0))
    );
    put(&cloud, "?surprise=1", &[]).await.expect_problem(400, "invalid_query");
    announce(&cloud, "qcow2", "qcow2").await;
    let dry = format!("{}?dry_run=true", content("qcow2"));
    cloud.put_bytes(&dry, vec![7; 4096]).await.expect_problem(422, "image_refused");
}

#[tokio::test]
async fn an_outdated_or_endless_upload_is_refused_before_its_first_byte() {
    let cloud = cloud().await;
    announce(&cloud, "image", "raw").await;
    put(&cloud, "", &[("if-match", "\"9.0\"")]).await.expect_problem(412, "precondition_failed");
    let length = (u64::MAX / 2).to_string();
    put(&cloud, "", &[("content-length", &length)]).await.expect_problem(413, "payload_too_large");
    assert_eq!(swept(&cloud).await, (0, 0));
    let done = put(&cloud, "", &[("if-match", "\"1.0\"")]).await;
    assert_eq!(done.expect(200)["state"], "available");
    assert_eq!(done.headers["etag"], cloud.get(&format!("{IMAGES}/image")).await.headers["etag"]);
}

/// What a killed receiver leaves: a row and a file.
async fn leave_half(cloud: &TestCloud) {
    let id: uuid::Uuid = cloud.app.clock.new_id();
    sqlx::query("INSERT INTO blobs (id, state, created_at, lease_until) VALUES ($1, 'receiving', $2, $2)")
        .bind(id)
        .bind(cloud.app.clock.now())
        .execute(&cloud.app.pool)
        .await
        .unwrap();
    let blobs = cloud.data().join("images/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    // As the store names what is not finished yet.
    std::fs::write(blobs.join(format!("{id}#1")), "half of it").unwrap();
}

#[tokio::test]
async fn what_a_killed_receiver_left_on_the_disk_is_swept() {
    let cloud = cloud().await;
    leave_half(&cloud).await;
    assert_eq!(swept(&cloud).await, (1, 1));
    cloud.pass(1);
    assert_eq!(swept(&cloud).await, (0, 0));
}

/// It may be whole since.
#[tokio::test]
async fn what_was_on_its_way_when_a_backup_was_made_stays() {
    let cloud = cloud().await;
    leave_half(&cloud).await;
    restored_in(&cloud.app.pool, &cloud.app.clock).await.unwrap();
    cloud.pass(1);
    assert_eq!(swept(&cloud).await, (0, 1));
}

//! Uploads in parts: broken, raced, abandoned, and whole in the end.

use axum::body::{Body, Bytes};
use axum::http::{Method, Request};
use serde_json::{Value, json};
use sha2::Digest;

use super::{IMAGES, announce, cloud, swept};
use crate::images::run_imports;
use crate::testing::{Answer, TestCloud};

async fn begin(cloud: &TestCloud, body: Value) -> String {
    announce(cloud, "image", "raw").await;
    again(cloud, body).await
}

async fn again(cloud: &TestCloud, body: Value) -> String {
    let upload = cloud.post(&format!("{IMAGES}/image/uploads"), body).await.expect(201);
    assert_eq!(upload["offset_bytes"], 0);
    format!("{IMAGES}/image/uploads/{}", upload["id"].as_str().unwrap())
}

async fn patch(cloud: &TestCloud, path: &str, offset: &str, body: impl Into<Body>) -> Answer {
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(path)
        .header("authorization", format!("Bearer {}", cloud.token().await))
        .header("upload-offset", offset);
    cloud.send(request.body(body.into()).unwrap()).await
}

/// Finishes, and gives the operation when it has ended.
async fn finish(cloud: &TestCloud, path: &str) -> Value {
    let begun = cloud.post(&format!("{path}/finish"), json!({})).await.expect(202);
    run_imports(&cloud.app).await.unwrap();
    let id = begun["id"].as_str().unwrap();
    cloud.get(&format!("/v1/projects/demo/operations/{id}")).await.expect(200)
}

fn file() -> Vec<u8> {
    (0..3 << 20).map(|i: u32| i.to_le_bytes()[1]).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(sha2::Sha256::digest(bytes))
}

#[tokio::test]
async fn a_file_arrives_in_parts_and_is_hashed_as_a_whole() {
    let cloud = cloud().await;
    let bytes = file();
    let path = begin(&cloud, json!({"size_bytes": bytes.len(), "sha256": sha256(&bytes)})).await;
    let first = patch(&cloud, &path, "0", bytes[..1_000_001].to_vec()).await;
    assert_eq!(first.headers["upload-offset"], "1000001");
    assert_eq!(first.expect(200)["offset_bytes"], 1_000_001);
    let head = cloud.call(Method::HEAD, &path, None).await;
    assert_eq!((head.status.as_u16(), head.headers["upload-offset"].to_str().unwrap()), (200, "1000001"));
    for offset in ["0", "1000000", "1000002", "3145728"] {
        let wrong = patch(&cloud, &path, offset, vec![0; 10]).await.expect_problem(409, "offset_mismatch");
        assert!(wrong["detail"].as_str().unwrap().contains("1000001 bytes have arrived"), "{wrong}");
    }
    for offset in ["-1", "+1", "x", "", "99999999999999999999"] {
        patch(&cloud, &path, offset, vec![0; 10]).await.expect_problem(400, "invalid_header");
    }
    cloud.post(&format!("{path}/finish"), json!({})).await.expect_problem(409, "wrong_state");
    let nothing = patch(&cloud, &path, "1000001", Vec::new()).await;
    assert_eq!(nothing.expect(200)["offset_bytes"], 1_000_001);
    patch(&cloud, &path, "1000001", bytes[1_000_001..].to_vec()).await.expect(200);
    let ended = finish(&cloud, &path).await;
    assert_eq!(
        (&ended["kind"], &ended["status"]),
        (&json!("finish_image_upload"), &json!("succeeded")),
        "{ended}"
    );
    let image = cloud.get(&format!("{IMAGES}/image")).await.expect(200);
    assert_eq!((&image["state"], &image["sha256"]), (&json!("available"), &json!(sha256(&bytes))));
    // The parts are gone, and so is the upload.
    assert_eq!(swept(&cloud).await, (1, 1));
    cloud.get(&path).await.expect_problem(404, "not_found");
    assert_eq!(cloud.get(&format!("{IMAGES}/image/content")).await.body, bytes);
}

#[tokio::test]
async fn what_came_before_the_connection_broke_is_kept() {
    let cloud = cloud().await;
    let bytes = file();
    let path = begin(&cloud, json!({"size_bytes": bytes.len()})).await;
    let chunk = Bytes::from(bytes[..1 << 20].to_vec());
    let broken = [Ok(chunk), Err(std::io::Error::other("cable pulled"))];
    let answer = patch(&cloud, &path, "0", Body::from_stream(futures_util::stream::iter(broken))).await;
    let detail = answer.expect_problem(400, "bad_request")["detail"].clone();
    assert!(detail.as_str().unwrap().contains("1048576 bytes have arrived"), "{detail}");
    // The server is killed in the middle of the next request: its piece is lost, the offset is right.
    let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let some = futures_util::stream::iter([Ok(Bytes::from(vec![1; 1000]))]);
    let stuck = Body::from_stream(futures_util::StreamExt::chain(some, never));
    let dropped =
        tokio::time::timeout(std::time::Duration::from_secs(1), patch(&cloud, &path, "1048576", stuck));
    assert!(dropped.await.is_err());
    assert_eq!(cloud.get(&path).await.expect(200)["offset_bytes"], 1 << 20);
    patch(&cloud, &path, "1048576", bytes[1 << 20..].to_vec()).await.expect(200);
    assert_eq!(finish(&cloud, &path).await["status"], "succeeded");
    let image = cloud.get(&format!("{IMAGES}/image")).await.expect(200);
    assert_eq!(image["sha256"], sha256(&bytes));
    cloud.pass(601);
    assert_eq!(swept(&cloud).await, (1, 1));
}

#[tokio::test]
async fn of_two_writers_at_one_offset_exactly_one_wins() {
    let cloud = cloud().await;
    let path = begin(&cloud, json!({"size_bytes": 4096})).await;
    let (a, b, c) = tokio::join!(
        patch(&cloud, &path, "0", vec![1; 4096]),
        patch(&cloud, &path, "0", vec![2; 4096]),
        patch(&cloud, &path, "0", vec![3; 4096])
    );
    let mut statuses = [&a, &b, &c].map(|answer| answer.status.as_u16());
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409]);
    assert_eq!(swept(&cloud).await, (1, 1));
    let winner = [&a, &b, &c].iter().position(|answer| answer.status == 200).unwrap();
    finish(&cloud, &path).await;
    let stored = cloud.get(&format!("{IMAGES}/image/content")).await.body;
    assert_eq!(stored, vec![u8::try_from(winner).unwrap() + 1; 4096]);
}

#[tokio::test]
async fn a_file_that_is_wrong_or_too_long_is_refused_and_sent_again() {
    let cloud = cloud().await;
    let path = begin(&cloud, json!({"size_bytes": 1024, "sha256": "0".repeat(64)})).await;
    patch(&cloud, &path, "0", vec![0; 1025]).await.expect_problem(413, "payload_too_large");
    assert_eq!(cloud.get(&path).await.expect(200)["offset_bytes"], 1024);
    let ended = finish(&cloud, &path).await;
    assert_eq!(ended["error"]["code"], "checksum_mismatch", "{ended}");
    assert_eq!(cloud.get(&format!("{IMAGES}/image")).await.expect(200)["state"], "failed");
    assert_eq!(swept(&cloud).await, (0, 0));
    let path = again(&cloud, json!({"size_bytes": 1024})).await;
    patch(&cloud, &path, "0", vec![0; 1024]).await.expect(200);
    assert_eq!(finish(&cloud, &path).await["status"], "succeeded");
    let uploads = format!("{IMAGES}/image/uploads");
    cloud.post(&uploads, json!({"size_bytes": 1})).await.expect_problem(409, "wrong_state");
    cloud.post(&uploads, json!({"size_bytes": 0})).await.expect_problem(422, "validation_failed");
    cloud
        .post(&uploads, json!({"size_bytes": (256_i64 << 30) + 1}))
        .await
        .expect_problem(413, "payload_too_large");
}

#[tokio::test]
async fn abandoned_and_deleted_uploads_are_swept() {
    let cloud = cloud().await;
    let path = begin(&cloud, json!({"size_bytes": 4096})).await;
    patch(&cloud, &path, "0", vec![0; 1024]).await.expect(200);
    cloud.pass(600);
    let other = again(&cloud, json!({"size_bytes": 4096})).await;
    patch(&cloud, &other, "0", vec![0; 1024]).await.expect(200);
    cloud.pass(24 * 3600 - 601);
    assert_eq!(swept(&cloud).await, (2, 2));
    cloud.pass(1);
    assert_eq!(swept(&cloud).await, (1, 1));
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM image_uploads").fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn an_upload_goes_with_its_image_or_when_its_owner_says_so() {
    let cloud = cloud().await;
    let first = begin(&cloud, json!({"size_bytes": 4096})).await;
    patch(&cloud, &first, "0", vec![0; 1024]).await.expect(200);
    let second = again(&cloud, json!({"size_bytes": 4096})).await;
    patch(&cloud, &second, "0", vec![0; 1024]).await.expect(200);
    again(&cloud, json!({"size_bytes": 4096})).await;
    let uploads = format!("{IMAGES}/image/uploads");
    cloud.post(&uploads, json!({"size_bytes": 4096})).await.expect_problem(409, "wrong_state");
    cloud.delete(&first).await.expect(204);
    cloud.delete(&first).await.expect_problem(404, "not_found");
    assert_eq!(swept(&cloud).await, (1, 1));
    cloud.delete(&format!("{IMAGES}/image")).await.expect(204);
    assert_eq!(swept(&cloud).await, (0, 0));
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM image_uploads").fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(left, 0);
}

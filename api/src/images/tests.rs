//! Uploads, honest and otherwise.

mod disk_ends;
mod disks;
mod edges;
mod export;
mod formats;
mod guide;
mod held;
mod import;
mod import_ends;
mod import_https;
mod lifecycle;
mod migration;
mod properties;
mod s3;
mod server;
mod sharing;
mod uploads;
mod verify;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request};
use serde_json::json;
use sha2::Digest;

use super::sweep;
use crate::testing::TestCloud;

const IMAGES: &str = "/v1/projects/demo/images";

async fn cloud() -> TestCloud {
    let cloud = TestCloud::start().await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    cloud
}

async fn announce(cloud: &TestCloud, name: &str, format: &str) {
    cloud.post(IMAGES, json!({"name": name, "format": format})).await.expect(201);
}

fn content(name: &str) -> String {
    format!("{IMAGES}/{name}/content")
}

/// How many blobs there are, as rows and as files, after a sweep.
async fn swept(cloud: &TestCloud) -> (i64, usize) {
    sweep(&cloud.app).await.unwrap();
    let rows = sqlx::query_scalar("SELECT count(*) FROM blobs").fetch_one(&cloud.app.pool).await.unwrap();
    let files = std::fs::read_dir(cloud.data().join("images/blobs")).map_or(0, Iterator::count);
    (rows, files)
}

#[tokio::test]
async fn images_of_equal_content_share_a_file_until_the_last_one_goes() {
    let cloud = cloud().await;
    let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| i.to_le_bytes()[1]).collect();
    for name in ["one", "two"] {
        announce(&cloud, name, "raw").await;
        let image = cloud.put_bytes(&content(name), bytes.clone()).await.expect(200);
        assert_eq!(image["state"], "available");
        assert_eq!(image["sha256"], hex::encode(sha2::Sha256::digest(&bytes)));
        assert_eq!((&image["size_bytes"], &image["virtual_size_bytes"]), (&json!(1 << 20), &json!(1 << 20)));
    }
    assert_eq!(swept(&cloud).await, (1, 1));
    cloud.put_bytes(&content("one"), bytes).await.expect_problem(409, "wrong_state");
    cloud.delete(&format!("{IMAGES}/one")).await.expect(204);
    assert_eq!(swept(&cloud).await, (1, 1));
    cloud.delete(&format!("{IMAGES}/two")).await.expect(204);
    assert_eq!(swept(&cloud).await, (0, 0));
}

#[tokio::test]
async fn what_is_refused_leaves_nothing() {
    let cloud = cloud().await;
    let mut backed = vec![0_u8; 512];
    backed[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let truncated = backed.clone();
    for (name, format, bytes, code) in [
        ("empty", "raw", Vec::new(), "image_refused"),
        ("odd", "raw", vec![0; 1000], "image_refused"),
        ("secret-qcow2", "raw", truncated.clone(), "image_refused"),
        ("not-qcow2", "qcow2", vec![0; 4096], "image_refused"),
        ("truncated", "qcow2", truncated, "image_refused"),
    ] {
        announce(&cloud, name, format).await;
        cloud.put_bytes(&content(name), bytes).await.expect_problem(422, code);
        let image = cloud.get(&format!("{IMAGES}/{name}")).await.expect(200);
        assert_eq!(image["state"], "awaiting_upload", "{name}");
    }
    let promised = json!({"name": "lying", "format": "raw", "sha256": "0".repeat(64)});
    cloud.post(IMAGES, promised).await.expect(201);
    cloud.put_bytes(&content("lying"), vec![0; 512]).await.expect_problem(422, "checksum_mismatch");
    assert_eq!(swept(&cloud).await, (0, 0));
}

#[tokio::test]
async fn a_sender_that_breaks_off_leaves_nothing_and_may_come_back() {
    let cloud = cloud().await;
    announce(&cloud, "image", "raw").await;
    let chunks = (0..12).map(|_| Ok(Bytes::from(vec![7; 1 << 20])));
    let broken = chunks.chain([Err(std::io::Error::other("cable pulled"))]);
    let request = Request::builder()
        .method(Method::PUT)
        .uri(content("image"))
        .header("authorization", format!("Bearer {}", cloud.token().await))
        .body(Body::from_stream(futures_util::stream::iter(broken)))
        .unwrap();
    cloud.send(request).await.expect_problem(400, "bad_request");
    assert_eq!(swept(&cloud).await, (0, 0));
    cloud.put_bytes(&content("image"), vec![0; 512]).await.expect(200);
}

#[tokio::test]
async fn an_upload_whose_receiver_died_is_swept_when_its_lease_is_over() {
    let cloud = cloud().await;
    announce(&cloud, "image", "raw").await;
    let request = Request::builder()
        .method(Method::PUT)
        .uri(content("image"))
        .header("authorization", format!("Bearer {}", cloud.token().await))
        .body(Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>()))
        .unwrap();
    // The receiver is dropped in the middle of it, like by a kill.
    let dropped = tokio::time::timeout(std::time::Duration::from_secs(2), cloud.send(request)).await;
    assert!(dropped.is_err());
    assert_eq!(swept(&cloud).await.0, 1);
    cloud.pass(601);
    assert_eq!(swept(&cloud).await, (0, 0));
}

#[tokio::test]
async fn of_two_uploads_at_once_one_wins() {
    let cloud = cloud().await;
    announce(&cloud, "image", "raw").await;
    let path = content("image");
    let (a, b) = tokio::join!(cloud.put_bytes(&path, vec![1; 4096]), cloud.put_bytes(&path, vec![2; 4096]));
    let mut statuses = [a.status.as_u16(), b.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    assert_eq!(swept(&cloud).await, (1, 1));
}

#[tokio::test]
async fn only_a_host_with_an_instance_of_it_gets_the_bytes() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    let digest = hex::encode(sha2::Sha256::digest(vec![0_u8; 4096]));
    let path = format!("/agent/v1/blobs/{digest}");
    host.call(Method::GET, &path, None).await.expect_problem(404, "not_found");
    crate::instances::place_pending(&cloud.app).await.unwrap();
    let answer = host.call(Method::GET, &path, None).await;
    assert_eq!((answer.status.as_u16(), answer.body), (200, vec![0; 4096]));
    let stranger = cloud.join_host("host-2").await;
    stranger.call(Method::GET, &path, None).await.expect_problem(404, "not_found");
    host.call(Method::GET, "/agent/v1/blobs/..%2f..%2fetc", None).await.expect_problem(404, "not_found");
}

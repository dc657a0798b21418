//! What files and open uploads count for.

use axum::http::Method;
use serde_json::json;

use super::{IMAGES, announce, cloud, content, swept};
use crate::quotas;
use crate::testing::TestCloud;

async fn used(cloud: &TestCloud) -> i64 {
    let quotas = cloud.get("/v1/projects/demo/quotas").await.expect(200);
    let quota = quotas["items"].as_array().unwrap().iter().find(|quota| quota["resource"] == "image_gib");
    let drifts = quotas::drift(&mut cloud.app.pool.acquire().await.unwrap()).await.unwrap();
    assert_eq!(drifts, []);
    quota.unwrap()["used"].as_i64().unwrap()
}

async fn limit(cloud: &TestCloud, gib: i64) {
    let limits = json!({"image_gib": gib});
    cloud.call(Method::PATCH, "/v1/projects/demo/quotas", Some(limits)).await.expect(200);
}

#[tokio::test]
async fn files_count_for_as_long_as_their_images_are_there() {
    let cloud = cloud().await;
    for name in ["one", "two", "three"] {
        announce(&cloud, name, "raw").await;
    }
    limit(&cloud, 2).await;
    cloud.put_bytes(&format!("{}?dry_run=true", content("one")), vec![1; 4096]).await.expect(200);
    cloud.put_bytes(&content("one"), vec![1; 1000]).await.expect_problem(422, "image_refused");
    assert_eq!(used(&cloud).await, 0);
    // Each counts, though the bytes are stored once.
    for name in ["one", "two"] {
        cloud.put_bytes(&content(name), vec![1; 4096]).await.expect(200);
    }
    assert_eq!(used(&cloud).await, 2);
    let refused =
        cloud.put_bytes(&content("three"), vec![1; 4096]).await.expect_problem(409, "quota_exceeded");
    assert_eq!(refused["quota"], json!([{"resource": "image_gib", "limit": 2, "used": 2, "asked": 1}]));
    assert!(refused["detail"].as_str().unwrap().contains("open uploads"), "{refused}");
    assert_eq!(swept(&cloud).await, (1, 1));
    cloud.delete(&format!("{IMAGES}/one")).await.expect(204);
    cloud.put_bytes(&content("three"), vec![1; 4096]).await.expect(200);
    assert_eq!(used(&cloud).await, 2);
}

#[tokio::test]
async fn an_open_upload_counts_for_all_that_it_announces() {
    let cloud = cloud().await;
    announce(&cloud, "image", "raw").await;
    announce(&cloud, "other", "raw").await;
    limit(&cloud, 3).await;
    let uploads = format!("{IMAGES}/image/uploads");
    let gib = 1_i64 << 30;
    let upload = cloud.post(&uploads, json!({"size_bytes": gib + 1})).await.expect(201);
    assert_eq!(used(&cloud).await, 2);
    let more = json!({"size_bytes": 2 * gib});
    cloud.post(&format!("{IMAGES}/other/uploads"), more.clone()).await.expect_problem(409, "quota_exceeded");
    let second = cloud.post(&uploads, json!({"size_bytes": 1})).await.expect(201);
    let listed = cloud.get(&uploads).await.expect(200);
    assert_eq!(listed["items"], json!([upload, second]));
    assert_eq!(cloud.get(&format!("{IMAGES}/other/uploads")).await.expect(200)["items"], json!([]));
    cloud.delete(&format!("{uploads}/{}", upload["id"].as_str().unwrap())).await.expect(204);
    assert_eq!(used(&cloud).await, 1);
    cloud.post(&format!("{IMAGES}/other/uploads"), more).await.expect(201);
    assert_eq!(used(&cloud).await, 3);
    cloud.delete(&format!("{IMAGES}/other")).await.expect(204);
    assert_eq!(used(&cloud).await, 1);
    cloud.pass(24 * 3600 + 1);
    swept(&cloud).await;
    cloud.sign_in_again().await;
    assert_eq!(used(&cloud).await, 0);
}

#[tokio::test]
async fn what_is_on_its_way_counts_and_a_dead_receiver_gives_back() {
    let cloud = cloud().await;
    announce(&cloud, "image", "raw").await;
    let request = axum::http::Request::builder()
        .method(Method::PUT)
        .uri(content("image"))
        .header("authorization", format!("Bearer {}", cloud.token().await))
        .header("content-length", (5_u64 << 30).to_string())
        .body(axum::body::Body::from_stream(futures_util::stream::pending::<
            Result<axum::body::Bytes, std::io::Error>,
        >()))
        .unwrap();
    let dropped = tokio::time::timeout(std::time::Duration::from_secs(1), cloud.send(request)).await;
    assert!(dropped.is_err());
    assert_eq!(used(&cloud).await, 5);
    cloud.pass(601);
    swept(&cloud).await;
    assert_eq!(used(&cloud).await, 0);
}

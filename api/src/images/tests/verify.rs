//! Files without rows, rows without files.

use serde_json::json;

use super::{IMAGES, announce, cloud, content};
use crate::images::verify_files;
use crate::testing::TestCloud;

async fn codes(cloud: &TestCloud) -> Vec<String> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let broken = verify_files(&mut conn, &cloud.app.images).await.unwrap();
    let mut codes: Vec<_> = broken.into_iter().map(|broken| broken.code).collect();
    codes.sort_unstable();
    codes
}

#[tokio::test]
async fn a_file_and_its_row_belong_together() {
    let cloud = cloud().await;
    assert_eq!(codes(&cloud).await, Vec::<&str>::new());
    for name in ["one", "two"] {
        announce(&cloud, name, "raw").await;
    }
    cloud.put_bytes(&content("one"), vec![1; 4096]).await.expect(200);
    let upload = cloud.post(&format!("{IMAGES}/two/uploads"), json!({"size_bytes": 9})).await.expect(201);
    let path = format!("{IMAGES}/two/uploads/{}", upload["id"].as_str().unwrap());
    let request = axum::http::Request::patch(path)
        .header("authorization", format!("Bearer {}", cloud.token().await))
        .header("upload-offset", "0");
    cloud.send(request.body(vec![1; 5].into()).unwrap()).await.expect(200);
    assert_eq!(codes(&cloud).await, Vec::<&str>::new());
    let blobs = cloud.data().join("images/blobs");
    let id: uuid::Uuid = cloud.app.clock.new_id();
    std::fs::write(blobs.join(id.to_string()), "stray").unwrap();
    std::fs::write(blobs.join("notes.txt"), "stray").unwrap();
    assert_eq!(codes(&cloud).await, ["blob_unknown", "blob_without_row"]);
    let stored = "SELECT id FROM blobs WHERE state = $1";
    let stored_id = async |state| -> uuid::Uuid {
        sqlx::query_scalar(stored).bind(state).fetch_one(&cloud.app.pool).await.unwrap()
    };
    std::fs::write(blobs.join(stored_id("stored").await.to_string()), "short").unwrap();
    std::fs::remove_file(blobs.join(stored_id("part").await.to_string())).unwrap();
    let all = ["blob_size_differs", "blob_unknown", "blob_without_file", "blob_without_row"];
    assert_eq!(codes(&cloud).await, all);
}

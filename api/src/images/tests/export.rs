//! Exports, whole and in ranges.

use axum::http::Method;
use base64::Engine as _;
use serde_json::json;
use sha2::Digest;

use super::{announce, cloud, content};
use crate::testing::{Answer, TestCloud};

async fn get(cloud: &TestCloud, headers: &[(&str, &str)]) -> Answer {
    cloud.call_with(Method::GET, &content("image"), headers, None).await
}

#[tokio::test]
async fn a_file_comes_back_whole_or_in_parts() {
    let cloud = cloud().await;
    announce(&cloud, "image", "raw").await;
    get(&cloud, &[]).await.expect_problem(409, "wrong_state");
    let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| i.to_le_bytes()[1]).collect();
    cloud.put_bytes(&content("image"), bytes.clone()).await.expect(200);
    let digest = sha2::Sha256::digest(&bytes);
    let etag = format!("\"{}\"", hex::encode(digest));
    let whole = get(&cloud, &[]).await;
    assert_eq!((whole.status.as_u16(), whole.body == bytes), (200, true));
    for (name, value) in [
        ("etag", etag.clone()),
        ("content-length", (1 << 20).to_string()),
        ("accept-ranges", "bytes".to_owned()),
        ("content-type", "application/octet-stream".to_owned()),
        ("content-disposition", "attachment; filename=\"image.raw\"".to_owned()),
        ("repr-digest", format!("sha-256=:{}:", base64::engine::general_purpose::STANDARD.encode(digest))),
    ] {
        assert_eq!(whole.headers[name], value, "{name}");
    }
    let head = cloud.call(Method::HEAD, &content("image"), None).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.headers["content-length"], (1 << 20).to_string());
    for (range, start, end) in
        [("bytes=0-0", 0, 1), ("bytes=1000000-", 1_000_000, 1 << 20), ("bytes=-5", (1 << 20) - 5, 1 << 20)]
    {
        let part = get(&cloud, &[("range", range), ("if-range", &etag)]).await;
        assert_eq!((part.status.as_u16(), part.body == bytes[start..end]), (206, true), "{range}");
        assert_eq!(part.headers["content-range"], format!("bytes {start}-{}/{}", end - 1, 1 << 20));
        assert_eq!(part.headers["content-length"], (end - start).to_string());
    }
    let other = get(&cloud, &[("range", "bytes=5-"), ("if-range", "\"other\"")]).await;
    assert_eq!((other.status.as_u16(), other.body.len()), (200, 1 << 20));
    get(&cloud, &[("range", "bytes=1048576-")]).await.expect_problem(416, "range_not_satisfiable");
    let known = get(&cloud, &[("if-none-match", &etag)]).await;
    assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
}

#[tokio::test]
async fn seeing_an_image_is_not_having_it() {
    let cloud = cloud().await;
    announce(&cloud, "image", "raw").await;
    cloud.put_bytes(&content("image"), vec![0; 512]).await.expect(200);
    let reader = cloud.user("reader", false).await;
    let body = json!({"policy": "read-only", "user": "reader"});
    cloud.post("/v1/projects/demo/policy_attachments", body).await.expect(201);
    let headers = [("authorization", reader.as_str())];
    cloud.call_with(Method::GET, &format!("{}/image", super::IMAGES), &headers, None).await.expect(200);
    let denied = get(&cloud, &headers).await.expect_problem(403, "forbidden");
    assert_eq!(denied["denial"]["action"], "image:ExportImage", "{denied}");
}

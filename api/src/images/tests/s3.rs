//! The image store on a real S3 server.
//!
//! `deploy/checks/s3-store` runs these on one. By hand: start one with an empty bucket, and say where:
//! `CUMULO_TEST_S3=http://127.0.0.1:9000/bucket`, with its credentials in
//! `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.

use axum::body::Bytes;
use futures_util::TryStreamExt;
use protocol::{BlobId, Sha256};
use sha2::Digest;

use crate::clock::Clock;
use crate::images::{ImageStore, ImageStoreOptions};

fn store() -> ImageStore {
    let url = std::env::var("CUMULO_TEST_S3").expect("CUMULO_TEST_S3 names a server and a bucket");
    let (endpoint, bucket) = url.rsplit_once('/').unwrap();
    let options = ImageStoreOptions {
        image_store_bucket: Some(bucket.to_owned()),
        image_store_endpoint: Some(endpoint.to_owned()),
        image_store_region: "us-east-1".to_owned(),
        image_store_credentials: None,
    };
    options.open(camino::Utf8Path::new("/nowhere")).unwrap()
}

async fn ids(store: &ImageStore) -> Vec<(Option<BlobId>, u64)> {
    store.list().map_ok(|file| (file.id, file.size_bytes)).try_collect().await.unwrap()
}

#[tokio::test]
#[ignore = "needs an S3 server, see the head of this file"]
async fn a_blob_goes_in_in_parts_and_comes_out_in_ranges() {
    let store = store();
    let before = ids(&store).await.len();
    let id: BlobId = Clock::system().new_id();
    // More than two parts, in pieces that do not fit them.
    let bytes: Vec<u8> = (0..20 << 20).map(|i: u32| (i / 7).to_le_bytes()[0]).collect();
    let pieces = bytes.chunks(1_000_003).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)));
    let length = Some(bytes.len() as u64);
    let received = store.receive(id, futures_util::stream::iter(pieces), length, 1 << 30).await.unwrap();
    assert_eq!(received.size_bytes, bytes.len() as u64);
    assert_eq!(received.sha256, Sha256::from_bytes(sha2::Sha256::digest(&bytes).into()));
    let whole: Vec<Bytes> = store.stream(id).await.unwrap().try_collect().await.unwrap();
    assert!(whole.concat() == bytes);
    let range = (9 << 20)..(17 << 20);
    let part: Vec<Bytes> = store.stream_range(id, range.clone()).await.unwrap().try_collect().await.unwrap();
    assert!(part.concat() == bytes[range.start as usize..range.end as usize]);
    assert_eq!(store.read(id, 5..9).await.unwrap(), bytes[5..9]);
    assert_eq!(store.size(id).await.unwrap(), length);
    assert!(ids(&store).await.contains(&(Some(id), bytes.len() as u64)));
    store.remove(id).await.unwrap();
    store.remove(id).await.unwrap();
    assert_eq!((store.size(id).await.unwrap(), ids(&store).await.len()), (None, before));
}

#[tokio::test]
#[ignore = "needs an S3 server, see the head of this file"]
async fn what_breaks_off_leaves_no_blob() {
    let store = store();
    let id: BlobId = Clock::system().new_id();
    let broken = [Ok(Bytes::from(vec![0; 9 << 20])), Err(std::io::Error::other("cable pulled"))];
    store.receive(id, futures_util::stream::iter(broken), None, 1 << 30).await.unwrap_err();
    let long = [Ok::<_, std::io::Error>(Bytes::from(vec![0; 9 << 20]))];
    store.receive(id, futures_util::stream::iter(long), None, 1 << 20).await.unwrap_err();
    assert_eq!(store.size(id).await.unwrap(), None);
}

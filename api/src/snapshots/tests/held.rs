//! What sealed layers count for.

use axum::http::Method;
use serde_json::json;

use super::merging::{data, remove_all, report_merged};
use super::{SNAPSHOTS, VOLUMES, count, findings, follow, running, snapshot, stop, web};
use crate::testing::TestCloud;
use crate::volumes::merge;

async fn used(cloud: &TestCloud) -> i64 {
    let quotas = cloud.get("/v1/projects/demo/quotas").await.expect(200);
    let quota = quotas["items"].as_array().unwrap().iter().find(|quota| quota["resource"] == "snapshot_gib");
    quota.unwrap()["used"].as_i64().unwrap()
}

async fn limit(cloud: &TestCloud, gib: i64) {
    let limits = json!({"snapshot_gib": gib});
    cloud.call(Method::PATCH, "/v1/projects/demo/quotas", Some(limits)).await.expect(200);
}

#[tokio::test]
async fn what_a_snapshot_leaves_counts_until_its_files_are_gone() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    snapshot(&cloud, "one", json!({"volume": "data"})).await.expect(202);
    follow(&host, &instance, running()).await;
    assert_eq!(used(&cloud).await, 2);
    limit(&cloud, 3).await;
    let refused = snapshot(&cloud, "two", json!({"instance": "web"})).await;
    let refused = refused.expect_problem(409, "quota_exceeded");
    let over = &refused["quota"][0];
    assert_eq!((&over["resource"], &over["limit"]), (&json!("snapshot_gib"), &json!(3)));
    assert_eq!(over["used"].as_i64().zip(over["asked"].as_i64()).map(|(used, asked)| used + asked), Some(5));
    assert!(refused["detail"].as_str().unwrap().contains("delete snapshots"), "{refused}");
    assert_eq!(used(&cloud).await, 2);

    // Filled again and again, with the snapshot deleted each time: what is not merged yet still counts.
    cloud.delete(&format!("{SNAPSHOTS}/one")).await.expect(204);
    assert_eq!(used(&cloud).await, 2);
    snapshot(&cloud, "next", json!({"volume": "data"})).await.expect_problem(409, "quota_exceeded");
    // Making room may take room, whatever the limit says.
    merge(&cloud.app).await.unwrap();
    merge(&cloud.app).await.unwrap();
    assert_eq!(used(&cloud).await, 4);
    let (_, asked) = data(&host, &instance).await;
    let middle = asked["merges"].clone();
    report_merged(&host, &instance, 1, middle).await;
    for _ in 0..3 {
        merge(&cloud.app).await.unwrap();
    }
    assert_eq!(used(&cloud).await, 4, "its file is still there");
    remove_all(&host).await;
    assert_eq!(used(&cloud).await, 2);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_layer_that_took_in_a_larger_one_counts_for_as_much() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    snapshot(&cloud, "one", json!({"volume": "data"})).await.expect(202);
    follow(&host, &instance, running()).await;
    let grown = json!({"size_gib": 5});
    cloud.call(Method::PATCH, &format!("{VOLUMES}/data"), Some(grown)).await.expect(202);
    follow(&host, &instance, running()).await;
    snapshot(&cloud, "two", json!({"volume": "data"})).await.expect(202);
    follow(&host, &instance, running()).await;
    assert_eq!(used(&cloud).await, 7);
    limit(&cloud, 1).await;
    cloud.delete(&format!("{SNAPSHOTS}/one")).await.expect(204);
    merge(&cloud.app).await.unwrap();
    let (_, asked) = data(&host, &instance).await;
    report_merged(&host, &instance, 1, asked["merges"].clone()).await;
    merge(&cloud.app).await.unwrap();
    remove_all(&host).await;
    assert_eq!(used(&cloud).await, 5);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_was_never_written_counts_for_nothing_and_what_goes_gives_back() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    cloud.post(VOLUMES, json!({"name": "empty", "size_gib": 9})).await.expect(201);
    for name in ["one", "two"] {
        snapshot(&cloud, name, json!({"volume": "empty"})).await.expect(201);
    }
    assert_eq!(used(&cloud).await, 0);
    let instance = web(&cloud, &host).await;
    stop(&cloud, &host, &instance).await;
    cloud.post(VOLUMES, json!({"name": "copy", "source": {"volume": "data"}})).await.expect(201);
    assert_eq!(used(&cloud).await, 2, "both stand on what was sealed for the copy");
    // What nobody put on a host goes at once, what is there with its files.
    cloud.delete(&format!("{VOLUMES}/copy")).await.expect(202);
    cloud.delete(&format!("{SNAPSHOTS}/one")).await.expect(204);
    let layers = "SELECT coalesce(sum(held_gib), 0)::bigint FROM layers WHERE kept";
    assert_eq!((used(&cloud).await, count(&cloud, layers).await), (2, 2));
    let gone = cloud.delete("/v1/projects/demo/instances/web").await.expect(202);
    assert_eq!(gone["state"], "deleting");
    let generation = count(&cloud, "SELECT generation FROM instances").await;
    host.report(&instance["id"], generation, 1, json!({"state": "absent"})).await;
    remove_all(&host).await;
    assert_eq!(used(&cloud).await, 2, "the volume stays, and what it stands on");
    cloud.delete(&format!("{VOLUMES}/data")).await.expect(202);
    assert_eq!(used(&cloud).await, 2);
    remove_all(&host).await;
    assert_eq!(used(&cloud).await, 0);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

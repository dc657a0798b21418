//! Disks in a shared pool on their way into images.

use serde_json::{Value, json};

use super::{directory, fast, findings, instance, made, two_with_the_pool};
use crate::pools::assign_orders;
use crate::testing::{TestCloud, TestHost};

async fn orders(host: &TestHost<'_>) -> Vec<Value> {
    let page = host.desired(0).await;
    let objects = page["objects"].as_array().unwrap().iter();
    objects.filter(|object| object["kind"] == "send_image").cloned().collect()
}

#[tokio::test]
async fn another_host_sends_when_the_first_has_fallen_silent() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, _) = made(&cloud, &hosts, instance("web")).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    cloud.post("/v1/projects/demo/snapshots", json!({"name": "one", "instance": "web"})).await.expect(202);
    let (generation, _) = home.disks(&web["id"]).await.unwrap();
    home.report(&web["id"], generation, 1, json!({"state": "running"})).await;
    let body = json!({"name": "copy", "source": {"snapshot": "one"}});
    let image = cloud.post("/v1/projects/demo/images", body).await.expect(202);
    let [one, other] = &hosts;
    let (first, second) = if orders(one).await.is_empty() { (other, one) } else { (one, other) };
    assert_eq!((orders(first).await.len(), orders(second).await.len()), (1, 0));
    assign_orders(&cloud.app).await.unwrap();
    assert_eq!(orders(second).await.len(), 0, "the first is heard");

    cloud.pass(30);
    second.beat(json!([fast(directory(1), 20)])).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    assign_orders(&cloud.app).await.unwrap();
    assert_eq!((orders(first).await.len(), orders(second).await.len()), (0, 1));
    assert_eq!(orders(second).await[0]["transfer_id"], image["operation_id"]);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

//! What is in a pool is removed by any host that has it.

use serde_json::{Value, json};

use super::{
    DATA, FAST, INSTANCES, VOLUMES, WEB, directory, fast, findings, instance, made, two_with_the_pool,
};
use crate::pools::assign_orders;
use crate::testing::{TestCloud, TestHost};

/// The orders of a host to remove layers.
async fn orders(host: &TestHost<'_>) -> Vec<Value> {
    let page = host.desired(0).await;
    let objects = page["objects"].as_array().unwrap().clone();
    objects.into_iter().filter(|object| object["kind"] == "remove_layers").collect()
}

async fn data(cloud: &TestCloud) -> Value {
    cloud.post(VOLUMES, json!({"name": "data", "size_gib": 2, "pool": "fast"})).await.expect(201)
}

#[tokio::test]
async fn an_order_of_a_lost_host_goes_to_another_one() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    data(&cloud).await;
    let deleting = cloud.delete(DATA).await.expect(202);
    let told = [orders(&hosts[0]).await, orders(&hosts[1]).await];
    assert_eq!(told[0].len() + told[1].len(), 1, "{told:?}");
    let lost = usize::from(told[0].is_empty());
    let order = &told[lost][0];
    assert_eq!((&order["pool"], order["layers"].as_array().unwrap().len()), (&json!("fast"), 1));
    assign_orders(&cloud.app).await.unwrap();
    assert_eq!(orders(&hosts[1 - lost]).await, Vec::<Value>::new(), "its host is not lost");

    cloud.pass(30);
    hosts[1 - lost].beat(json!([fast(directory(1), 20)])).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    assign_orders(&cloud.app).await.unwrap();
    let again = orders(&hosts[1 - lost]).await;
    assert_eq!(again[0]["removal_id"], order["removal_id"]);
    assert_eq!(orders(&hosts[lost]).await, Vec::<Value>::new());
    // Late word of the other one ends nothing.
    hosts[lost].report_removed(json!([order["removal_id"]])).await;
    assert_eq!(cloud.get(DATA).await.expect(200)["state"], "deleting");
    hosts[1 - lost].report_removed(json!([order["removal_id"]])).await;
    cloud.get(DATA).await.expect_problem(404, "not_found");
    let operation = deleting["operation"]["id"].as_str().unwrap();
    let operation = cloud.get(&format!("/v1/projects/demo/operations/{operation}")).await.expect(200);
    assert_eq!(operation["status"], "succeeded");
    assert_eq!(cloud.get(FAST).await.expect(200)["disk_gib"]["reserved"], 0);
    cloud.delete(FAST).await.expect(204);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_pool_and_its_last_host_stay_until_files_are_removed() {
    let cloud = TestCloud::start().await;
    let [last, other] = &two_with_the_pool(&cloud).await;
    data(&cloud).await;
    other.beat(json!([])).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    cloud.delete(DATA).await.expect(202);
    let says = async |path: &str, what: &str| {
        let refused = cloud.delete(path).await.expect_problem(409, "in_use");
        assert!(refused["detail"].as_str().unwrap().contains(what), "{refused}");
    };
    says("/v1/hosts/host-1", "files to be removed in a pool that no other host has (fast)").await;
    let order = orders(last).await.pop().expect("it is not told");
    // A volume that is shown no more, of which files are still there.
    let gone = "DELETE FROM volumes; DELETE FROM layers";
    super::execute(&cloud, gone).await;
    says(FAST, "hosts still remove files").await;
    last.report_removed(json!([order["removal_id"]])).await;
    cloud.delete(FAST).await.expect(204);
    cloud.delete("/v1/hosts/host-1").await.expect(204);
}

#[tokio::test]
async fn an_order_waits_for_a_host_that_has_the_pool() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    data(&cloud).await;
    for host in &hosts {
        host.beat(json!([])).await.expect(200);
    }
    cloud.delete(DATA).await.expect(202);
    assign_orders(&cloud.app).await.unwrap();
    for host in &hosts {
        assert_eq!(orders(host).await, Vec::<Value>::new());
    }
    hosts[1].beat(json!([fast(directory(1), 20)])).await.expect(200);
    assign_orders(&cloud.app).await.unwrap();
    let order = orders(&hosts[1]).await.pop().expect("it is not told");
    hosts[1].report_removed(json!([order["removal_id"]])).await;
    cloud.get(DATA).await.expect_problem(404, "not_found");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_goes_with_an_instance_is_removed_by_its_host() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let mut body = instance("web");
    body["volumes"] = json!([{"size_gib": 1, "name": "own", "delete_with_instance": true}]);
    let (web, home, away) = made(&cloud, &hosts, body).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    cloud.delete(WEB).await.expect(202);
    assign_orders(&cloud.app).await.unwrap();
    assert_eq!(orders(away).await, Vec::<Value>::new());
    let told = home.desired(0).await["objects"][0].clone();
    assert_eq!((&told["kind"], &told["pools"]), (&json!("delete_instance"), &json!(["fast"])));
    assert_eq!(told["layers"].as_array().unwrap().len(), 2);
    home.report(&web["id"], 2, 1, json!({"state": "absent"})).await;
    assert_eq!(cloud.get(FAST).await.expect(200)["disk_gib"]["reserved"], 0);
    // One that never was on a host has nothing there.
    cloud.post(INSTANCES, instance("next")).await.expect(202);
    cloud.delete(&format!("{INSTANCES}/next")).await.expect(202);
    for order in [orders(home).await, orders(away).await].concat() {
        for host in &hosts {
            host.report_removed(json!([order["removal_id"]])).await;
        }
    }
    assert_eq!(cloud.get(FAST).await.expect(200)["disk_gib"]["reserved"], 0);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_volume_from_a_snapshot_is_in_the_pool_of_that() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    cloud.post("/v1/pools", json!({"name": "slow"})).await.expect(201);
    data(&cloud).await;
    let snapshot = json!({"name": "before", "volume": "data"});
    cloud.post("/v1/projects/demo/snapshots", snapshot).await.expect(201);
    let from =
        |name: &str, pool: Value| json!({"name": name, "pool": pool, "source": {"snapshot": "before"}});
    let elsewhere = cloud.post(VOLUMES, from("copy", json!("slow"))).await;
    assert_eq!(elsewhere.expect_problem(422, "validation_failed")["errors"][0]["pointer"], "/pool");
    let copy = cloud.post(VOLUMES, from("copy", Value::Null)).await.expect(201);
    assert_eq!(copy["pool"]["name"], "fast");
    let mut body = instance("web");
    body["volumes"] = json!([{"volume": "copy"}]);
    let (web, home, _) = made(&cloud, &hosts, body).await;
    let (_, disks) = home.disks(&web["id"]).await.unwrap();
    assert_eq!(
        (&disks[1]["volume"]["pool"], disks[1]["volume"]["layers"].as_array().unwrap().len()),
        (&json!("fast"), 2)
    );
    // What the snapshot holds stays, and goes with it.
    cloud.delete(DATA).await.expect(202);
    for host in &hosts {
        for order in orders(host).await {
            assert_eq!(order["layers"].as_array().unwrap().len(), 1);
            host.report_removed(json!([order["removal_id"]])).await;
        }
    }
    cloud.get(DATA).await.expect_problem(404, "not_found");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

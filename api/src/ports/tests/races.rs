//! Calls that need the same things at the same time lock them in one order.

use serde_json::json;

use super::{PORTS, findings, port};
use crate::testing::{TestCloud, queued};

const QUOTAS: &str = "SELECT FROM project_quotas FOR UPDATE";

#[tokio::test]
async fn a_subnet_and_a_network_are_deleted_while_ports_are_made() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for what in ["subnets", "networks"] {
        let name = format!("of-{what}");
        let body = json!({"name": name});
        cloud.post("/v1/projects/demo/networks", body).await.expect(201);
        let body = json!({"name": name, "network": name, "cidr": "10.1.0.0/24"});
        cloud.post("/v1/projects/demo/subnets", body).await.expect(201);
        let path = format!("/v1/projects/demo/{what}/{name}");
        let body = json!({"name": name, "network": name});
        let [made, deleted] =
            queued(&cloud, QUOTAS, cloud.post(PORTS, body.clone()), cloud.delete(&path)).await;
        made.expect(201);
        deleted.expect_problem(409, "in_use");
        cloud.delete(&format!("{PORTS}/{name}")).await.expect(204);
        let [deleted, made] = queued(&cloud, QUOTAS, cloud.delete(&path), cloud.post(PORTS, body)).await;
        deleted.expect(204);
        assert_eq!(made.status, if what == "subnets" { 201 } else { 422 }, "{made:?}");
    }
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn two_instances_want_the_same_ports_in_another_order() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for name in ["a", "b"] {
        cloud.post(PORTS, port(name)).await.expect(201);
    }
    let create = async |name: &str, ports: [&str; 2]| {
        let networks = ports.map(|port| json!({"port": port}));
        let body = json!({"name": name, "image": "image", "instance_type": "tiny", "networks": networks});
        cloud.post("/v1/projects/demo/instances", body).await
    };
    let held = "SELECT FROM ports WHERE name = 'a' FOR UPDATE";
    let [first, second] = queued(&cloud, held, create("one", ["a", "b"]), create("two", ["b", "a"])).await;
    first.expect(202);
    second.expect_problem(409, "in_use");
}

#[tokio::test]
async fn a_port_is_deleted_while_its_floating_ip_is_moved_or_deleted() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/address_pools", json!({"name": "public", "cidr": "203.0.113.0/24"})).await.expect(201);
    let one = "/v1/projects/demo/floating_ips/one";
    let mine = format!("{PORTS}/mine");
    let body = json!({"port": "mine"});
    let associate = format!("{one}/associate");
    cloud.post("/v1/projects/demo/floating_ips", json!({"name": "one"})).await.expect(201);
    cloud.post(PORTS, port("mine")).await.expect(201);
    cloud.post(&associate, body.clone()).await.expect(200);

    let held = "SELECT FROM ports WHERE name = 'mine' FOR UPDATE";
    let [deleted, associated] =
        queued(&cloud, held, cloud.delete(&mine), cloud.post(&associate, body.clone())).await;
    deleted.expect(204);
    associated.expect_problem(422, "validation_failed");
    assert_eq!(cloud.get(one).await.expect(200).get("port_id"), None);

    cloud.post(PORTS, port("mine")).await.expect(201);
    cloud.post(&associate, body).await.expect(200);
    let [deleted, given_back] = queued(&cloud, QUOTAS, cloud.delete(&mine), cloud.delete(one)).await;
    deleted.expect(204);
    given_back.expect(204);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

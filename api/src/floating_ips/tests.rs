//! Floating IPs through the router.

use axum::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::testing::{Answer, TestCloud};

const FLOATING_IPS: &str = "/v1/projects/demo/floating_ips";
const ONE: &str = "/v1/projects/demo/floating_ips/one";

/// A cloud whose only pool has this range.
async fn start(cidr: &str) -> TestCloud {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/address_pools", json!({"name": "public", "cidr": cidr})).await.expect(201);
    cloud
}

async fn create(cloud: &TestCloud, name: &str) -> Answer {
    cloud.post(FLOATING_IPS, json!({"name": name})).await
}

async fn associate(cloud: &TestCloud, name: &str, body: Value) -> Answer {
    cloud.post(&format!("{FLOATING_IPS}/{name}/associate"), body).await
}

/// A subnet with an external router in it.
async fn routed_subnet(cloud: &TestCloud) -> Uuid {
    let subnet = cloud.insert_subnet("front", "10.7.0.0/24", Some("10.7.0.1")).await;
    cloud.post("/v1/projects/demo/routers", json!({"name": "edge"})).await.expect(201);
    let path = "/v1/projects/demo/routers/edge/add_interface";
    cloud.post(path, json!({"subnet": "front"})).await.expect(200);
    subnet
}

#[tokio::test]
async fn a_floating_ip_is_made_read_changed_and_deleted() {
    let cloud = start("203.0.113.0/24").await;
    cloud.post(&format!("{FLOATING_IPS}?dry_run=true"), json!({"name": "one"})).await.expect(200);
    cloud.get(ONE).await.expect_problem(404, "not_found");
    let key = [("idempotency-key", "k1")];
    let post = async |body: Value| cloud.call_with(Method::POST, FLOATING_IPS, &key, Some(body)).await;
    let made = post(json!({"name": "one"})).await.expect(201);
    assert_eq!(made["address"], "203.0.113.1");
    assert_eq!(post(json!({"name": "one"})).await.expect(201), made);
    post(json!({"name": "two"})).await.expect_problem(422, "idempotency_key_reused");
    create(&cloud, "one").await.expect_problem(409, "name_taken");
    let unknown = json!({"name": "x", "port": "eth"});
    cloud.post(FLOATING_IPS, unknown).await.expect_problem(422, "validation_failed");

    let read = cloud.get(ONE).await;
    assert_eq!(read.expect(200), made);
    assert_eq!(cloud.get(FLOATING_IPS).await.expect(200)["items"], json!([made]));
    let tag = read.headers["etag"].to_str().unwrap();
    let patch = async |tag: &str, body: Value| {
        cloud.call_with(Method::PATCH, ONE, &[("if-match", tag)], Some(body)).await
    };
    let changed = patch(tag, json!({"labels": {"a": "b"}})).await.expect(200);
    assert_eq!(changed["labels"], json!({"a": "b"}));
    patch(tag, json!({"name": "late"})).await.expect_problem(412, "precondition_failed");
    patch("*", json!({"address": "203.0.113.9"})).await.expect_problem(422, "validation_failed");
    cloud.delete("/v1/address_pools/public").await.expect_problem(409, "in_use");
    let shrunk = json!({"first_address": "203.0.113.2"});
    cloud.call(Method::PATCH, "/v1/address_pools/public", Some(shrunk)).await.expect_problem(409, "in_use");
    let pool = cloud.get("/v1/address_pools/public").await.expect(200);
    assert_eq!(pool["addresses"], json!({"total": 254, "given": 1}));
    cloud.delete(ONE).await.expect(204);
    cloud.get(ONE).await.expect_problem(404, "not_found");
    cloud.delete("/v1/address_pools/public").await.expect(204);
    create(&cloud, "one").await.expect_problem(409, "address_pool_exhausted");
}

#[tokio::test]
async fn addresses_are_chosen_or_new_ones_and_never_given_twice() {
    let cloud = start("203.0.113.0/29").await;
    let named = async |name: &str, body: Value| {
        let mut body = body;
        body["name"] = json!(name);
        cloud.post(FLOATING_IPS, body).await
    };
    let chosen = named("a", json!({"address": "203.0.113.2"})).await.expect(201);
    assert_eq!(chosen["address"], "203.0.113.2");
    named("b", json!({"address": "203.0.113.2"})).await.expect_problem(409, "in_use");
    for outside in ["203.0.113.0", "203.0.114.1"] {
        let problem = named("b", json!({"address": outside})).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/address");
    }
    let unknown = named("b", json!({"address_pool": "other"})).await.expect_problem(422, "validation_failed");
    assert_eq!(unknown["errors"][0]["pointer"], "/address_pool");
    assert_eq!(named("b", json!({})).await.expect(201)["address"], "203.0.113.1");
    assert_eq!(named("c", json!({"address_pool": "public"})).await.expect(201)["address"], "203.0.113.3");
    // What was given back comes last, the longest free first; a dry run changes no turn.
    for name in ["c", "b"] {
        cloud.delete(&format!("{FLOATING_IPS}/{name}")).await.expect(204);
    }
    cloud.post(&format!("{FLOATING_IPS}?dry_run=true"), json!({"name": "x"})).await.expect(200);
    for (name, address) in [("e", 4), ("f", 5), ("g", 6), ("h", 3), ("b", 1)] {
        let expected = format!("203.0.113.{address}");
        assert_eq!(named(name, json!({})).await.expect(201)["address"], expected);
    }
    for name in ["h", "b"] {
        cloud.delete(&format!("{FLOATING_IPS}/{name}")).await.expect(204);
    }
    assert_eq!(named("b", json!({"address": "203.0.113.1"})).await.expect(201)["address"], "203.0.113.1");
    cloud.delete(&format!("{FLOATING_IPS}/b")).await.expect(204);
    for (name, address) in [("h", 3), ("b", 1)] {
        let expected = format!("203.0.113.{address}");
        assert_eq!(named(name, json!({})).await.expect(201)["address"], expected);
    }
    named("x", json!({})).await.expect_problem(409, "address_pool_exhausted");

    let second = json!({"name": "second", "cidr": "198.51.100.0/32"});
    cloud.post("/v1/address_pools", second).await.expect(201);
    let problem = named("d", json!({})).await.expect_problem(422, "validation_failed");
    assert!(problem["errors"][0]["message"].as_str().unwrap().ends_with("public, second"), "{problem}");
    assert_eq!(named("d", json!({"address_pool": "second"})).await.expect(201)["address"], "198.51.100.0");
    let empty = named("x", json!({"address_pool": "second"})).await;
    let problem = empty.expect_problem(409, "address_pool_exhausted");
    assert!(problem["detail"].as_str().unwrap().contains("ask an operator"), "{problem}");
}

#[tokio::test]
async fn racing_calls_empty_a_pool_exactly() {
    let cloud = start("203.0.113.0/29").await;
    cloud.token().await;
    let names: Vec<String> = (0..12).map(|number| format!("fip-{number}")).collect();
    let answers = futures_util::future::join_all(names.iter().map(|name| create(&cloud, name))).await;
    let mut addresses = Vec::new();
    for answer in answers {
        if answer.status == 201 {
            addresses.push(answer.json()["address"].as_str().unwrap().to_owned());
        } else {
            // Quotas of the project allow ten.
            assert_eq!(answer.expect(409)["code"], "address_pool_exhausted");
        }
    }
    addresses.sort();
    let all: Vec<_> = (1..=6).map(|last| format!("203.0.113.{last}")).collect();
    assert_eq!(addresses, all);
}

#[tokio::test]
async fn it_stands_for_a_port_only_where_a_router_leads_out() {
    let cloud = start("203.0.113.0/24").await;
    create(&cloud, "one").await.expect(201);
    create(&cloud, "two").await.expect(201);
    let lonely = cloud.insert_subnet("lonely", "10.9.0.0/24", Some("10.9.0.1")).await;
    cloud.insert_port("stuck", &[(lonely, "10.9.0.5")]).await;
    let problem = associate(&cloud, "one", json!({"port": "stuck"})).await.expect_problem(409, "wrong_state");
    assert!(problem["detail"].as_str().unwrap().contains("add_interface"), "{problem}");

    let subnet = routed_subnet(&cloud).await;
    let eth = cloud.insert_port("eth", &[(subnet, "10.7.0.5")]).await;
    cloud.insert_port("other", &[(subnet, "10.7.0.6")]).await;
    for (body, pointer) in [
        (json!({}), "/port"),
        (json!({"port": "eth", "instance": "web"}), "/port"),
        (json!({"port": "nothing"}), "/port"),
        (json!({"instance": "nothing"}), "/instance"),
        (json!({"port": "eth", "fixed_address": "10.7.0.6"}), "/fixed_address"),
    ] {
        let problem = associate(&cloud, "one", body).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let associated = associate(&cloud, "one", json!({"port": "eth"})).await.expect(200);
    assert_eq!((&associated["port_id"], &associated["fixed_address"]), (&json!(eth), &json!("10.7.0.5")));
    associate(&cloud, "two", json!({"port": "eth"})).await.expect_problem(409, "in_use");

    // What leads there stays.
    let edge = "/v1/projects/demo/routers/edge";
    let removed = cloud.post(&format!("{edge}/remove_interface"), json!({"subnet": "front"})).await;
    let problem = removed.expect_problem(409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("(one)"), "{problem}");
    let inner = json!({"external": false});
    cloud.call(Method::PATCH, edge, Some(inner.clone())).await.expect_problem(409, "in_use");
    cloud.delete(edge).await.expect_problem(409, "in_use");

    let moved = associate(&cloud, "one", json!({"port": "other"})).await.expect(200);
    assert_eq!(moved["fixed_address"], "10.7.0.6");
    for _ in 0..2 {
        let free = cloud.post(&format!("{ONE}/disassociate"), json!({})).await.expect(200);
        assert_eq!((&free["port_id"], &free["address"]), (&Value::Null, &json!("203.0.113.1")));
    }
    cloud.call(Method::PATCH, edge, Some(inner)).await.expect(200);
    let problem = associate(&cloud, "one", json!({"port": "eth"})).await.expect_problem(409, "wrong_state");
    assert!(problem["detail"].as_str().unwrap().contains("`external` to true"), "{problem}");
}

#[tokio::test]
async fn a_port_that_goes_leaves_its_floating_ip_behind() {
    let cloud = start("203.0.113.0/24").await;
    let subnet = routed_subnet(&cloud).await;
    cloud.insert_port("eth", &[(subnet, "10.7.0.5")]).await;
    create(&cloud, "one").await.expect(201);
    for gone in
        ["DELETE FROM subnet_addresses WHERE address = '10.7.0.5'", "DELETE FROM ports WHERE name = 'eth'"]
    {
        associate(&cloud, "one", json!({"port": "eth"})).await.expect(200);
        sqlx::query(gone).execute(&cloud.app.pool).await.unwrap();
        let left = cloud.get(ONE).await.expect(200);
        assert_eq!((&left["port_id"], &left["fixed_address"]), (&Value::Null, &Value::Null), "{gone}");
        sqlx::query("INSERT INTO subnet_addresses SELECT $1, '10.7.0.5', id FROM ports WHERE name = 'eth'")
            .bind(subnet)
            .execute(&cloud.app.pool)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_instance_stands_for_its_first_port() {
    let cloud = start("203.0.113.0/24").await;
    let subnet = routed_subnet(&cloud).await;
    let instance = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    let instance = cloud.post("/v1/projects/demo/instances", instance).await.expect(202);
    sqlx::query("DELETE FROM ports").execute(&cloud.app.pool).await.unwrap();
    create(&cloud, "one").await.expect(201);
    associate(&cloud, "one", json!({"instance": "web"})).await.expect_problem(409, "wrong_state");
    for (name, address, position) in [("eth1", "10.7.0.6", 1), ("eth0", "10.7.0.5", 0)] {
        let port = cloud.insert_port(name, &[(subnet, address)]).await;
        sqlx::query(
            "UPDATE ports SET instance_id = i.id, position = $2 FROM instances i WHERE ports.id = $1",
        )
        .bind(port)
        .bind(position)
        .execute(&cloud.app.pool)
        .await
        .unwrap();
    }
    let associated = associate(&cloud, "one", json!({"instance": "web"})).await.expect(200);
    assert_eq!(associated["fixed_address"], "10.7.0.5");
    assert_eq!(associated["instance_id"], instance["id"]);
    assert_eq!(cloud.get(ONE).await.expect(200), associated);
}

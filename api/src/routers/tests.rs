//! Routers through the router.

mod hosts;

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::{Answer, TestCloud};

const ROUTERS: &str = "/v1/projects/demo/routers";
const EDGE: &str = "/v1/projects/demo/routers/edge";

/// A cloud with the router `edge`.
async fn start() -> TestCloud {
    let cloud = TestCloud::start().await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    cloud.post(ROUTERS, json!({"name": "edge"})).await.expect(201);
    cloud
}

async fn add(cloud: &TestCloud, router: &str, subnet: &str) -> Answer {
    cloud.post(&format!("{ROUTERS}/{router}/add_interface"), json!({"subnet": subnet})).await
}

async fn remove(cloud: &TestCloud, subnet: &str) -> Answer {
    cloud.post(&format!("{EDGE}/remove_interface"), json!({"subnet": subnet})).await
}

#[tokio::test]
async fn a_router_is_made_read_changed_and_deleted() {
    let cloud = start().await;
    cloud.post(&format!("{ROUTERS}?dry_run=true"), json!({"name": "dry"})).await.expect(200);
    cloud.get(&format!("{ROUTERS}/dry")).await.expect_problem(404, "not_found");
    cloud.post(ROUTERS, json!({"name": "edge"})).await.expect_problem(409, "name_taken");
    let unknown = json!({"name": "x", "routes": []});
    cloud.post(ROUTERS, unknown).await.expect_problem(422, "validation_failed");
    let key = [("idempotency-key", "k1")];
    let create = async |body: Value| cloud.call_with(Method::POST, ROUTERS, &key, Some(body)).await;
    let inner = json!({"name": "inner", "external": false, "labels": {"tier": "back"}});
    let made = create(inner.clone()).await.expect(201);
    assert_eq!(create(inner).await.expect(201), made);
    create(json!({"name": "other"})).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(
        (&made["external"], &made["interfaces"], &made["routes"]),
        (&json!(false), &json!([]), &json!([]))
    );

    let path = format!("{ROUTERS}/inner");
    let read = cloud.get(&path).await;
    assert_eq!(read.expect(200), made);
    let page = cloud.get(&format!("{ROUTERS}?label_selector=tier=back")).await.expect(200);
    assert_eq!(page["items"], json!([made]));
    let tag = read.headers["etag"].to_str().unwrap();
    let patch =
        async |body: Value| cloud.call_with(Method::PATCH, &path, &[("if-match", tag)], Some(body)).await;
    assert_eq!(patch(json!({"external": true})).await.expect(200)["external"], true);
    patch(json!({"external": false})).await.expect_problem(412, "precondition_failed");
    cloud.delete(&path).await.expect(204);
    cloud.get(&path).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_router_takes_the_gateway_address_and_leaves_it_free_for_the_next() {
    let cloud = start().await;
    let subnet = cloud.insert_subnet("front", "10.7.0.0/24", Some("10.7.0.1")).await;
    cloud.insert_subnet("overlapping", "10.7.0.0/25", Some("10.7.0.1")).await;
    cloud.insert_subnet("six", "fd00:7::/64", Some("fd00:7::1")).await;
    cloud.insert_subnet("bare", "10.8.0.0/24", None).await;
    cloud.post(ROUTERS, json!({"name": "rival"})).await.expect(201);

    let dry = format!("{EDGE}/add_interface?dry_run=true");
    cloud.post(&dry, json!({"subnet": "front"})).await.expect(200);
    let router = add(&cloud, "edge", "front").await.expect(200);
    assert_eq!(router["interfaces"][0]["address"], "10.7.0.1");
    assert_eq!(router["interfaces"][0]["subnet_id"], json!(subnet));
    assert!(router["interfaces"][0]["mac_address"].as_str().unwrap().starts_with("02:72:"), "{router}");
    assert_eq!(add(&cloud, "edge", "six").await.expect(200)["interfaces"][1]["address"], "fd00:7::1");
    add(&cloud, "edge", "front").await.expect_problem(409, "in_use");
    let taken = add(&cloud, "rival", "front").await.expect_problem(409, "in_use");
    assert!(taken["detail"].as_str().unwrap().contains("a router stands in the subnet front"), "{taken}");
    add(&cloud, "edge", "overlapping").await.expect_problem(409, "range_overlaps");
    add(&cloud, "edge", "bare").await.expect_problem(409, "wrong_state");
    for unknown in ["nothing", "NOTHING"] {
        let problem = add(&cloud, "edge", unknown).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/subnet");
    }
    let problem = cloud.delete(EDGE).await.expect_problem(409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("(front, six)"), "{problem}");

    remove(&cloud, "front").await.expect(200);
    remove(&cloud, "front").await.expect_problem(422, "validation_failed");
    let reserved: bool = sqlx::query_scalar("SELECT reserved FROM subnet_addresses WHERE subnet_id = $1")
        .bind(subnet)
        .fetch_one(&cloud.app.pool)
        .await
        .unwrap();
    assert!(reserved);
    add(&cloud, "rival", "front").await.expect(200);
    assert_eq!(remove(&cloud, "six").await.expect(200)["interfaces"], json!([]));
    cloud.delete(EDGE).await.expect(204);
}

#[tokio::test]
async fn a_port_at_the_gateway_address_is_in_the_way() {
    let cloud = start().await;
    let subnet = cloud.insert_subnet("front", "10.7.0.0/24", Some("10.7.0.1")).await;
    cloud.insert_port("eth", &[(subnet, "10.7.0.1")]).await;
    let problem = add(&cloud, "edge", "front").await.expect_problem(409, "in_use");
    assert!(problem["detail"].as_str().unwrap().starts_with("a port has 10.7.0.1"), "{problem}");
    assert_eq!(cloud.get(EDGE).await.expect(200)["interfaces"], json!([]));
}

#[tokio::test]
async fn static_routes_are_replaced_as_a_whole_and_keep_their_subnet() {
    let cloud = start().await;
    cloud.insert_subnet("front", "10.7.0.0/24", Some("10.7.0.1")).await;
    cloud.insert_subnet("inside", "192.168.1.0/24", Some("192.168.1.1")).await;
    add(&cloud, "edge", "front").await.expect(200);
    let patch = async |routes: Value| cloud.call(Method::PATCH, EDGE, Some(json!({"routes": routes}))).await;
    let route = |destination: &str, hop: &str| json!({"destination": destination, "next_hop": hop});
    for (routes, pointer) in [
        (json!([route("192.168.0.0/16", "10.8.0.9")]), "/routes/0/next_hop"),
        (json!([route("192.168.0.1/16", "10.7.0.9")]), "/routes/0/destination"),
        (json!([route("0.0.0.0/0", "10.7.0.9")]), "/routes/0/destination"),
        (json!([route("192.168.0.0/16", "host")]), "/routes/0/next_hop"),
        (json!(null), "/routes"),
    ] {
        let problem = patch(routes).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let routes = json!([route("172.16.0.0/12", "10.7.0.8"), route("192.168.0.0/16", "10.7.0.9")]);
    assert_eq!(patch(routes.clone()).await.expect(200)["routes"], routes);
    // What a patch does not name stays.
    let renamed = cloud.call(Method::PATCH, EDGE, Some(json!({"labels": {"a": "b"}}))).await.expect(200);
    assert_eq!(renamed["routes"], routes);
    remove(&cloud, "front").await.expect_problem(409, "in_use");
    patch(json!([route("192.168.1.0/25", "10.7.0.9")])).await.expect(200);
    add(&cloud, "edge", "inside").await.expect_problem(409, "range_overlaps");
    assert_eq!(patch(json!([])).await.expect(200)["routes"], json!([]));
    remove(&cloud, "front").await.expect(200);
}

//! Subnets through the router.

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::TestCloud;

const SUBNETS: &str = "/v1/projects/demo/subnets";

fn subnet(name: &str, cidr: &str) -> Value {
    json!({"name": name, "network": "default", "cidr": cidr})
}

#[tokio::test]
async fn from_creation_to_deletion() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let default = cloud.get(&format!("{SUBNETS}/default")).await.expect(200);
    assert_eq!(
        (&default["cidr"], &default["gateway"], &default["service_address"], &default["network"]["name"]),
        (&json!("10.0.0.0/24"), &json!("10.0.0.1"), &json!("10.0.0.2"), &json!("default"))
    );
    assert_eq!(default["allocation_ranges"], json!([{"first": "10.0.0.3", "last": "10.0.0.254"}]));

    let mut body = subnet("six", "fd00::/64");
    body["gateway"] = Value::Null;
    body["dns_servers"] = json!(["2001:db8::53"]);
    let key = [("idempotency-key", "once")];
    let dry = cloud.post(&format!("{SUBNETS}?dry_run=true"), body.clone()).await.expect(200);
    assert_eq!(dry["service_address"], "fd00::1");
    cloud.get(&format!("{SUBNETS}/six")).await.expect_problem(404, "not_found");
    let made = cloud.call_with(Method::POST, SUBNETS, &key, Some(body.clone())).await;
    let again = cloud.call_with(Method::POST, SUBNETS, &key, Some(body)).await;
    assert_eq!(made.expect(201), again.expect(201));
    assert!(made.json().get("gateway").is_none());

    let path = format!("{SUBNETS}/six");
    let patch = json!({"name": "sixth", "dns_servers": [], "labels": {"a": "b"}});
    let stale = [("if-match", "\"9.0\"")];
    let refused = cloud.call_with(Method::PATCH, &path, &stale, Some(patch.clone())).await;
    refused.expect_problem(412, "precondition_failed");
    let patched = cloud.call(Method::PATCH, &path, Some(patch)).await.expect(200);
    assert_eq!((&patched["name"], &patched["dns_servers"]), (&json!("sixth"), &json!([])));
    let listed = async |query: &str| {
        let page = cloud.get(&format!("{SUBNETS}?{query}")).await.expect(200);
        page["items"].as_array().unwrap().len()
    };
    assert_eq!(listed("network=default").await, 2);
    assert_eq!(listed("network=other").await, 0);
    assert_eq!(listed("label_selector=a%3Db").await, 1);
    cloud.delete(&format!("{SUBNETS}/sixth")).await.expect(204);
    assert_eq!(listed("").await, 1);
}

#[tokio::test]
async fn subnets_of_a_network_are_apart() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let refused = cloud.post(SUBNETS, subnet("more", "10.0.0.128/25")).await;
    let problem = refused.expect_problem(409, "subnet_overlaps");
    assert!(problem["detail"].as_str().unwrap().contains("default"), "{problem}");
    assert_eq!(problem["errors"][0]["pointer"], "/cidr");
    cloud.post("/v1/projects/demo/networks", json!({"name": "other"})).await.expect(201);
    let mut elsewhere = subnet("more", "10.0.0.128/25");
    elsewhere["network"] = json!("other");
    cloud.post(SUBNETS, elsewhere).await.expect(201);
    cloud.post(SUBNETS, subnet("more", "10.1.0.0/24")).await.expect_problem(409, "name_taken");
    for (field, value, pointer) in [
        ("cidr", json!("10.1.0.1/24"), "/cidr"),
        ("cidr", json!("ten"), "/cidr"),
        ("network", json!("nowhere"), "/network"),
        ("gateway", json!("10.2.0.1"), "/gateway"),
        ("dns_servers", json!(["224.0.0.1"]), "/dns_servers/0"),
    ] {
        let mut wrong = subnet("wrong", "10.1.0.0/24");
        wrong[field] = value;
        let problem = cloud.post(SUBNETS, wrong).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
}

#[tokio::test]
async fn a_stranger_and_nobody_see_nothing() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let stranger = cloud.user("stranger", false).await;
    for resource in ["networks", "subnets", "ports"] {
        let path = format!("/v1/projects/demo/{resource}");
        let answer = cloud.call_with(Method::GET, &path, &[("authorization", &stranger)], None).await;
        answer.expect_problem(404, "not_found");
        let answer = cloud.call_with(Method::GET, &path, &[("authorization", "Bearer x")], None).await;
        answer.expect_problem(401, "invalid_token");
    }
}

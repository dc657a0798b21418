//! Address pools through the router.

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::TestCloud;

const POOLS: &str = "/v1/address_pools";
const PUBLIC: &str = "/v1/address_pools/public";

fn pool(name: &str, cidr: &str) -> Value {
    json!({"name": name, "cidr": cidr})
}

#[tokio::test]
async fn a_pool_is_made_read_changed_and_deleted() {
    let cloud = TestCloud::start().await;
    let dry =
        cloud.post(&format!("{POOLS}?dry_run=true"), pool("public", "203.0.113.0/24")).await.expect(200);
    assert_eq!(dry["addresses"], json!({"total": 254, "given": 0}));
    let made = cloud.post(POOLS, pool("public", "203.0.113.0/24")).await.expect(201);
    assert_eq!(
        (&made["first_address"], &made["last_address"]),
        (&json!("203.0.113.1"), &json!("203.0.113.254"))
    );
    let read = cloud.get(PUBLIC).await;
    assert_eq!(read.expect(200), made);
    cloud.post(POOLS, pool("public", "198.51.100.0/24")).await.expect_problem(409, "name_taken");
    cloud.post(POOLS, pool("more", "203.0.112.0/22")).await.expect_problem(409, "range_overlaps");

    let tag = read.headers["etag"].to_str().unwrap();
    let patch = async |tag: &str, body: Value| {
        cloud.call_with(Method::PATCH, PUBLIC, &[("if-match", tag)], Some(body)).await
    };
    let changed = patch(tag, json!({"first_address": "203.0.113.250"})).await.expect(200);
    assert_eq!(changed["addresses"], json!({"total": 5, "given": 0}));
    patch(tag, json!({"description": "late"})).await.expect_problem(412, "precondition_failed");
    for (body, pointer) in [
        (json!({"first_address": "203.0.112.1"}), "/first_address"),
        (json!({"last_address": "203.0.113.249"}), "/last_address"),
        (json!({"cidr": "203.0.113.0/25"}), "/cidr"),
        (json!({"last_address": null}), "/last_address"),
    ] {
        let problem = patch("*", body).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    assert_eq!(cloud.get(POOLS).await.expect(200)["items"], json!([changed]));
    cloud.delete(PUBLIC).await.expect(204);
    cloud.get(PUBLIC).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn what_no_pool_may_hold_is_refused_at_the_field() {
    let cloud = TestCloud::start().await;
    for (cidr, pointer) in [
        ("100.64.0.0/16", "/cidr"),
        ("2001:db8::/64", "/cidr"),
        ("203.0.113.1/24", "/cidr"),
        ("203.0.113.0", "/cidr"),
    ] {
        let problem = cloud.post(POOLS, pool("public", cidr)).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let outside = json!({"name": "public", "cidr": "203.0.113.0/24", "last_address": "203.0.114.1"});
    let problem = cloud.post(POOLS, outside).await.expect_problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/last_address");
}

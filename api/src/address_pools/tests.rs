//! Address pools through the router.

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::TestCloud;
use crate::verify;

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

#[tokio::test]
async fn no_pool_has_an_address_at_which_a_host_is_reached() {
    let cloud = TestCloud::start().await;
    cloud.join_host("host-1").await;
    let move_host = async |address: &'static str| {
        let moved = sqlx::query("UPDATE hosts SET underlay_address = $1::text::inet").bind(address);
        moved.execute(&cloud.app.pool).await.unwrap();
    };
    let findings = async || {
        let mut conn = cloud.app.pool.acquire().await.unwrap();
        let found = verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap().findings;
        found.into_iter().filter(|finding| finding.code == "address_pool_has_host").count()
    };
    move_host("203.0.113.11").await;
    let problem = cloud.post(POOLS, pool("public", "203.0.113.0/24")).await;
    let problem = problem.expect_problem(409, "range_overlaps");
    assert!(
        problem["detail"].as_str().unwrap().contains("203.0.113.11 is where the host host-1"),
        "{problem}"
    );
    let mut beside = pool("public", "203.0.113.0/24");
    beside["first_address"] = json!("203.0.113.12");
    cloud.post(POOLS, beside).await.expect(201);
    let patch = async |body: Value| cloud.call(Method::PATCH, PUBLIC, Some(body)).await;
    patch(json!({"first_address": "203.0.113.11"})).await.expect_problem(409, "range_overlaps");
    assert_eq!(findings().await, 0);
    // A host that comes later is not kept away; it is said.
    move_host("203.0.113.200").await;
    assert_eq!(findings().await, 1);
    patch(json!({"description": "the office"})).await.expect(200);
    patch(json!({"last_address": "203.0.113.199"})).await.expect(200);
    assert_eq!(findings().await, 0);
}

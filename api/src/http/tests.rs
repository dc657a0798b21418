//! The conventions, through the router.

mod edge;
mod errors;
mod limits;
mod wire;
mod words;

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::testing::{TestCloud, request};

#[test]
fn the_openapi_document_is_the_one_that_is_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi/cumulo.json");
    let generated = super::openapi_document().to_pretty_json().unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, format!("{generated}\n")).unwrap();
    }
    let checked_in = std::fs::read_to_string(path).unwrap();
    assert!(checked_in.trim_end() == generated, "openapi/cumulo.json is old: run `make openapi`");
}

#[test]
fn whatever_the_document_refers_to_is_in_it() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = serde_json::to_value(super::openapi_document()).unwrap();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 100);
    for reference in found {
        let there = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        assert!(there.is_some(), "nothing is at {reference}");
    }
}

#[test]
fn operations_have_names_of_their_own_and_say_how_they_fail() {
    let mut names = BTreeSet::new();
    let document = serde_json::to_value(super::openapi_document()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap().to_owned();
            assert!(name.contains('_') || path.contains("/auth/"), "{name}: verb_resource");
            assert!(names.insert(name.clone()), "{name} stands for two operations");
            if path.starts_with("/v1/") && !path.contains("/auth/") {
                assert!(!operation["responses"]["4XX"].is_null(), "{method} {path} documents no problem");
            }
        }
    }
    assert!(names.len() > 25);
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let bearer = format!("Bearer {}", cloud.token().await);
    let send = async |method: &str, path: &str, content_type: &str, body: &str| {
        let request = Request::builder().method(method).uri(path).header("authorization", &bearer);
        cloud
            .send(request.header("content-type", content_type).body(Body::from(body.to_owned())).unwrap())
            .await
    };
    let json = "application/json";
    let cases = [
        ("GET", "/nowhere", json, "", 404, "not_found"),
        ("PUT", "/v1/projects", json, "", 405, "method_not_allowed"),
        ("POST", "/v1/projects", json, "{", 400, "invalid_json"),
        ("POST", "/v1/projects", json, r#"{"name":"x"}{}"#, 400, "invalid_json"),
        ("POST", "/v1/projects", json, r#"{"name":"x","surprise":1}"#, 422, "validation_failed"),
        ("POST", "/v1/projects", json, r#"{"name":7}"#, 422, "validation_failed"),
        ("POST", "/v1/projects", json, r#"{"name":"demo"}"#, 409, "name_taken"),
        ("POST", "/v1/projects", "text/plain", r#"{"name":"x"}"#, 415, "unsupported_media_type"),
        ("POST", "/v1/projects?dry_run=perhaps", json, r#"{"name":"x"}"#, 400, "invalid_query"),
        ("POST", "/v1/projects?surprise=1", json, r#"{"name":"x"}"#, 400, "invalid_query"),
        ("POST", "/v1/projects?wait=301", json, r#"{"name":"x"}"#, 400, "invalid_query"),
        ("GET", "/v1/projects?limit=501", json, "", 400, "invalid_query"),
        ("GET", "/v1/projects?cursor=moon", json, "", 400, "invalid_query"),
        ("GET", "/v1/projects?label_selector=a+b", json, "", 400, "invalid_query"),
        ("GET", "/v1/projects/%00", json, "", 404, "not_found"),
        ("GET", "/v1/projects/%ff", json, "", 404, "not_found"),
        ("GET", "/v1/projects/..%2fetc", json, "", 404, "not_found"),
        ("GET", "/v1/projects/demo/instances/a%0ab", json, "", 404, "not_found"),
        ("GET", "/v1/projects/demo/operations/x", json, "", 404, "not_found"),
        ("DELETE", "/v1/projects/demo", json, "", 409, "in_use"),
    ];
    for (method, path, content_type, body, status, code) in cases {
        let problem = send(method, path, content_type, body).await.expect_problem(status, code);
        match path {
            "/nowhere" => assert!(problem["detail"].as_str().unwrap().contains("/docs"), "{problem}"),
            "/v1/projects" if status == 405 => {
                let detail = problem["detail"].as_str().unwrap();
                assert!(detail.contains("`Allow`"), "{problem}");
            }
            _ => {}
        }
    }
    let wrong_method = send("PUT", "/v1/projects", json, "").await;
    assert!(wrong_method.headers["allow"].to_str().unwrap().contains("POST"));
    let huge = format!(r#"{{"name":"{}"}}"#, "x".repeat(10 << 20));
    send("POST", "/v1/projects", json, &huge).await.expect_problem(413, "payload_too_large");
    assert_eq!(wrong_method.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn hostile_names_are_refused_at_the_field() {
    let cloud = TestCloud::start().await;
    let long = "a".repeat(64);
    for name in [
        "",
        "../etc",
        "a\0b",
        "a\nb",
        "Web",
        "-a",
        "a-",
        "wéb",
        "ａ",
        "a\u{202e}b",
        long.as_str(),
        "'; DROP TABLE users",
    ] {
        let problem =
            cloud.post("/v1/projects", json!({"name": name})).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/name", "{name:?}");
    }
    let none = cloud.get("/v1/projects").await.expect(200);
    assert_eq!(none["items"], json!([]));
}

#[tokio::test]
async fn a_request_id_is_taken_when_it_is_one() {
    let cloud = TestCloud::start().await;
    let id = "0190a0a0-0000-7000-8000-000000000001";
    let answer = cloud.send(request(Method::GET, "/healthz", &[("x-request-id", id)], String::new())).await;
    assert_eq!(answer.headers["x-request-id"], id);
    let answer =
        cloud.send(request(Method::GET, "/healthz", &[("x-request-id", "<script>")], String::new())).await;
    assert_ne!(answer.headers["x-request-id"], "<script>");
}

#[tokio::test]
async fn conditional_requests() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let path = "/v1/projects/demo";
    let tag = cloud.get(path).await.headers["etag"].to_str().unwrap().to_owned();
    let same = cloud.call_with(Method::GET, path, &[("if-none-match", &tag)], None).await;
    assert_eq!(same.status, 304);
    let patch = async |tag: &str, text: &str| {
        let body = json!({"description": text});
        cloud.call_with(Method::PATCH, path, &[("if-match", tag)], Some(body)).await
    };
    patch(&tag, "first").await.expect(200);
    patch(&tag, "second").await.expect_problem(412, "precondition_failed");
    patch("three", "third").await.expect_problem(400, "invalid_header");
    let now = cloud.call_with(Method::GET, path, &[("if-none-match", &tag)], None).await.expect(200);
    assert_eq!(now["description"], "first");
}

#[tokio::test]
async fn a_repeated_request_has_one_effect_and_one_answer() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let create = async |key: &str, name: &str| {
        let body = json!({"name": name, "image": "image", "instance_type": "tiny"});
        let headers = [("idempotency-key", key)];
        cloud.call_with(Method::POST, "/v1/projects/demo/instances", &headers, Some(body)).await
    };
    let first = create("k1", "web").await;
    let again = create("k1", "web").await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(first.headers.get("idempotent-replayed"), None);
    create("k1", "other").await.expect_problem(422, "idempotency_key_reused");
    create(&"k".repeat(256), "other").await.expect_problem(400, "invalid_header");
    // A refusal leaves the key free.
    create("k2", "web").await.expect_problem(409, "name_taken");
    create("k2", "free").await.expect(202);
    // At once: whoever is not first gets the first one's answer, or is told to wait.
    let racing = futures_util::future::join_all((0..8).map(|_| create("k3", "raced"))).await;
    let codes: BTreeSet<u16> = racing.iter().map(|answer| answer.status.as_u16()).collect();
    assert!(codes.contains(&202) && codes.iter().all(|code| [202, 409].contains(code)), "{codes:?}");
    let names = cloud.get("/v1/projects/demo/instances?name=raced").await.expect(200);
    assert_eq!(names["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_dry_run_stores_nothing_and_refuses_alike() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    let _host = cloud.join_host("host-1").await;
    let instance = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    cloud.post("/v1/projects/demo/instances", instance.clone()).await.expect(202);
    cloud.post("/v1/users", json!({"name": "ada"})).await.expect(201);
    cloud.post("/v1/groups", json!({"name": "all"})).await.expect(201);
    let key = cloud.post("/v1/users/admin/api_keys", json!({})).await.expect(201);
    let key = format!("/v1/users/admin/api_keys/{}", key["id"].as_str().unwrap());
    let session = cloud.get("/v1/users/admin/sessions").await.expect(200)["items"][0]["id"].clone();
    let session = format!("/v1/users/admin/sessions/{}", session.as_str().unwrap());
    cloud.insert_subnet("front", "10.7.0.0/24", Some("10.7.0.1")).await;
    let subnet = json!({"subnet": "front"});
    let pool = json!({"name": "public", "cidr": "203.0.113.0/24"});
    cloud.post("/v1/address_pools", pool.clone()).await.expect(201);
    cloud.post("/v1/pools", json!({"name": "fast"})).await.expect(201);
    let rule = json!({"direction": "egress", "remote_cidr": "::/0"});
    let group = json!({"name": "web", "rules": [rule]});
    cloud.post("/v1/projects/demo/security_groups", group.clone()).await.expect(201);
    cloud.post("/v1/projects/demo/routers", json!({"name": "edge"})).await.expect(201);
    cloud.post("/v1/projects/demo/floating_ips", json!({"name": "one"})).await.expect(201);
    let document = |action: &str| {
        let statement = json!({"Effect": "Allow", "Action": action, "Resource": "*"});
        json!({"Version": "2012-10-17", "Statement": statement})
    };
    let policy = json!({"name": "mine", "document": document("*")});
    cloud.post("/v1/policies", policy.clone()).await.expect(201);
    let (document, attachment) = (document("image:*"), json!({"policy": "mine", "user": "admin"}));
    let before = rows(&cloud).await;
    let new = json!({"name": "new", "image": "image", "instance_type": "tiny"});
    let size = json!({"name": "big", "vcpus": 2, "memory_mib": 64, "root_disk_gib": 1});
    let calls = [
        (Method::POST, "/v1/projects", Some(json!({"name": "new"})), 200),
        (Method::PATCH, "/v1/projects/demo", Some(json!({"description": "x"})), 200),
        (Method::DELETE, "/v1/projects/demo", None, 409),
        (Method::POST, "/v1/instance_types", Some(size), 200),
        (Method::DELETE, "/v1/instance_types/tiny", None, 409),
        (Method::POST, "/v1/projects/demo/images", Some(json!({"name": "new", "format": "raw"})), 200),
        (Method::PATCH, "/v1/projects/demo/images/image", Some(json!({"firmware": "uefi"})), 200),
        (Method::PUT, "/v1/projects/demo/images/image/shares/other", None, 200),
        (Method::PUT, "/v1/projects/demo/images/image/shares/demo", None, 409),
        (Method::DELETE, "/v1/projects/demo/images/image/shares/other", None, 404),
        (Method::POST, "/v1/projects/demo/images/image/publish", None, 200),
        (Method::POST, "/v1/projects/demo/images/image/unpublish", None, 200),
        (Method::POST, "/v1/projects/demo/images/image/deprecate", None, 200),
        (Method::POST, "/v1/projects/demo/images/image/undeprecate", None, 200),
        (Method::DELETE, "/v1/projects/demo/images/image", None, 200),
        (Method::POST, "/v1/projects/demo/instances", Some(new), 200),
        (Method::POST, "/v1/projects/demo/instances", Some(instance), 409),
        (Method::PATCH, "/v1/projects/demo/instances/web", Some(json!({"name": "new"})), 200),
        (Method::POST, "/v1/projects/demo/instances/web/start", None, 200),
        (Method::POST, "/v1/projects/demo/instances/web/stop", None, 200),
        (Method::POST, "/v1/projects/demo/instances/web/reboot", None, 200),
        (Method::DELETE, "/v1/projects/demo/instances/web", None, 200),
        (Method::POST, "/v1/host_join_tokens", None, 200),
        (Method::PATCH, "/v1/projects/demo/quotas", Some(json!({"vcpus": 1})), 200),
        (Method::PATCH, "/v1/quota_defaults", Some(json!({"vcpus": 1})), 200),
        (Method::POST, "/v1/users", Some(json!({"name": "new"})), 200),
        (Method::POST, "/v1/users", Some(json!({"name": "ada"})), 409),
        (Method::PATCH, "/v1/users/ada", Some(json!({"disabled": true})), 200),
        (Method::DELETE, "/v1/users/ada", None, 200),
        (Method::POST, "/v1/users/ada/reset_password", None, 200),
        (Method::POST, "/v1/users/admin/totp", None, 200),
        (Method::DELETE, "/v1/users/admin/totp", None, 409),
        (Method::DELETE, "/v1/users/admin/sessions", None, 200),
        (Method::DELETE, session.as_str(), None, 200),
        (Method::POST, "/v1/users/admin/api_keys", None, 200),
        (Method::DELETE, key.as_str(), None, 200),
        (Method::POST, "/v1/groups", Some(json!({"name": "new"})), 200),
        (Method::PATCH, "/v1/groups/all", Some(json!({"name": "new"})), 200),
        (Method::PUT, "/v1/groups/all/members/ada", None, 200),
        (Method::DELETE, "/v1/groups/all/members/ada", None, 200),
        (Method::DELETE, "/v1/groups/all", None, 200),
        (Method::POST, "/v1/projects/demo/service_accounts", Some(json!({"name": "new"})), 200),
        (Method::POST, "/v1/signing_keys", None, 200),
        (Method::POST, "/v1/projects/demo/policies", Some(json!({"name": "new", "document": document})), 200),
        (Method::POST, "/v1/projects/demo/policies", Some(policy.clone()), 409),
        (Method::POST, "/v1/policies", Some(policy), 409),
        (Method::PATCH, "/v1/policies/mine", Some(json!({"document": document})), 200),
        (Method::DELETE, "/v1/policies/mine", None, 200),
        (Method::DELETE, "/v1/policies/everyone", None, 409),
        (Method::POST, "/v1/projects/demo/policy_attachments", Some(attachment.clone()), 200),
        (Method::POST, "/v1/policy_attachments", Some(attachment), 200),
        (Method::POST, "/v1/address_pools", Some(json!({"name": "new", "cidr": "198.51.100.0/24"})), 200),
        (Method::POST, "/v1/address_pools", Some(pool), 409),
        (Method::PATCH, "/v1/address_pools/public", Some(json!({"name": "new"})), 200),
        (Method::DELETE, "/v1/address_pools/public", None, 409),
        (Method::POST, "/v1/pools", Some(json!({"name": "new"})), 200),
        (Method::POST, "/v1/pools", Some(json!({"name": "fast"})), 409),
        (Method::PATCH, "/v1/pools/fast", Some(json!({"overcommit_percent": 200})), 200),
        (Method::DELETE, "/v1/pools/fast", None, 200),
        (Method::POST, "/v1/projects/demo/security_groups", Some(json!({"name": "new"})), 200),
        (Method::POST, "/v1/projects/demo/security_groups", Some(group), 409),
        (Method::PATCH, "/v1/projects/demo/security_groups/web", Some(json!({"name": "new"})), 200),
        (Method::POST, "/v1/projects/demo/security_groups/web/rules", Some(rule.clone()), 409),
        (Method::PUT, "/v1/projects/demo/security_groups/web/rules", Some(json!({"rules": [rule]})), 428),
        (Method::DELETE, "/v1/projects/demo/security_groups/web", None, 200),
        (Method::POST, "/v1/projects/demo/routers", Some(json!({"name": "new"})), 200),
        (Method::PATCH, "/v1/projects/demo/routers/edge", Some(json!({"external": false})), 200),
        (Method::POST, "/v1/projects/demo/routers/edge/add_interface", Some(subnet.clone()), 200),
        (Method::POST, "/v1/projects/demo/routers/edge/remove_interface", Some(subnet), 422),
        (Method::DELETE, "/v1/projects/demo/routers/edge", None, 200),
        (Method::POST, "/v1/projects/demo/floating_ips", Some(json!({"name": "new"})), 200),
        (Method::PATCH, "/v1/projects/demo/floating_ips/one", Some(json!({"name": "new"})), 200),
        (Method::POST, "/v1/projects/demo/floating_ips/one/disassociate", None, 200),
        (Method::DELETE, "/v1/projects/demo/floating_ips/one", None, 200),
    ];
    for (method, path, body, status) in calls {
        let answer = cloud.call(method.clone(), &format!("{path}?dry_run=true"), body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.headers.contains_key("cumulo-dry-run"), status == 200, "{method} {path}");
        assert_eq!(rows(&cloud).await, before, "{method} {path}");
    }
}

/// Every row of every table of ours, as text.
async fn rows(cloud: &TestCloud) -> Vec<String> {
    let tables = [
        "principals",
        "user_passwords",
        "password_codes",
        "user_totp",
        "recovery_codes",
        "sessions",
        "api_keys",
        "groups",
        "group_members",
        "signing_keys",
        "policies",
        "policy_versions",
        "policy_attachments",
        "projects",
        "quota_defaults",
        "project_quotas",
        "instance_types",
        "hosts",
        "host_join_tokens",
        "blobs",
        "images",
        "image_shares",
        "image_remains",
        "operations",
        "operation_steps",
        "instances",
        "transfers",
        "networks",
        "subnets",
        "subnet_addresses",
        "security_groups",
        "security_group_rules",
        "routers",
        "router_interfaces",
        "router_static_routes",
        "address_pools",
        "pools",
        "host_pools",
        "departures",
        "floating_ips",
        "pending_events",
        "events",
        "event_logs",
        "idempotency_keys",
    ];
    let mut all = Vec::new();
    for table in tables {
        let sql = sqlx::AssertSqlSafe(format!("SELECT t::text FROM {table} t ORDER BY 1"));
        all.extend(sqlx::query_scalar::<_, String>(sql).fetch_all(&cloud.app.pool).await.unwrap());
    }
    all
}

#[tokio::test]
async fn pages_and_filters_see_everything_once() {
    let cloud = TestCloud::start().await;
    for number in 0..7 {
        let labels = json!({"parity": if number % 2 == 0 { "even" } else { "odd" }});
        cloud.post("/v1/projects", json!({"name": format!("p{number}"), "labels": labels})).await.expect(201);
    }
    for limit in 1..=8 {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = cloud.get(&format!("/v1/projects?limit={limit}{cursor}")).await.expect(200);
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            seen.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        seen.sort();
        assert_eq!(seen, (0..7).map(|number| format!("p{number}")).collect::<Vec<_>>(), "limit {limit}");
    }
    let count = async |query: &str| -> usize {
        let page: Value = cloud.get(&format!("/v1/projects?{query}")).await.expect(200);
        page["items"].as_array().unwrap().len()
    };
    assert_eq!(count("label_selector=parity%3Dodd").await, 3);
    assert_eq!(count("label_selector=parity!%3Dodd").await, 4);
    assert_eq!(count("label_selector=parity").await, 7);
    assert_eq!(count("label_selector=!parity").await, 0);
    assert_eq!(count("name=p3").await, 1);
    assert_eq!(count("name=NOPE").await, 0);
}

#[tokio::test]
async fn all_fields_that_a_body_lacks_are_named_at_once() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let lacking = async |body: Value| {
        let answer = cloud.post("/v1/projects/demo/ports", body).await;
        let problem = answer.expect_problem(422, "validation_failed");
        let errors = problem["errors"].as_array().unwrap();
        errors.iter().map(|error| format!("{} {}", error["pointer"], error["message"])).collect::<Vec<_>>()
    };
    let network = r#""/network" "`network` is missing""#;
    assert_eq!(lacking(json!({})).await, [r#""/name" "`name` is missing""#, network]);
    assert_eq!(lacking(json!({"name": "x"})).await, [network]);
}

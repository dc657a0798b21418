//! Security groups through the router.

mod hosts;
mod rules;

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::{TestCloud, queued};

const GROUPS: &str = "/v1/projects/demo/security_groups";
const WEB: &str = "/v1/projects/demo/security_groups/web";
const RULES: &str = "/v1/projects/demo/security_groups/web/rules";

async fn start() -> TestCloud {
    let cloud = TestCloud::start().await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    cloud
}

fn https() -> Value {
    json!({"direction": "ingress", "protocol": "tcp", "port_first": 443, "remote_cidr": "0.0.0.0/0"})
}

fn web() -> Value {
    let own = json!({"direction": "ingress", "remote_group": "web", "description": "each other"});
    json!({"name": "web", "labels": {"tier": "front"}, "rules": [https(), own]})
}

#[tokio::test]
async fn a_group_is_made_read_changed_and_deleted() {
    let cloud = start().await;
    cloud.post(&format!("{GROUPS}?dry_run=true"), web()).await.expect(200);
    cloud.get(WEB).await.expect_problem(404, "not_found");
    let made = cloud.post(GROUPS, web()).await.expect(201);
    assert_eq!((&made["rules"][0]["port_first"], &made["rules"][0]["port_last"]), (&json!(443), &json!(443)));
    assert_eq!(made["rules"][1]["remote_group_id"], made["id"]);
    cloud.post(GROUPS, web()).await.expect_problem(409, "name_taken");
    let unknown = json!({"name": "db", "ports": []});
    let problem = cloud.post(GROUPS, unknown).await.expect_problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/ports");

    let read = cloud.get(WEB).await;
    assert_eq!(read.expect(200), made);
    let page = cloud.get(&format!("{GROUPS}?label_selector=tier=front")).await.expect(200);
    assert_eq!(page["items"], json!([made]));
    let tag = read.headers["etag"].to_str().unwrap();
    let patch = async |tag: &str, body: Value| {
        cloud.call_with(Method::PATCH, WEB, &[("if-match", tag)], Some(body)).await
    };
    let changed =
        patch(tag, json!({"description": "who serves", "labels": {"tier": null}})).await.expect(200);
    assert_eq!((&changed["description"], &changed["labels"]), (&json!("who serves"), &json!({})));
    assert_eq!(changed["rules"], made["rules"]);
    patch(tag, json!({"description": "late"})).await.expect_problem(412, "precondition_failed");
    patch("*", json!({"rules": []})).await.expect_problem(422, "validation_failed");
    let stale = [("if-match", tag)];
    cloud.call_with(Method::DELETE, WEB, &stale, None).await.expect_problem(412, "precondition_failed");
    cloud.delete(WEB).await.expect(204);
    cloud.get(WEB).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_repeated_creation_makes_one_group_and_the_quota_counts_it() {
    let cloud = start().await;
    let key = [("idempotency-key", "k1")];
    let create = async |body: Value| cloud.call_with(Method::POST, GROUPS, &key, Some(body)).await;
    let first = create(web()).await.expect(201);
    assert_eq!(create(web()).await.expect(201), first);
    create(json!({"name": "other"})).await.expect_problem(422, "idempotency_key_reused");
    let used = cloud.get("/v1/projects/demo/quotas").await.expect(200)["items"].clone();
    let used = used.as_array().unwrap().iter().find(|quota| quota["resource"] == "security_groups").unwrap();
    let limit = json!({"security_groups": used["used"]});
    cloud.call(Method::PATCH, "/v1/projects/demo/quotas", Some(limit)).await.expect(200);
    cloud.post(GROUPS, json!({"name": "more"})).await.expect_problem(409, "quota_exceeded");
}

#[tokio::test]
async fn a_group_in_use_stays_and_says_by_whom() {
    let cloud = start().await;
    cloud.post(GROUPS, web()).await.expect(201);
    let from_web = json!({"direction": "ingress", "remote_group": "web"});
    cloud.post(GROUPS, json!({"name": "db", "rules": [from_web]})).await.expect(201);
    let subnet = cloud.insert_subnet("net", "10.7.0.0/24", None).await;
    let port = cloud.insert_port("eth", &[(subnet, "10.7.0.5")]).await;
    cloud.join_security_group(port, "web").await;
    let problem = cloud.delete(WEB).await.expect_problem(409, "in_use");
    assert_eq!(
        problem["detail"],
        "1 ports are in it (eth) and rules of other groups name it (db); change those first"
    );
    sqlx::query("DELETE FROM port_security_groups").execute(&cloud.app.pool).await.unwrap();
    cloud.delete(WEB).await.expect_problem(409, "in_use");
    cloud.delete(&format!("{GROUPS}/db")).await.expect(204);
    cloud.delete(WEB).await.expect(204);
}

#[tokio::test]
async fn two_groups_are_given_rules_that_name_each_other_at_once() {
    let cloud = start().await;
    for name in ["a", "b"] {
        cloud.post(GROUPS, json!({"name": name})).await.expect(201);
    }
    let naming = |group: &'static str, other: &'static str| {
        let cloud = &cloud;
        async move {
            let rule = json!({"direction": "ingress", "remote_group": other});
            cloud.post(&format!("{GROUPS}/{group}/rules"), rule).await
        }
    };
    let held = "SELECT FROM security_groups WHERE name = 'b' FOR UPDATE";
    let [first, second] = queued(&cloud, held, naming("b", "a"), naming("a", "b")).await;
    first.expect(201);
    second.expect(201);
    // One that is named just now is not deleted.
    cloud.post(GROUPS, json!({"name": "c"})).await.expect(201);
    let held = "LOCK TABLE pending_network_changes IN EXCLUSIVE MODE";
    let path = format!("{GROUPS}/c");
    let [named, deleted] = queued(&cloud, held, naming("a", "c"), cloud.delete(&path)).await;
    named.expect(201);
    deleted.expect_problem(409, "in_use");
}

//! Rules through the router.

use axum::http::Method;
use serde_json::{Value, json};

use super::{GROUPS, RULES, WEB, https, start, web};
use crate::testing::TestCloud;

async fn rules(cloud: &TestCloud) -> Value {
    cloud.get(WEB).await.expect(200)["rules"].clone()
}

#[tokio::test]
async fn rules_come_and_go() {
    let cloud = start().await;
    let made = cloud.post(GROUPS, web()).await.expect(201);
    let ping =
        json!({"direction": "egress", "protocol": "icmp", "icmp_type": 8, "remote_cidr": "10.0.0.0/8"});
    let dry = cloud.post(&format!("{RULES}?dry_run=true"), ping.clone()).await.expect(200);
    assert_eq!(dry["icmp_type"], 8);
    assert_eq!(rules(&cloud).await, made["rules"]);
    let tag = cloud.get(WEB).await.headers["etag"].to_str().unwrap().to_owned();
    let added = cloud.post(RULES, ping.clone()).await.expect(201);
    assert_eq!(rules(&cloud).await[2], added);
    // What is left out means the same as what it stands for.
    cloud.post(RULES, ping).await.expect_problem(409, "duplicate_rule");
    let mut https_again = https();
    https_again["port_last"] = json!(443);
    https_again["description"] = json!("once more");
    cloud.post(RULES, https_again).await.expect_problem(409, "duplicate_rule");
    let gre = json!({"direction": "egress", "protocol": 47, "remote_cidr": "::/0"});
    let stale = [("if-match", tag.as_str())];
    let late = cloud.call_with(Method::POST, RULES, &stale, Some(gre.clone())).await;
    late.expect_problem(412, "precondition_failed");
    assert_eq!(cloud.post(RULES, gre).await.expect(201)["protocol"], 47);

    let path = format!("{RULES}/{}", added["id"].as_str().unwrap());
    cloud.delete(&path).await.expect(204);
    cloud.delete(&path).await.expect_problem(404, "not_found");
    cloud.delete(&format!("{RULES}/web")).await.expect_problem(404, "not_found");
    assert_eq!(rules(&cloud).await.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn wrong_rules_are_pointed_at() {
    let cloud = start().await;
    cloud.post(GROUPS, web()).await.expect(201);
    for (field, value, pointer) in [
        ("protocol", json!("sctp"), "/protocol"),
        ("protocol", json!(256), "/protocol"),
        ("port_first", json!(65536), "/port_first"),
        ("port_last", json!(442), "/port_last"),
        ("direction", json!("both"), "/direction"),
        ("remote_cidr", json!("0.0.0.0"), "/remote_cidr"),
        ("remote_cidr", json!("10.1.2.3/8"), "/remote_cidr"),
        ("remote_group", json!("web"), "/remote_cidr"),
        ("via", json!("router"), "/via"),
    ] {
        let mut rule = https();
        rule[field] = value;
        let problem = cloud.post(RULES, rule).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    for unknown in ["nothing", "NOTHING", "0190a0a0-0000-7000-8000-000000000000"] {
        let rule = json!({"direction": "ingress", "remote_group": unknown});
        let problem = cloud.post(RULES, rule.clone()).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/remote_group", "{problem}");
        let group = json!({"name": "db", "rules": [https(), rule]});
        let problem = cloud.post(GROUPS, group).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/rules/1/remote_group", "{problem}");
    }
    // A group of another project is none of ours.
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    let foreign =
        cloud.post("/v1/projects/other/security_groups", json!({"name": "theirs"})).await.expect(201);
    let rule = json!({"direction": "ingress", "remote_group": foreign["id"]});
    cloud.post(RULES, rule).await.expect_problem(422, "validation_failed");
}

#[tokio::test]
async fn all_rules_are_replaced_at_once_by_whoever_has_seen_them() {
    let cloud = start().await;
    cloud.post(GROUPS, web()).await.expect(201);
    let before = cloud.get(WEB).await;
    let tag = before.headers["etag"].to_str().unwrap();
    let replace = async |tag: Option<&str>, rules: Value| {
        let headers: Vec<_> = tag.map(|tag| ("if-match", tag)).into_iter().collect();
        cloud.call_with(Method::PUT, RULES, &headers, Some(json!({"rules": rules}))).await
    };
    let dns = json!({"direction": "egress", "protocol": "udp", "port_first": 53, "remote_cidr": "0.0.0.0/0"});
    replace(None, json!([dns])).await.expect_problem(428, "precondition_required");
    replace(Some("\"9.0\""), json!([dns])).await.expect_problem(412, "precondition_failed");
    let twice = replace(Some(tag), json!([dns, https(), dns])).await.expect_problem(409, "duplicate_rule");
    assert_eq!(twice["detail"], "/rules/0 and /rules/2 are the same rule; leave one out");
    let unknown = json!({"direction": "ingress", "remote_group": "nothing"});
    replace(Some(tag), json!([dns, unknown])).await.expect_problem(422, "validation_failed");
    assert_eq!(cloud.get(WEB).await.expect(200), before.expect(200));

    let replaced = replace(Some(tag), json!([dns, https()])).await.expect(200);
    assert_eq!(replaced["rules"].as_array().unwrap().len(), 2);
    assert_eq!(cloud.get(WEB).await.expect(200), replaced);
    replace(Some(tag), json!([])).await.expect_problem(412, "precondition_failed");
    assert_eq!(replace(Some("*"), json!([])).await.expect(200)["rules"], json!([]));
}

#[tokio::test]
async fn a_group_has_a_hundred_rules_and_no_more() {
    let cloud = start().await;
    let rule = |port: u32| json!({"direction": "ingress", "protocol": "tcp", "port_first": port, "remote_cidr": "0.0.0.0/0"});
    let group = |rules: u32| json!({"name": "web", "rules": (1..=rules).map(rule).collect::<Vec<_>>()});
    let problem = cloud.post(GROUPS, group(101)).await.expect_problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["code"], "too_many");
    cloud.post(GROUPS, group(100)).await.expect(201);
    cloud.post(RULES, rule(101)).await.expect_problem(409, "wrong_state");
}

//! Conditions on labels, sizes, the second factor and the credential, from the document to the refusal.

use axum::http::Method;
use serde_json::{Value, json};

use super::{allowing, attach, call_as, document, execute, instance, make_key, policy};
use crate::testing::{Answer, TestCloud};

const INSTANCES: &str = "/v1/projects/demo/instances";

/// A cloud in which `dev` has this policy in project `demo`.
async fn with_policy(statements: Value) -> (TestCloud, String) {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let dev = cloud.user("dev", false).await;
    policy(&cloud, "/v1/projects/demo", "rules", document(statements)).await;
    attach(&cloud, "/v1/projects/demo", "rules", "user", "dev").await;
    (cloud, dev)
}

fn labelled(name: &str, labels: Value) -> Value {
    let mut body = instance(name);
    body["labels"] = labels;
    body
}

async fn patch(cloud: &TestCloud, bearer: &str, name: &str, body: Value) -> Answer {
    call_as(cloud, bearer, Method::PATCH, &format!("{INSTANCES}/{name}"), Some(body)).await
}

#[tokio::test]
async fn labels_give_rights_and_nobody_relabels_their_way_into_them() {
    let (cloud, dev) = with_policy(json!([
        {"Effect": "Allow", "Action": ["compute:Get*", "compute:List*", "compute:UpdateInstance"], "Resource": "*"},
        {"Effect": "Allow", "Action": "compute:*", "Resource": "*",
         "Condition": {"StringEquals": {"cumulo:ResourceLabel/stage": "test"}}},
        {"Effect": "Allow", "Action": "compute:StopInstance", "Resource": "crn:cumulo:compute:demo:instance/tmp-*"}
    ]))
    .await;
    for (name, stage) in [("web", "live"), ("try", "test")] {
        cloud.post(INSTANCES, labelled(name, json!({"stage": stage}))).await.expect(202);
    }
    let delete =
        async |name: &str| call_as(&cloud, &dev, Method::DELETE, &format!("{INSTANCES}/{name}"), None).await;
    delete("web").await.expect_problem(403, "forbidden");
    let problem = patch(&cloud, &dev, "web", json!({"labels": {"stage": "test"}}))
        .await
        .expect_problem(403, "forbidden");
    assert!(problem["detail"].as_str().unwrap().contains("could do what you may not do now"), "{problem}");
    patch(&cloud, &dev, "web", json!({"name": "tmp-web"})).await.expect_problem(403, "forbidden");
    // Whatever gives no right is allowed, and so is giving one up.
    patch(&cloud, &dev, "web", json!({"labels": {"owner": "dev"}, "name": "web-2"})).await.expect(200);
    patch(&cloud, &dev, "try", json!({"labels": {"stage": "live"}})).await.expect(200);
    delete("try").await.expect_problem(403, "forbidden");
    // What was refused was not written, and somebody else may do it.
    let web = cloud.get(&format!("{INSTANCES}/web-2")).await.expect(200);
    assert_eq!(web["labels"], json!({"stage": "live", "owner": "dev"}));
    patch(&cloud, &format!("Bearer {}", cloud.token().await), "web-2", json!({"labels": {"stage": "test"}}))
        .await
        .expect(200);
    delete("web-2").await.expect(202);
}

#[tokio::test]
async fn a_denial_by_label_cannot_be_taken_off() {
    let (cloud, dev) = with_policy(json!([
        {"Effect": "Allow", "Action": "compute:*", "Resource": "*"},
        {"Sid": "Hold", "Effect": "Deny", "Action": "compute:DeleteInstance", "Resource": "*",
         "Condition": {"StringEquals": {"cumulo:ResourceLabel/keep": "yes"}}}
    ]))
    .await;
    cloud.post(INSTANCES, labelled("web", json!({"keep": "yes"}))).await.expect(202);
    patch(&cloud, &dev, "web", json!({"labels": {"keep": null}})).await.expect_problem(403, "forbidden");
    patch(&cloud, &dev, "web", json!({"labels": {"keep": "no"}})).await.expect_problem(403, "forbidden");
    patch(&cloud, &dev, "web", json!({"labels": {"tier": "front"}})).await.expect(200);
    let path = format!("{INSTANCES}/web");
    let problem = call_as(&cloud, &dev, Method::DELETE, &path, None).await.expect_problem(403, "forbidden");
    assert_eq!(problem["denial"]["statements"][0]["sid"], "Hold");
}

#[tokio::test]
async fn sizes_and_labels_of_what_is_asked_for_are_limits() {
    let (cloud, dev) = with_policy(json!([
        {"Effect": "Allow", "Action": "compute:CreateInstance", "Resource": "*", "Condition": {
            "NumericLessThanEquals": {"compute:Vcpus": 2, "compute:MemoryMib": "512"},
            "StringLike": {"compute:InstanceType": ["tiny", "s-*"]},
            "StringEquals": {"cumulo:RequestLabel/owner": "${cumulo:PrincipalName}"},
            "ForAllValues:StringEquals": {"cumulo:LabelKeys": ["owner", "stage"]}
        }},
        {"Effect": "Allow", "Action": ["compute:GetInstance", "operation:*"], "Resource": "*"}
    ]))
    .await;
    for (name, vcpus, memory) in [("s-two", 2, 512), ("s-four", 4, 512), ("s-fat", 2, 1024), ("huge", 1, 256)]
    {
        let size = json!({"name": name, "vcpus": vcpus, "memory_mib": memory, "root_disk_gib": 1});
        cloud.post("/v1/instance_types", size).await.expect(201);
    }
    let owner = json!({"owner": "dev"});
    let cases = [
        ("tiny", owner.clone(), 202),
        ("s-two", json!({"owner": "dev", "stage": "test"}), 202),
        ("s-four", owner.clone(), 403),
        ("s-fat", owner.clone(), 403),
        ("huge", owner.clone(), 403),
        ("tiny", json!({}), 403),
        ("tiny", json!({"owner": "ann"}), 403),
        ("tiny", json!({"owner": "dev", "colour": "red"}), 403),
        // Before a type that does not exist, nothing is known of its size, so nothing is allowed.
        ("nothing", owner, 403),
    ];
    for (number, (instance_type, labels, status)) in cases.into_iter().enumerate() {
        let mut body = labelled(&format!("web-{number}"), labels.clone());
        body["instance_type"] = json!(instance_type);
        let answer = call_as(&cloud, &dev, Method::POST, INSTANCES, Some(body)).await;
        assert_eq!(answer.status.as_u16(), status, "{instance_type} {labels}: {:?}", answer.json());
    }
}

#[tokio::test]
async fn a_second_factor_can_be_demanded_of_people_and_not_of_programs() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let ann = cloud.user("ann", false).await;
    attach(&cloud, "/v1/projects/demo", "power-user", "user", "ann").await;
    let key = make_key(&cloud, &ann, "ann", None).await;
    attach(&cloud, "/v1", "require-second-factor", "user", "ann").await;
    let list = async |bearer: &str| call_as(&cloud, bearer, Method::GET, INSTANCES, None).await;
    let problem = list(&ann).await.expect_problem(403, "forbidden");
    assert_eq!(problem["denial"]["statements"][0]["policy"], "require-second-factor");
    assert_eq!(problem["denial"]["statements"][0]["sid"], "SecondFactorFirst");
    execute(&cloud, "UPDATE sessions SET second_factor_at = created_at").await;
    list(&ann).await.expect(200);
    execute(&cloud, "UPDATE sessions SET second_factor_at = NULL").await;
    list(&ann).await.expect_problem(403, "forbidden");
    list(&key).await.expect(200);
    // Not for longer than an hour.
    cloud.call(Method::DELETE, &detaching(&cloud, "ann").await, None).await.expect(204);
    let fresh = document(json!([
        {"Sid": "Fresh", "Effect": "Deny", "Action": "*", "Resource": "*",
         "Condition": {"NumericGreaterThan": {"cumulo:MultiFactorAuthAge": 600}}}
    ]));
    policy(&cloud, "/v1", "fresh", fresh).await;
    attach(&cloud, "/v1", "fresh", "user", "ann").await;
    execute(&cloud, "UPDATE sessions SET second_factor_at = created_at").await;
    list(&ann).await.expect(200);
    cloud.pass(601);
    let problem = list(&ann).await.expect_problem(403, "forbidden");
    assert_eq!(problem["denial"]["statements"][0]["sid"], "Fresh");
}

/// The path of a user's attachment of `require-second-factor`.
async fn detaching(cloud: &TestCloud, user: &str) -> String {
    let path = format!("/v1/policy_attachments?policy=require-second-factor&user={user}");
    let found = cloud.get(&path).await.expect(200);
    format!("/v1/policy_attachments/{}", found["items"][0]["id"].as_str().unwrap())
}

#[tokio::test]
async fn a_key_can_do_no_more_than_its_policy_and_no_more_than_its_owner() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post(INSTANCES, instance("web")).await.expect(202);
    let ann = cloud.user("ann", false).await;
    attach(&cloud, "/v1/projects/demo", "power-user", "user", "ann").await;
    let narrow = document(json!([
        {"Sid": "Look", "Effect": "Allow", "Action": ["compute:Get*", "compute:List*", "host:*"], "Resource": "*"}]));
    let key = make_key(&cloud, &ann, "ann", Some(narrow)).await;
    let wide = make_key(&cloud, &ann, "ann", Some(allowing("*"))).await;
    let web = format!("{INSTANCES}/web");
    call_as(&cloud, &key, Method::GET, &web, None).await.expect(200);
    let problem = call_as(&cloud, &key, Method::DELETE, &web, None).await.expect_problem(403, "forbidden");
    assert!(
        problem["detail"].as_str().unwrap().contains("the policy of this API key does not allow"),
        "{problem}"
    );
    assert_eq!(problem["denial"]["statements"], json!([]));
    for bearer in [&key, &wide] {
        call_as(&cloud, bearer, Method::GET, "/v1/hosts", None).await.expect_problem(403, "forbidden");
    }
    call_as(&cloud, &wide, Method::DELETE, &web, None).await.expect(202);
    // A key of an administrator that is narrowed to one project sees no other.
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    let of_demo = document(json!([
        {"Effect": "Allow", "Action": "*", "Resource": "crn:cumulo:*:demo:*"},
        {"Effect": "Allow", "Action": "project:ListProjects", "Resource": "*"}]));
    let admin = format!("Bearer {}", cloud.token().await);
    let key = make_key(&cloud, &admin, "admin", Some(of_demo)).await;
    call_as(&cloud, &key, Method::GET, INSTANCES, None).await.expect(200);
    let other = "/v1/projects/other/instances";
    call_as(&cloud, &key, Method::GET, other, None).await.expect_problem(404, "not_found");
    let listed = call_as(&cloud, &key, Method::GET, "/v1/projects", None).await.expect(200);
    assert_eq!(super::names(&listed), ["demo"]);
}

#[tokio::test]
async fn rights_can_end_by_themselves() {
    let (cloud, dev) = with_policy(json!([
        {"Effect": "Allow", "Action": "compute:*", "Resource": "*",
         "Condition": {"DateLessThan": {"cumulo:CurrentTime": "2026-06-01T12:05:00Z"}}}
    ]))
    .await;
    let list = async || call_as(&cloud, &dev, Method::GET, INSTANCES, None).await;
    cloud.pass(299);
    list().await.expect(200);
    cloud.pass(1);
    list().await.expect_problem(403, "forbidden");
}

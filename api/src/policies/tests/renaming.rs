//! Names that policies know: nobody gets around a policy by changing one.

use axum::http::Method;
use serde_json::{Value, json};

use super::{attach, call_as, document, make_key, make_service_account, policy, refused};
use crate::testing::{Answer, TestCloud};

const DEMO: &str = "/v1/projects/demo";

/// A cloud with project `demo`, and what `ann` signs in with. These statements bind her there.
async fn bound(statements: Value) -> (TestCloud, String) {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let ann = cloud.user("ann", false).await;
    policy(&cloud, DEMO, "bond", document(statements)).await;
    attach(&cloud, DEMO, "bond", "user", "ann").await;
    (cloud, ann)
}

async fn rename(cloud: &TestCloud, bearer: &str, path: &str, name: &str) -> Answer {
    call_as(cloud, bearer, Method::PATCH, path, Some(json!({"name": name}))).await
}

#[tokio::test]
async fn nobody_renames_a_project_into_a_right() {
    let (cloud, ann) = bound(json!([
        {"Sid": "Rename", "Effect": "Allow", "Action": "project:*", "Resource": "crn:cumulo:*:?*:*"},
        {"Sid": "Production", "Effect": "Allow", "Action": "compute:*",
         "Resource": ["crn:cumulo:compute:prod:instance/db", "crn:cumulo:compute:demo:instance/web"]}
    ]))
    .await;
    // Both before and after it depends on the instance.
    let problem = refused(&rename(&cloud, &ann, DEMO, "prod").await, "what you may not do now");
    assert!(problem["detail"].as_str().unwrap().contains("policy bond, statement Production"), "{problem}");
    assert_eq!(problem["denial"]["statements"][0]["sid"], "Production");
    let record = cloud.get("/v1/audit_records?action=project:UpdateProject&outcome=denied").await.expect(200);
    assert_eq!(record["items"][0]["deciding"][0]["sid"], "Production");
    rename(&cloud, &ann, DEMO, "trial").await.expect(200);
    refused(&rename(&cloud, &ann, "/v1/projects/trial", "demo").await, "statement Production");
    let admin = format!("Bearer {}", cloud.token().await);
    rename(&cloud, &admin, "/v1/projects/trial", "prod").await.expect(200);
}

#[tokio::test]
async fn nobody_renames_a_project_out_of_a_denial() {
    let (cloud, ann) = bound(json!([
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Sid": "KeepTheDatabase", "Effect": "Deny", "Action": "compute:DeleteInstance",
         "Resource": "crn:cumulo:compute:demo:instance/db"},
        {"Sid": "FromTheOffice", "Effect": "Deny", "Action": "image:*", "NotResource": "crn:cumulo:*:other:*",
         "Condition": {"IpAddress": {"cumulo:SourceIp": "203.0.113.0/24"}}}
    ]))
    .await;
    for (name, words) in [("other", "statement FromTheOffice"), ("third", "statement KeepTheDatabase")] {
        refused(&rename(&cloud, &ann, DEMO, name).await, words);
    }
    let relabel = Some(json!({"labels": {"a": "b"}}));
    call_as(&cloud, &ann, Method::PATCH, DEMO, relabel).await.expect(200);
}

#[tokio::test]
async fn no_key_renames_a_project_into_its_own_policy() {
    let (cloud, ann) = bound(json!([{"Effect": "Allow", "Action": "*", "Resource": "*"}])).await;
    let narrow = document(json!([
        {"Effect": "Allow", "Action": "project:*", "Resource": "*"},
        {"Sid": "There", "Effect": "Allow", "Action": "compute:*", "Resource": "crn:cumulo:*:prod:*"}]));
    let key = make_key(&cloud, &ann, "ann", Some(narrow)).await;
    refused(&rename(&cloud, &key, DEMO, "prod").await, "the policy of this API key, statement There");
    rename(&cloud, &ann, DEMO, "prod").await.expect(200);
}

#[tokio::test]
async fn no_service_account_passes_for_a_user() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let named = |name: &str| {
        document(json!([{"Effect": "Allow", "Action": "compute:ListInstances", "Resource": "*",
            "Condition": {"StringEquals": {"cumulo:PrincipalName": name}}}]))
    };
    let boss = cloud.user("boss", false).await;
    let (_, robot) = make_service_account(&cloud, "demo", "boss").await;
    policy(&cloud, "/v1", "of-the-user", named("boss")).await;
    policy(&cloud, "/v1", "of-the-account", named("demo/boss")).await;
    for name in ["of-the-user", "of-the-account"] {
        let body = json!({"policy": name, "everyone": true});
        let attached = cloud.post("/v1/policy_attachments", body).await.expect(201);
        let list = format!("{DEMO}/instances");
        let mut allowed = Vec::new();
        for bearer in [&boss, &robot] {
            allowed.push(call_as(&cloud, bearer, Method::GET, &list, None).await.status.is_success());
        }
        assert_eq!(allowed, [name == "of-the-user", name == "of-the-account"], "{name}");
        let path = format!("{DEMO}/policies:who_can?action=compute:ListInstances");
        let found = cloud.get(&path).await.expect(200);
        let kinds: Vec<_> =
            found["items"].as_array().unwrap().iter().map(|one| &one["subject"]["kind"]).collect();
        let kind = if name == "of-the-user" { "user" } else { "service_account" };
        assert_eq!(kinds, ["user", kind], "the administrator and whoever is called so");
        let path = format!("/v1/policy_attachments/{}", attached["id"].as_str().unwrap());
        cloud.delete(&path).await.expect(204);
    }
}

#[tokio::test]
async fn nobody_chooses_their_own_name() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let eve = cloud.user("eve", true).await;
    refused(&rename(&cloud, &eve, "/v1/users/eve", "boss").await, "nobody renames themselves");
    rename(&cloud, &eve, "/v1/users/eve", "eve").await.expect(200);
    let admin = format!("Bearer {}", cloud.token().await);
    rename(&cloud, &admin, "/v1/users/eve", "adam").await.expect(200);

    let (_, robot) = make_service_account(&cloud, "demo", "robot").await;
    attach(&cloud, DEMO, "project-owner", "service_account", "robot").await;
    let itself = format!("{DEMO}/service_accounts/robot");
    refused(&rename(&cloud, &robot, &itself, "boss").await, "nobody renames themselves");
    refused(&rename(&cloud, &robot, DEMO, "other").await, "no service account renames its own project");
    rename(&cloud, &admin, DEMO, "other").await.expect(200);
}

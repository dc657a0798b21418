//! How much there may be, and which policy a name means.

use axum::http::Method;
use serde_json::{Value, json};

use super::{allowing, attach, call_as, document, execute, make_key, policy};
use crate::testing::TestCloud;

const PROJECT: &str = "/v1/projects/demo";
const ATTACHMENTS: &str = "/v1/projects/demo/policy_attachments";

/// More than a document may cost.
fn costly() -> Value {
    let patterns = vec!["*secret*"; 3];
    document(json!([{"Effect": "Allow", "Action": "*", "Resource": "*",
                     "Condition": {"ForAllValues:StringLike": {"cumulo:LabelKeys": patterns}}}]))
}

#[tokio::test]
async fn a_project_has_so_many_policies_and_the_cloud_as_many_as_it_needs() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let limit = json!({"policies": 1});
    cloud.call(Method::PATCH, &format!("{PROJECT}/quotas"), Some(limit)).await.expect(200);
    policy(&cloud, PROJECT, "first", allowing("*")).await;
    let second = json!({"name": "second", "document": allowing("*")});
    let refused = cloud.post(&format!("{PROJECT}/policies"), second.clone()).await;
    let problem = refused.expect_problem(409, "quota_exceeded");
    assert_eq!(problem["quota"], json!([{"resource": "policies", "limit": 1, "used": 1, "asked": 1}]));
    policy(&cloud, "/v1", "of-the-cloud", allowing("*")).await;
    cloud.delete(&format!("{PROJECT}/policies/first")).await.expect(204);
    cloud.post(&format!("{PROJECT}/policies"), second).await.expect(201);
    // With the project its policies go, and what they are charged with.
    cloud.delete("/v1/projects/demo/images/image").await.expect(204);
    cloud.delete(PROJECT).await.expect(204);
}

#[tokio::test]
async fn one_subject_has_twenty_attachments_in_one_place() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.user("bob", false).await;
    cloud.user("eve", false).await;
    for number in 0..24 {
        policy(&cloud, "/v1", &format!("p{number}"), allowing("compute:ListInstances")).await;
    }
    for number in 0..19 {
        attach(&cloud, PROJECT, &format!("p{number}"), "user", "bob").await;
    }
    // Of several at once, one is the twentieth.
    let more = (19..24).map(|number| {
        let body = json!({"policy": format!("p{number}"), "user": "bob"});
        let cloud = &cloud;
        async move { cloud.post(ATTACHMENTS, body).await }
    });
    let answers = futures_util::future::join_all(more).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!((made.len(), refused.len()), (1, 4));
    for answer in refused {
        let error = answer.expect_problem(422, "validation_failed")["errors"][0].clone();
        assert_eq!((&error["pointer"], &error["code"]), (&json!("/user"), &json!("too_many")));
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("20 policies are attached") && message.contains("20 is the most"),
            "{message}"
        );
    }
    let page = cloud.get(&format!("{ATTACHMENTS}?user=bob&limit=100")).await.expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 20);
    // Another place and another subject have twenty of their own, and what goes makes room.
    attach(&cloud, "/v1", "p23", "user", "bob").await;
    attach(&cloud, PROJECT, "p23", "user", "eve").await;
    let first = page["items"][0]["id"].as_str().unwrap();
    cloud.delete(&format!("{ATTACHMENTS}/{first}")).await.expect(204);
    attach(&cloud, PROJECT, "power-user", "user", "bob").await;
}

#[tokio::test]
async fn a_policy_of_a_project_does_not_take_the_name_of_one_of_the_cloud() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.user("bob", false).await;
    policy(&cloud, "/v1", "house-rules", allowing("compute:ListInstances")).await;
    let own = policy(&cloud, PROJECT, "own", allowing("*")).await;
    for name in ["house-rules", "read-only"] {
        let body = json!({"name": name, "document": allowing("*")});
        cloud.post(&format!("{PROJECT}/policies"), body).await.expect_problem(409, "name_taken");
        let own = format!("{PROJECT}/policies/own");
        let renamed = cloud.call(Method::PATCH, &own, Some(json!({"name": name}))).await;
        renamed.expect_problem(409, "name_taken");
    }
    // The cloud chooses its names freely: a project must not keep them from it.
    let later = policy(&cloud, "/v1", "own", allowing("compute:ListInstances")).await;
    let by_name = json!({"policy": "own", "user": "bob"});
    let problem = cloud.post(ATTACHMENTS, by_name.clone()).await.expect_problem(422, "validation_failed");
    let error = &problem["errors"][0];
    assert_eq!((&error["pointer"], &error["code"]), (&json!("/policy"), &json!("ambiguous")));
    assert!(error["message"].as_str().unwrap().contains("by its id"), "{error}");
    for id in [&own, &later] {
        let made = cloud.post(ATTACHMENTS, json!({"policy": id, "user": "bob"})).await.expect(201);
        assert_eq!(&made["policy"]["id"], id);
    }
    // In the cloud only its own is meant.
    let made = cloud.post("/v1/policy_attachments", by_name).await.expect(201);
    assert_eq!(made["policy"]["id"], json!(later));
}

#[tokio::test]
async fn a_costly_document_is_refused_wherever_one_is_written_and_stays_in_force_where_it_is() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let bob = cloud.user("bob", false).await;
    let at = |above: &str| {
        json!(format!("{above}/Statement/0/Condition/ForAllValues:StringLike/cumulo:LabelKeys/2"))
    };
    let body = json!({"name": "costly", "document": costly()});
    let simulation = json!({"policies": [costly()], "action": "compute:ListInstances"});
    let cases = [
        (format!("{PROJECT}/policies"), body, "/document"),
        (format!("{PROJECT}/policies:simulate"), simulation, "/policies/0"),
    ];
    for (path, body, above) in cases {
        let problem = cloud.post(&path, body).await.expect_problem(422, "validation_failed");
        let error = &problem["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&at(above), &json!("too_complex")), "{problem}");
    }
    let key = json!({"policy": costly()});
    let refused = call_as(&cloud, &bob, Method::POST, "/v1/users/bob/api_keys", Some(key)).await;
    assert_eq!(refused.expect_problem(422, "validation_failed")["errors"][0]["code"], "too_complex");
    let key = make_key(&cloud, &bob, "bob", None).await;

    policy(&cloud, PROJECT, "old", allowing("compute:GetInstance")).await;
    let written = format!(
        "UPDATE policy_versions SET document = '{}'
         WHERE policy_id = (SELECT id FROM policies WHERE name = 'old')",
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["*"], "Resource": ["*"],
            "Condition": costly()["Statement"][0]["Condition"]}]})
    );
    sqlx::query(sqlx::AssertSqlSafe(written)).execute(&cloud.app.pool).await.unwrap();
    attach(&cloud, PROJECT, "old", "user", "bob").await;
    let list = format!("{PROJECT}/instances");
    for bearer in [&bob, &key] {
        call_as(&cloud, bearer, Method::GET, &list, None).await.expect(200);
    }
    execute(&cloud, "DELETE FROM policy_attachments WHERE project_id IS NOT NULL").await;
    call_as(&cloud, &bob, Method::GET, &list, None).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_simulated_request_is_no_larger_than_a_real_one() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let cases = [
        ("cumulo:LabelKeys", json!(vec!["a"; 33]), "too_many", "33"),
        ("cumulo:LabelKeys", json!(["a".repeat(64)]), "too_long", "64"),
        ("cumulo:PrincipalName", json!("a".repeat(64)), "too_long", "64"),
    ];
    for (key, value, code, found) in cases {
        let body =
            json!({"policies": [allowing("*")], "action": "compute:ListInstances", "context": {key: value}});
        let path = format!("{PROJECT}/policies:simulate");
        let problem = cloud.post(&path, body).await.expect_problem(422, "validation_failed");
        let error = &problem["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!(format!("/context/{key}")), &json!(code)));
        assert!(error["message"].as_str().unwrap().contains(found), "{error}");
    }
}

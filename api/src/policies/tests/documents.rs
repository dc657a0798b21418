//! Policies and their versions.

use std::collections::BTreeSet;

use axum::http::Method;
use serde_json::{Value, json};

use super::{allowing, attach, document, names, policy};
use crate::testing::TestCloud;

#[tokio::test]
async fn a_policy_is_written_changed_rolled_back_and_deleted() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for (path, scope) in [("/v1/projects/demo", "project"), ("/v1", "cloud")] {
        let list = format!("{path}/policies");
        let one = format!("{path}/policies/mine");
        let new = json!({"name": "mine", "description": "first", "document": {
            "Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "image:*", "Resource": "*"}}});
        let made = cloud.post(&list, new.clone()).await.expect(201);
        assert_eq!(made["scope"], scope);
        assert_eq!((&made["managed"], &made["default_version"]), (&json!(false), &json!(1)));
        // One statement became a list of one, one action as well.
        assert_eq!(made["document"]["Statement"][0]["Action"], json!(["image:*"]));
        assert_eq!(cloud.get(&one).await.expect(200), made);
        cloud.post(&list, new).await.expect_problem(409, "name_taken");

        let patch = async |body: Value| cloud.call(Method::PATCH, &one, Some(body)).await;
        let second =
            patch(json!({"document": allowing("compute:*"), "description": "second"})).await.expect(200);
        assert_eq!((&second["default_version"], &second["description"]), (&json!(2), &json!("second")));
        // The same once more is no new version.
        patch(json!({"document": second["document"]})).await.expect(200);
        let back = patch(json!({"default_version": 1})).await.expect(200);
        assert_eq!(back["document"], made["document"]);
        let third = patch(json!({"document": allowing("host:*")})).await.expect(200);
        assert_eq!(third["default_version"], 3, "the number after the newest, not after the default");

        let versions = cloud.get(&format!("{one}/versions")).await.expect(200);
        let seen: Vec<_> = versions["items"].as_array().unwrap().iter().collect();
        assert_eq!(seen.iter().map(|one| one["version"].as_i64().unwrap()).collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!(seen.iter().filter(|one| one["is_default"] == true).count(), 1);
        assert_eq!(seen[0]["created_by"]["name"], "admin");
        assert_eq!(seen[2]["document"], made["document"], "an old version is what it was");

        let wrong = json!({"document": allowing("*"), "default_version": 1});
        let problem = patch(wrong).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/default_version");
        let problem = patch(json!({"default_version": 4})).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["code"], "not_found");

        let renamed = patch(json!({"name": "ours"})).await.expect(200);
        assert_eq!((&renamed["name"], &renamed["id"]), (&json!("ours"), &made["id"]));
        cloud.get(&one).await.expect_problem(404, "not_found");
        cloud.delete(&format!("{path}/policies/ours")).await.expect(204);
        cloud.get(&format!("{path}/policies/ours")).await.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_project_lists_what_can_be_attached_there() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    policy(&cloud, "/v1/projects/demo", "ours", allowing("image:*")).await;
    policy(&cloud, "/v1/projects/other", "theirs", allowing("image:*")).await;
    policy(&cloud, "/v1", "office", allowing("image:*")).await;
    let all = cloud.get("/v1/projects/demo/policies").await.expect(200);
    let all = names(&all);
    assert!(all.contains(&"power-user") && all.contains(&"ours") && all.contains(&"office"), "{all:?}");
    assert!(!all.contains(&"theirs"), "{all:?}");
    let own = cloud.get("/v1/projects/demo/policies?scope=project").await.expect(200);
    assert_eq!(names(&own), ["ours"]);
    let one = cloud.get("/v1/projects/demo/policies?name=power-user&scope=cloud").await.expect(200);
    assert_eq!((names(&one), &one["items"][0]["managed"]), (vec!["power-user"], &json!(true)));
    let managed = cloud.get("/v1/projects/demo/policies/power-user").await.expect(200);
    assert_eq!((&managed["scope"], &managed["managed"]), (&json!("cloud"), &json!(true)));
    let of_cloud = cloud.get("/v1/policies").await.expect(200);
    assert!(!names(&of_cloud).contains(&"ours"));
    cloud.get("/v1/policies/ours").await.expect_problem(404, "not_found");
    cloud.get("/v1/projects/demo/policies/theirs").await.expect_problem(404, "not_found");
    // Of two of one name the project's own is in its path.
    policy(&cloud, "/v1", "ours", allowing("compute:*")).await;
    let ours = cloud.get("/v1/projects/demo/policies/ours").await.expect(200);
    assert_eq!(ours["scope"], "project");
}

#[tokio::test]
async fn what_comes_with_cumulo_and_what_belongs_to_the_cloud_is_not_changed_from_elsewhere() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    policy(&cloud, "/v1", "office", allowing("image:*")).await;
    let body = json!({"document": allowing("image:*")});
    for path in ["/v1/policies/power-user", "/v1/projects/demo/policies/power-user"] {
        cloud.call(Method::PATCH, path, Some(body.clone())).await.expect_problem(409, "managed_policy");
        cloud.delete(path).await.expect_problem(409, "managed_policy");
    }
    let office = "/v1/projects/demo/policies/office";
    let problem = cloud.call(Method::PATCH, office, Some(body)).await.expect_problem(409, "wrong_state");
    assert!(problem["detail"].as_str().unwrap().contains("/v1/policies"), "{problem}");
    cloud.delete(office).await.expect_problem(409, "wrong_state");
    // A name that everybody knows stands for one policy.
    let twin = json!({"name": "administrator", "document": allowing("image:*")});
    cloud.post("/v1/projects/demo/policies", twin).await.expect_problem(409, "name_taken");
    policy(&cloud, "/v1/projects/demo", "ours", allowing("image:*")).await;
    let rename = Some(json!({"name": "administrator"}));
    let answer = cloud.call(Method::PATCH, "/v1/projects/demo/policies/ours", rename).await;
    answer.expect_problem(409, "name_taken");
}

#[tokio::test]
async fn a_bad_document_gets_an_error_per_finding_and_nothing_is_stored() {
    let cloud = TestCloud::start().await;
    let bad = document(json!([
        {"Sid": "Fine", "Effect": "Allow", "Action": "image:*", "Resource": "*"},
        {"Sid": "Wrong", "Effect": "Permit", "Action": "compute:FlyInstance", "Resource": "*"},
    ]));
    let problem = cloud
        .post("/v1/policies", json!({"name": "bad", "description": "a\0b", "document": bad}))
        .await
        .expect_problem(422, "validation_failed");
    let errors = problem["errors"].as_array().unwrap();
    let pointers: BTreeSet<_> = errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert!(pointers.contains("/description"), "{problem}");
    assert!(pointers.contains("/document/Statement/1/Effect"), "{problem}");
    assert!(pointers.iter().any(|pointer| pointer.starts_with("/document/Statement/1/Action")), "{problem}");
    assert!(
        errors[1..].iter().all(|error| error["message"].as_str().unwrap().contains("Wrong")),
        "{problem}"
    );
    cloud.get("/v1/policies/bad").await.expect_problem(404, "not_found");

    let id = policy(&cloud, "/v1", "good", allowing("image:*")).await;
    let patch = Some(json!({"document": bad}));
    let answer = cloud.call(Method::PATCH, &format!("/v1/policies/{id}"), patch).await;
    let problem = answer.expect_problem(422, "validation_failed");
    assert!(problem["errors"][0]["pointer"].as_str().unwrap().starts_with("/document/Statement/1/"));
    let versions = cloud.get("/v1/policies/good/versions").await.expect(200);
    assert_eq!(versions["items"].as_array().unwrap().len(), 1);

    // Two conditions under one key: a reader sees one, and a careless parser the other.
    let twice = r#"{"name": "twice", "document": {"Version": "2012-10-17", "Statement": [
        {"Effect": "Deny", "Effect": "Allow", "Action": "*", "Resource": "*"}]}}"#;
    let bearer = format!("Bearer {}", cloud.token().await);
    let headers = [("authorization", bearer.as_str())];
    let sent = crate::testing::request(Method::POST, "/v1/policies", &headers, twice.to_owned());
    let problem = cloud.send(sent).await.expect_problem(422, "validation_failed");
    assert!(problem["errors"][0]["message"].as_str().unwrap().contains("`Effect` comes twice"), "{problem}");
}

#[tokio::test]
async fn racing_changes_make_consecutive_versions_and_if_match_lets_one_through() {
    let cloud = TestCloud::start().await;
    policy(&cloud, "/v1", "raced", allowing("image:*")).await;
    let path = "/v1/policies/raced";
    let change = async |number: usize, tag: Option<&str>| {
        let headers: Vec<_> = tag.map(|tag| ("if-match", tag)).into_iter().collect();
        let body = json!({"document": allowing(&format!("image:*{}", "*".repeat(number)))});
        cloud.call_with(Method::PATCH, path, &headers, Some(body)).await
    };
    let all = futures_util::future::join_all((0..6).map(|number| change(number + 1, None))).await;
    let versions: BTreeSet<_> =
        all.iter().map(|answer| answer.expect(200)["default_version"].as_i64().unwrap()).collect();
    assert_eq!(versions, (2..8).collect());

    let tag = cloud.get(path).await.headers["etag"].to_str().unwrap().to_owned();
    let all = futures_util::future::join_all((0..4).map(|number| change(number + 10, Some(&tag)))).await;
    let mut statuses: Vec<_> = all.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412]);
}

#[tokio::test]
async fn fifty_versions_are_kept() {
    let cloud = TestCloud::start().await;
    policy(&cloud, "/v1", "busy", allowing("image:*")).await;
    for number in 1..=51 {
        let body = json!({"document": allowing(&format!("image:*{}", "*".repeat(number)))});
        cloud.call(Method::PATCH, "/v1/policies/busy", Some(body)).await.expect(200);
    }
    let versions = cloud.get("/v1/policies/busy/versions").await.expect(200);
    let kept: Vec<_> =
        versions["items"].as_array().unwrap().iter().map(|one| one["version"].as_i64().unwrap()).collect();
    assert_eq!(kept, (3..=52).rev().collect::<Vec<_>>());
    let gone = Some(json!({"default_version": 1}));
    cloud.call(Method::PATCH, "/v1/policies/busy", gone).await.expect_problem(422, "validation_failed");
}

#[tokio::test]
async fn a_version_that_this_release_does_not_understand_is_not_gone_back_to() {
    let cloud = TestCloud::start().await;
    policy(&cloud, "/v1", "old", allowing("image:*")).await;
    let body = Some(json!({"document": allowing("compute:*")}));
    cloud.call(Method::PATCH, "/v1/policies/old", body).await.expect(200);
    let of_yesterday = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["compute:FlyInstance"], "Resource": ["*"]}]}"#;
    sqlx::query("UPDATE policy_versions SET document = $1::jsonb WHERE version = 1 AND document->>'Version' = '2012-10-17' AND policy_id IN (SELECT id FROM policies WHERE name = 'old')")
        .bind(of_yesterday)
        .execute(&cloud.app.pool)
        .await
        .unwrap();
    let back = Some(json!({"default_version": 1}));
    let problem =
        cloud.call(Method::PATCH, "/v1/policies/old", back).await.expect_problem(422, "validation_failed");
    assert!(problem["errors"][0]["pointer"].as_str().unwrap().starts_with("/default_version"), "{problem}");
}

#[tokio::test]
async fn an_attached_policy_is_not_deleted() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    policy(&cloud, "/v1", "used", allowing("image:*")).await;
    let first = attach(&cloud, "/v1", "used", "user", "admin").await;
    let second = attach(&cloud, "/v1/projects/demo", "used", "user", "admin").await;
    let problem = cloud.delete("/v1/policies/used").await.expect_problem(409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("2 times"), "{problem}");
    cloud.delete(&format!("/v1/policy_attachments/{first}")).await.expect(204);
    cloud.delete("/v1/policies/used").await.expect_problem(409, "in_use");
    cloud.delete(&format!("/v1/projects/demo/policy_attachments/{second}")).await.expect(204);
    cloud.delete("/v1/policies/used").await.expect(204);
}

//! To whom policies are attached, and where they count.

use axum::http::Method;
use serde_json::{Value, json};

use super::{allowing, attach, call_as, execute, make_group, make_service_account, policy};
use crate::testing::TestCloud;

#[tokio::test]
async fn an_attachment_names_one_policy_and_one_subject() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.user("bob", false).await;
    make_group(&cloud, "developers", &["bob"]).await;
    make_service_account(&cloud, "demo", "terraform").await;
    let (project, cloud_wide) = ("/v1/projects/demo/policy_attachments", "/v1/policy_attachments");
    let wrong = [
        (project, json!({"policy": "power-user"}), ""),
        (project, json!({"policy": "power-user", "user": "bob", "group": "developers"}), "/group"),
        (project, json!({"policy": "power-user", "user": "bob", "everyone": true}), "/everyone"),
        (project, json!({"policy": "power-user", "everyone": true}), "/everyone"),
        (project, json!({"policy": "nothing", "user": "bob"}), "/policy"),
        (project, json!({"policy": "a\0b", "user": "bob"}), "/policy"),
        (project, json!({"policy": "power-user", "user": "nobody"}), "/user"),
        (project, json!({"policy": "power-user", "user": "terraform"}), "/user"),
        (project, json!({"policy": "power-user", "group": "bob"}), "/group"),
        (project, json!({"policy": "power-user", "service_account": "bob"}), "/service_account"),
        // A name of a service account means nothing outside its project.
        (cloud_wide, json!({"policy": "power-user", "service_account": "terraform"}), "/service_account"),
        (project, json!({"policy": "power-user", "user": "bob", "project": "demo"}), "/project"),
    ];
    for (path, body, pointer) in wrong {
        let problem = cloud.post(path, body.clone()).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    for (kind, name) in [("user", "bob"), ("group", "developers"), ("service_account", "terraform")] {
        let body = json!({"policy": "power-user", kind: name});
        let made = cloud.post(project, body.clone()).await.expect(201);
        assert_eq!((&made["subject"]["kind"], &made["subject"]["name"]), (&json!(kind), &json!(name)));
        assert_eq!(
            (&made["policy"]["name"], &made["created_by"]["name"]),
            (&json!("power-user"), &json!("admin"))
        );
        cloud.post(project, body).await.expect_problem(409, "already_attached");
        let found = cloud.get(&format!("{project}?{kind}={name}")).await.expect(200);
        assert_eq!(found["items"], json!([made]));
        let by_id = format!("{project}?{kind}={}&policy=power-user", made["subject"]["id"].as_str().unwrap());
        assert_eq!(cloud.get(&by_id).await.expect(200)["items"], json!([made]));
    }
    assert_eq!(cloud.get(&format!("{project}?user=no%00body")).await.expect(200)["items"], json!([]));
    assert_eq!(cloud.get(&format!("{project}?policy=auditor")).await.expect(200)["items"], json!([]));
    let first = cloud.get(&format!("{project}?limit=2")).await.expect(200);
    let rest = format!("{project}?limit=2&cursor={}", first["next_cursor"].as_str().unwrap());
    assert_eq!(cloud.get(&rest).await.expect(200)["items"].as_array().unwrap().len(), 1);
    // What counts in the whole cloud is in the cloud's list.
    let everyone = cloud.get(&format!("{cloud_wide}?policy=everyone")).await.expect(200);
    assert_eq!(everyone["items"][0]["subject"], json!({"kind": "everyone"}));
    cloud
        .get(&format!("{cloud_wide}/{}", first["items"][0]["id"].as_str().unwrap()))
        .await
        .expect_problem(405, "method_not_allowed");
    cloud
        .delete(&format!("{cloud_wide}/{}", first["items"][0]["id"].as_str().unwrap()))
        .await
        .expect_problem(404, "not_found");
}

#[tokio::test]
async fn what_belongs_to_a_project_stays_there() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    cloud.user("bob", false).await;
    let theirs = policy(&cloud, "/v1/projects/other", "theirs", allowing("*")).await;
    let (account, _) = make_service_account(&cloud, "other", "robot").await;
    let attach =
        async |path: &str, body: Value| cloud.post(&format!("{path}/policy_attachments"), body).await;
    for path in ["/v1/projects/demo", "/v1"] {
        for policy in ["theirs", &theirs] {
            let problem = attach(path, json!({"policy": policy, "user": "bob"})).await;
            problem.expect_problem(422, "validation_failed");
        }
    }
    let foreign = json!({"policy": "read-only", "service_account": account});
    attach("/v1/projects/demo", foreign.clone()).await.expect_problem(422, "validation_failed");
    attach("/v1/projects/other", foreign.clone()).await.expect(201);
    attach("/v1", foreign).await.expect(201);
    // The database holds the same rule.
    let smuggle = |subject: &str, project: &str| {
        format!(
            "INSERT INTO policy_attachments (id, policy_id, principal_id, project_id, created_at)
             SELECT gen_random_uuid(), o.id, p.id, (SELECT id FROM projects WHERE name = '{project}'), now()
             FROM policies o, principals p WHERE o.name = 'theirs' AND p.name = '{subject}'"
        )
    };
    for (subject, project) in [("bob", "demo"), ("bob", "nowhere")] {
        let sql = sqlx::AssertSqlSafe(smuggle(subject, project));
        let error = sqlx::query(sql).execute(&cloud.app.pool).await.unwrap_err();
        assert_eq!(crate::http::violated_constraint(&error), Some("policy_attachments_in_scope"));
    }
    sqlx::query(sqlx::AssertSqlSafe(smuggle("bob", "other"))).execute(&cloud.app.pool).await.unwrap();
}

#[tokio::test]
async fn rights_in_a_project_end_at_its_border() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    let bob = cloud.user("bob", false).await;
    let get = async |path: &str| call_as(&cloud, &bob, Method::GET, path, None).await;
    attach(&cloud, "/v1/projects/demo", "administrator", "user", "bob").await;
    get("/v1/projects/demo/instances").await.expect(200);
    get("/v1/projects/other/instances").await.expect_problem(404, "not_found");
    get("/v1/hosts").await.expect_problem(403, "forbidden");
    let listed = get("/v1/projects").await.expect(200);
    assert_eq!(super::names(&listed), ["demo"]);
    let post = async |path: &str, body: Value| call_as(&cloud, &bob, Method::POST, path, Some(body)).await;
    // Whoever may do everything in a project gives rights there, and nowhere else.
    let grant = json!({"policy": "administrator", "user": "bob"});
    post("/v1/policy_attachments", grant.clone()).await.expect_problem(403, "forbidden");
    post("/v1/projects/other/policy_attachments", grant).await.expect_problem(404, "not_found");
    post("/v1/policies", json!({"name": "x", "document": allowing("*")}))
        .await
        .expect_problem(403, "forbidden");
    let own = json!({"name": "x", "document": super::document(json!([
        {"Effect": "Allow", "Action": "*", "Resource": "crn:cumulo:*:other:*"},
        {"Effect": "Allow", "Action": "*", "Resource": "crn:cumulo:host::*"}]))});
    post("/v1/projects/demo/policies", own).await.expect(201);
    post("/v1/projects/demo/policy_attachments", json!({"policy": "x", "user": "bob"})).await.expect(201);
    get("/v1/projects/other/instances").await.expect_problem(404, "not_found");
    get("/v1/hosts").await.expect_problem(403, "forbidden");
    // The owner of every project is no administrator of the cloud.
    attach(&cloud, "/v1", "project-owner", "user", "bob").await;
    get("/v1/projects/other/instances").await.expect(200);
    assert_eq!(super::names(&get("/v1/projects").await.expect(200)), ["demo", "other"]);
    get("/v1/hosts").await.expect_problem(403, "forbidden");
    post("/v1/projects", json!({"name": "third"})).await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn groups_and_everyone_give_and_take_rights_at_once() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let bob = cloud.user("bob", false).await;
    let instances = async || call_as(&cloud, &bob, Method::GET, "/v1/projects/demo/instances", None).await;
    instances().await.expect_problem(404, "not_found");
    make_group(&cloud, "developers", &["bob"]).await;
    attach(&cloud, "/v1/projects/demo", "power-user", "group", "developers").await;
    instances().await.expect(200);
    execute(&cloud, "DELETE FROM group_members").await;
    instances().await.expect_problem(404, "not_found");
    policy(&cloud, "/v1", "open-house", allowing("compute:ListInstances")).await;
    let body = json!({"policy": "open-house", "everyone": true});
    let made = cloud.post("/v1/policy_attachments", body).await.expect(201);
    instances().await.expect(200);
    // It counts for programs as well.
    let (_, robot) = make_service_account(&cloud, "demo", "robot").await;
    call_as(&cloud, &robot, Method::GET, "/v1/projects/demo/instances", None).await.expect(200);
    cloud.delete(&format!("/v1/policy_attachments/{}", made["id"].as_str().unwrap())).await.expect(204);
    instances().await.expect_problem(404, "not_found");
}

/// The attachment that makes this user, or the members of this group, administrators.
async fn administrators(cloud: &TestCloud, filter: &str) -> String {
    let path = format!("/v1/policy_attachments?policy=administrator&{filter}");
    let found = cloud.get(&path).await.expect(200);
    format!("/v1/policy_attachments/{}", found["items"][0]["id"].as_str().unwrap())
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let cloud = TestCloud::start().await;
    let of_admin = administrators(&cloud, "user=admin").await;
    let problem = cloud.delete(&of_admin).await.expect_problem(409, "last_administrator");
    assert!(problem["detail"].as_str().unwrap().contains("somebody else"), "{problem}");
    // Somebody who is disabled, or in a group without members, could not mend the cloud.
    cloud.user("eve", true).await;
    execute(&cloud, "UPDATE principals SET disabled_at = now() WHERE name = 'eve'").await;
    make_group(&cloud, "admins", &[]).await;
    attach(&cloud, "/v1", "administrator", "group", "admins").await;
    cloud.delete(&of_admin).await.expect_problem(409, "last_administrator");
    execute(&cloud, "UPDATE principals SET disabled_at = NULL WHERE name = 'eve'").await;
    cloud.delete(&administrators(&cloud, "user=eve").await).await.expect(204);
    execute(
        &cloud,
        "INSERT INTO group_members SELECT g.id, p.id, now() FROM groups g, principals p WHERE p.name = 'eve'",
    )
    .await;
    cloud.delete(&of_admin).await.expect(204);
    cloud.get("/v1/hosts").await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn of_two_administrators_who_detach_each_other_one_stays() {
    let cloud = TestCloud::start().await;
    let eve = cloud.user("eve", true).await;
    let admin = format!("Bearer {}", cloud.token().await);
    for _ in 0..5 {
        let (of_admin, of_eve) =
            (administrators(&cloud, "user=admin").await, administrators(&cloud, "user=eve").await);
        let (first, second) = tokio::join!(
            call_as(&cloud, &admin, Method::DELETE, &of_eve, None),
            call_as(&cloud, &eve, Method::DELETE, &of_admin, None),
        );
        let mut statuses = [first.status.as_u16(), second.status.as_u16()];
        statuses.sort_unstable();
        // The second one is refused as the last, or has lost its own rights in the meantime.
        assert!(statuses[0] == 204 && [403, 404, 409].contains(&statuses[1]), "{statuses:?}");
        let (left, gone) = if first.status == 204 { (&admin, "eve") } else { (&eve, "admin") };
        let body = Some(json!({"policy": "administrator", "user": gone}));
        call_as(&cloud, left, Method::POST, "/v1/policy_attachments", body).await.expect(201);
    }
}

//! Groups through the router.

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::TestCloud;

#[tokio::test]
async fn a_group_is_made_read_changed_and_deleted() {
    let cloud = TestCloud::start().await;
    let made = cloud.post("/v1/groups", json!({"name": "developers"})).await.expect(201);
    cloud.post("/v1/groups", json!({"name": "developers"})).await.expect_problem(409, "name_taken");
    cloud.post("/v1/groups", json!({"name": "Developers"})).await.expect_problem(422, "validation_failed");
    let unknown = json!({"name": "x", "members": []});
    let problem = cloud.post("/v1/groups", unknown).await.expect_problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/members");

    let read = cloud.get("/v1/groups/developers").await;
    assert_eq!(read.expect(200), made);
    let tag = read.headers["etag"].to_str().unwrap();
    let patch = async |tag: &str, body: Value| {
        cloud.call_with(Method::PATCH, "/v1/groups/developers", &[("if-match", tag)], Some(body)).await
    };
    let changed = patch(tag, json!({"description": "who builds"})).await.expect(200);
    assert_eq!(changed["description"], "who builds");
    patch(tag, json!({"description": "late"})).await.expect_problem(412, "precondition_failed");
    patch("*", json!({"description": "a\0b"})).await.expect_problem(422, "validation_failed");
    patch("*", json!({"name": "builders"})).await.expect(200);
    let page = cloud.get("/v1/groups?name=builders").await.expect(200);
    assert_eq!(page["items"][0]["id"], made["id"]);
    assert_eq!(cloud.get("/v1/groups?name=developers").await.expect(200)["items"], json!([]));
    cloud.delete("/v1/groups/builders").await.expect(204);
    cloud.get("/v1/groups/builders").await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn members_come_and_go_and_doing_it_twice_changes_nothing() {
    let cloud = TestCloud::start().await;
    let ada = cloud.user("ada", false).await;
    cloud.user("bob", false).await;
    cloud.post("/v1/groups", json!({"name": "developers"})).await.expect(201);
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    let robot = cloud.post("/v1/projects/demo/service_accounts", json!({"name": "robot"})).await.expect(201);
    let member = |user: &str| format!("/v1/groups/developers/members/{user}");
    let add = async |user: &str| cloud.call(Method::PUT, &member(user), None).await;
    let first = add("ada").await.expect(200);
    assert_eq!((&first["user_name"], &first["added_at"]), (&json!("ada"), &json!("2026-06-01T12:00:00Z")));
    cloud.pass(60);
    assert_eq!(add("ada").await.expect(200), first);
    add("bob").await.expect(200);
    for nobody in ["nobody", "NOBODY", robot["id"].as_str().unwrap(), "robot"] {
        add(nobody).await.expect_problem(404, "not_found");
    }
    let members = async || -> Vec<Value> {
        let page = cloud.get("/v1/groups/developers/members").await.expect(200);
        page["items"].as_array().unwrap().iter().map(|member| member["user_name"].clone()).collect()
    };
    assert_eq!(members().await, ["ada", "bob"]);
    let headers = [("authorization", ada.as_str())];
    let me = cloud.call_with(Method::GET, "/v1/me", &headers, None).await.expect(200);
    assert_eq!(me["groups"][0]["name"], "developers");

    for _ in 0..2 {
        cloud.delete(&member("ada")).await.expect(204);
        assert_eq!(members().await, ["bob"]);
    }
    // Whoever is deleted is no member any more, and a group may go while it has members.
    cloud.delete("/v1/users/bob").await.expect(204);
    assert_eq!(members().await, Vec::<Value>::new());
    add("ada").await.expect(200);
    cloud.delete("/v1/groups/developers").await.expect(204);
    cloud.get("/v1/users/ada").await.expect(200);
}

#[tokio::test]
async fn what_is_attached_to_a_group_counts_for_its_members_and_keeps_it() {
    let cloud = TestCloud::start().await;
    let replica = cloud.replica().await;
    let ada = cloud.user("ada", false).await;
    cloud.post("/v1/groups", json!({"name": "developers"})).await.expect(201);
    sqlx::query(
        "INSERT INTO policy_attachments (id, policy_id, group_id, created_at)
         SELECT gen_random_uuid(), p.id, g.id, now() FROM policies p, groups g WHERE p.name = 'administrator'",
    )
    .execute(&cloud.app.pool)
    .await
    .unwrap();
    let headers = [("authorization", ada.as_str())];
    let users = async || replica.call_with(Method::GET, "/v1/users", &headers, None).await;
    users().await.expect_problem(403, "forbidden");
    cloud.call(Method::PUT, "/v1/groups/developers/members/ada", None).await.expect(200);
    users().await.expect(200);
    let me = cloud.call_with(Method::GET, "/v1/me", &headers, None).await.expect(200);
    let policies = me["policies"].as_array().unwrap();
    let through = policies.iter().find(|policy| policy["via"] == "group").unwrap();
    assert_eq!(
        (&through["name"], &through["group"]["name"]),
        (&json!("administrator"), &json!("developers"))
    );
    let problem = cloud.delete("/v1/groups/developers").await.expect_problem(409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("detach"), "{problem}");
    cloud.delete("/v1/groups/developers/members/ada").await.expect(204);
    users().await.expect_problem(403, "forbidden");
    sqlx::query("DELETE FROM policy_attachments WHERE group_id IS NOT NULL")
        .execute(&cloud.app.pool)
        .await
        .unwrap();
    cloud.delete("/v1/groups/developers").await.expect(204);
}

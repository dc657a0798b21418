//! What policies decide about sharing and about using what is shared.

use axum::http::Method;
use serde_json::{Value, json};

use super::{IMAGE, OTHER, make, neighbours, share};
use crate::testing::{Answer, TestCloud};

async fn attach(cloud: &TestCloud, path: &str, name: &str, statement: Value, user: &str) {
    let document = json!({"Version": "2012-10-17", "Statement": statement});
    cloud.post(&format!("{path}/policies"), json!({"name": name, "document": document})).await.expect(201);
    let body = json!({"policy": name, "user": user});
    cloud.post(&format!("{path}/policy_attachments"), body).await.expect(201);
}

fn allowing(action: &str) -> Value {
    json!({"Effect": "Allow", "Action": action, "Resource": "*"})
}

async fn call_as(cloud: &TestCloud, bearer: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
    cloud.call_with(method, path, &[("authorization", bearer)], body).await
}

#[tokio::test]
async fn only_who_may_in_the_whole_cloud_publishes() {
    let cloud = TestCloud::start().await;
    neighbours(&cloud).await;
    let ann = cloud.user("ann", false).await;
    attach(&cloud, "/v1/projects/demo", "all", allowing("*"), "ann").await;
    let publish = async || call_as(&cloud, &ann, Method::POST, &format!("{IMAGE}/publish"), None).await;
    let refused = publish().await.expect_problem(403, "forbidden");
    assert!(
        refused["detail"].as_str().unwrap().contains("what is attached in the project does not count"),
        "{refused}"
    );
    let body = json!({"policy": "project-owner", "user": "ann"});
    cloud.post("/v1/policy_attachments", body).await.expect(201);
    publish().await.expect_problem(403, "forbidden");
    attach(&cloud, "/v1", "publisher", allowing("image:PublishImage"), "ann").await;
    publish().await.expect(200);
    // Taking it back is the owner's right.
    let bob = cloud.user("bob", false).await;
    attach(&cloud, "/v1/projects/demo", "bobs", allowing("image:*"), "bob").await;
    call_as(&cloud, &bob, Method::POST, &format!("{IMAGE}/unpublish"), None).await.expect(200);
}

#[tokio::test]
async fn an_owner_does_not_learn_which_projects_there_are() {
    let cloud = TestCloud::start().await;
    let (_, other) = neighbours(&cloud).await;
    let ann = cloud.user("ann", false).await;
    attach(&cloud, "/v1/projects/demo", "all", allowing("*"), "ann").await;
    let put = async |project: &str| {
        call_as(&cloud, &ann, Method::PUT, &format!("{IMAGE}/shares/{project}"), None).await
    };
    let (hidden, missing) = (put("other").await, put("nobody").await);
    let (hidden, missing) =
        (hidden.expect_problem(404, "not_found"), missing.expect_problem(404, "not_found"));
    assert_eq!(hidden["detail"], missing["detail"]);
    let shared = put(&other).await.expect(200);
    assert!(!shared.to_string().contains("\"other\""), "{shared}");
    let delete = async |project: &str| {
        call_as(&cloud, &ann, Method::DELETE, &format!("{IMAGE}/shares/{project}"), None).await
    };
    assert_eq!(delete("other").await.expect_problem(404, "not_found")["detail"], missing["detail"]);
    attach(&cloud, OTHER, "see", allowing("project:GetProject"), "ann").await;
    delete("other").await.expect(204);
}

#[tokio::test]
async fn the_project_that_uses_it_decides_about_the_use() {
    let cloud = TestCloud::start().await;
    let (image, _) = neighbours(&cloud).await;
    share(&cloud, "other").await.expect(200);
    let bob = cloud.user("bob", false).await;
    let instances = format!("{OTHER}/instances");
    let statement = json!([
        allowing("compute:CreateInstance"),
        {"Effect": "Deny", "Action": "compute:CreateInstance", "Resource": "*",
         "Condition": {"StringEquals": {"compute:Image": "demo/image"}}},
    ]);
    attach(&cloud, OTHER, "maker", statement, "bob").await;
    let body =
        |image: &str| Some(json!({"name": "web", "image": image, "instance_type": "tiny", "networks": []}));
    // However it is called, it is the same image.
    for wanted in ["demo/image", image.as_str()] {
        call_as(&cloud, &bob, Method::POST, &instances, body(wanted)).await.expect_problem(403, "forbidden");
    }
    let from_demo = json!([
        {"Effect": "Allow", "Action": "compute:CreateInstance", "Resource": "*",
         "Condition": {"StringEquals": {"compute:ImageProject": "demo", "compute:ImageId": image}}},
    ]);
    let carl = cloud.user("carl", false).await;
    attach(&cloud, OTHER, "from-demo", from_demo, "carl").await;
    call_as(&cloud, &carl, Method::POST, &instances, body(&image)).await.expect(202);
    // Whoever may list the images of the project may get those of others; nobody else.
    let foreign = format!("{OTHER}/images/{image}");
    call_as(&cloud, &carl, Method::GET, &foreign, None).await.expect_problem(403, "forbidden");
    attach(&cloud, OTHER, "lister", allowing("image:ListImages"), "carl").await;
    call_as(&cloud, &carl, Method::GET, &foreign, None).await.expect(200);
    let stranger = cloud.user("eve", false).await;
    call_as(&cloud, &stranger, Method::GET, &foreign, None).await.expect_problem(404, "not_found");
    call_as(&cloud, &stranger, Method::POST, &instances, body(&image)).await.expect_problem(404, "not_found");
    make(&cloud, "more", "demo/image").await.expect(202);
}

#[tokio::test]
async fn nobody_relabels_an_image_into_a_right() {
    let cloud = TestCloud::start().await;
    neighbours(&cloud).await;
    let ann = cloud.user("ann", false).await;
    let statement = json!([
        allowing("image:UpdateImage"),
        {"Effect": "Allow", "Action": "image:ShareImage", "Resource": "*",
         "Condition": {"StringEquals": {"cumulo:ResourceLabel/open": "yes"}}},
    ]);
    attach(&cloud, "/v1/projects/demo", "relabel", statement, "ann").await;
    let body = Some(json!({"labels": {"open": "yes"}}));
    call_as(&cloud, &ann, Method::PATCH, IMAGE, body).await.expect_problem(403, "forbidden");
    call_as(&cloud, &ann, Method::PATCH, IMAGE, Some(json!({"firmware": "uefi"}))).await.expect(200);
}

#[tokio::test]
async fn every_change_is_on_record() {
    let cloud = TestCloud::start().await;
    let (image, other) = neighbours(&cloud).await;
    cloud.call(Method::PATCH, IMAGE, Some(json!({"firmware": "uefi"}))).await.expect(200);
    share(&cloud, "other").await.expect(200);
    cloud.delete(&format!("{IMAGE}/shares/other")).await.expect(204);
    for verb in ["publish", "unpublish", "deprecate", "undeprecate"] {
        cloud.post(&format!("{IMAGE}/{verb}"), json!({})).await.expect(200);
    }
    cloud.delete(IMAGE).await.expect(204);
    crate::audit::attest(&cloud.app).await.unwrap();
    let page = cloud.get("/v1/projects/demo/audit_records?limit=500").await.expect(200);
    let records = page["items"].as_array().unwrap();
    let of = |action: &str| {
        records.iter().find(|one| one["action"] == action).unwrap_or_else(|| panic!("{action}"))
    };
    for verb in ["Update", "Share", "Unshare", "Publish", "Unpublish", "Deprecate", "Undeprecate", "Delete"] {
        assert_eq!(of(&format!("image:{verb}Image"))["resource_id"], json!(image), "{verb}");
    }
    let path = format!("/v1/projects/demo/audit_records/{}", of("image:ShareImage")["id"].as_str().unwrap());
    let shared = cloud.get(&path).await.expect(200);
    assert_eq!(shared["after"]["project_id"], json!(other), "{shared}");
}

//! Who may use whose images, and what everybody else hears of them.

mod rights;

use axum::http::Method;
use serde_json::{Value, json};

use super::{IMAGES, content};
use crate::testing::{Answer, TestCloud};

const IMAGE: &str = "/v1/projects/demo/images/image";
const OTHER: &str = "/v1/projects/other";

/// Project `demo` with `image`, and an empty project `other`; gives the ids of the image and of `other`.
pub(super) async fn neighbours(cloud: &TestCloud) -> (String, String) {
    cloud.furnish().await;
    let other = cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    let image = cloud.get(IMAGE).await.expect(200);
    let id = |one: &Value| one["id"].as_str().unwrap().to_owned();
    (id(&image), id(&other))
}

pub(super) async fn share(cloud: &TestCloud, project: &str) -> Answer {
    cloud.call(Method::PUT, &format!("{IMAGE}/shares/{project}"), None).await
}

async fn names(cloud: &TestCloud, path: &str) -> Vec<String> {
    let page = cloud.get(path).await.expect(200);
    page["items"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// Makes an instance in `other`.
pub(super) async fn make(cloud: &TestCloud, name: &str, image: &str) -> Answer {
    let body = json!({"name": name, "image": image, "instance_type": "tiny", "networks": []});
    cloud.post(&format!("{OTHER}/instances"), body).await
}

#[tokio::test]
async fn a_shared_image_is_listed_read_and_booted_and_then_no_more() {
    let cloud = TestCloud::start().await;
    let (image, other) = neighbours(&cloud).await;
    cloud.call(Method::PATCH, IMAGE, Some(json!({"labels": {"secret": "plan"}}))).await.expect(200);
    let unknown = make(&cloud, "web", &image).await.expect_problem(422, "validation_failed");

    let shared = share(&cloud, "other").await.expect(200);
    assert_eq!(shared["project_id"], json!(other));
    assert_eq!(share(&cloud, &other).await.expect(200), shared);
    assert_eq!(cloud.get(IMAGE).await.expect(200)["visibility"], "shared");
    let listed = cloud.get(&format!("{IMAGE}/shares")).await.expect(200);
    assert_eq!(listed["items"], json!([shared]));

    assert_eq!(names(&cloud, &format!("{OTHER}/images")).await, Vec::<String>::new());
    for scope in ["shared", "all"] {
        assert_eq!(names(&cloud, &format!("{OTHER}/images?visibility={scope}")).await, ["image"], "{scope}");
    }
    for scope in ["own", "private", "public"] {
        assert!(names(&cloud, &format!("{OTHER}/images?visibility={scope}")).await.is_empty(), "{scope}");
    }
    // Labels are the owner's: neither shown nor found.
    let all = format!("{OTHER}/images?visibility=all&label_selector=");
    assert!(names(&cloud, &format!("{all}secret")).await.is_empty());
    assert_eq!(names(&cloud, &format!("{all}!secret")).await, ["image"]);
    let seen = cloud.get(&format!("{OTHER}/images/{image}")).await.expect(200);
    assert_eq!((&seen["labels"], &seen["project"]["name"]), (&json!({}), &json!("demo")));

    let made = make(&cloud, "by-id", &image).await.expect(202);
    assert_eq!(made["image"], json!({"id": image, "name": "image", "gone": false}));
    make(&cloud, "by-name", "demo/image").await.expect(202);

    cloud.delete(&format!("{IMAGE}/shares/other")).await.expect(204);
    cloud.delete(&format!("{IMAGE}/shares/other")).await.expect_problem(404, "not_found");
    for wanted in [image.as_str(), "demo/image"] {
        let refused = make(&cloud, "late", wanted).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"], unknown["errors"]);
    }
    cloud.get(&format!("{OTHER}/images/{image}")).await.expect_problem(404, "not_found");
    assert!(names(&cloud, &format!("{OTHER}/images?visibility=all")).await.is_empty());
    // What was made stays, and does not tell how the image is called by now.
    cloud.call(Method::PATCH, IMAGE, Some(json!({"name": "renamed"}))).await.expect(200);
    let left = cloud.get(&format!("{OTHER}/instances/by-id")).await.expect(200);
    assert_eq!(left["image"], json!({"id": image, "name": "image", "gone": true}));
}

#[tokio::test]
async fn a_foreign_name_never_shadows_an_own_one() {
    let cloud = TestCloud::start().await;
    let (image, _) = neighbours(&cloud).await;
    share(&cloud, "other").await.expect(200);
    let refused = make(&cloud, "web", "image").await.expect_problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["message"], "this project has no such image");
    cloud.get(&format!("{OTHER}/images/image")).await.expect_problem(404, "not_found");
    let own =
        cloud.post(&format!("{OTHER}/images"), json!({"name": "image", "format": "raw"})).await.expect(201);
    cloud.put_bytes(&format!("{OTHER}/images/image/content"), vec![1; 4096]).await.expect(200);
    let made = make(&cloud, "web", "image").await.expect(202);
    assert_eq!(made["image"]["id"], own["id"]);
    assert_eq!(make(&cloud, "theirs", "demo/image").await.expect(202)["image"]["id"], json!(image));
    assert_eq!(make(&cloud, "ours", "other/image").await.expect(202)["image"]["id"], own["id"]);
    for hostile in [
        "demo/image/",
        "/image",
        "demo/",
        "/",
        "demo//image",
        "demo/../image",
        "DEMO/image",
        "*",
        "demo/%",
        "demo/' OR true --",
        "\u{0}",
        "",
        "demo/image\n",
    ] {
        make(&cloud, "hostile", hostile).await.expect_problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn only_the_owner_changes_what_it_shares() {
    let cloud = TestCloud::start().await;
    let (image, _) = neighbours(&cloud).await;
    share(&cloud, "other").await.expect(200);
    cloud.post(&format!("{IMAGE}/publish"), json!({})).await.expect(200);
    let foreign = format!("{OTHER}/images/{image}");
    for (method, path, body) in [
        (Method::PATCH, "", Some(json!({"name": "mine"}))),
        (Method::DELETE, "", None),
        (Method::PUT, "/shares/demo", None),
        (Method::GET, "/shares", None),
        (Method::DELETE, "/shares/other", None),
        (Method::POST, "/publish", None),
        (Method::POST, "/unpublish", None),
        (Method::POST, "/deprecate", None),
        (Method::POST, "/undeprecate", None),
    ] {
        let answer = cloud.call(method.clone(), &format!("{foreign}{path}"), body).await;
        assert_eq!(answer.status, 404, "{method} {path}");
    }
    cloud.put_bytes(&format!("{foreign}/content"), vec![0; 4096]).await.expect_problem(404, "not_found");
    assert_eq!(cloud.get(&foreign).await.expect(200)["name"], "image");
}

#[tokio::test]
async fn sharing_is_refused_where_it_makes_no_sense() {
    let cloud = TestCloud::start().await;
    let (_, other) = neighbours(&cloud).await;
    share(&cloud, "demo").await.expect_problem(409, "wrong_state");
    for nobody in ["nobody", "019a0000-0000-7000-8000-000000000000", "%00", "a%2fb", "%27", "*"] {
        share(&cloud, nobody).await.expect_problem(404, "not_found");
    }
    let etag = cloud.get(IMAGE).await.headers["etag"].to_str().unwrap().to_owned();
    let dry = cloud.call(Method::PUT, &format!("{IMAGE}/shares/other?dry_run=true"), None).await;
    assert_eq!(
        (dry.expect(200)["project_id"].clone(), &dry.headers["cumulo-dry-run"]),
        (json!(other), &"true".parse().unwrap())
    );
    assert_eq!(cloud.get(IMAGE).await.headers["etag"], etag.as_str());
    let with = [("if-match", etag.as_str())];
    cloud.call_with(Method::PUT, &format!("{IMAGE}/shares/other"), &with, None).await.expect(200);
    let late = cloud.call_with(Method::DELETE, &format!("{IMAGE}/shares/other"), &with, None).await;
    late.expect_problem(412, "precondition_failed");
    // A project that goes takes its shares with it.
    cloud.delete(OTHER).await.expect(204);
    assert_eq!(cloud.get(&format!("{IMAGE}/shares")).await.expect(200)["items"], json!([]));
    assert_eq!(cloud.get(IMAGE).await.expect(200)["visibility"], "private");
}

#[tokio::test]
async fn a_public_image_is_everybodys_to_use() {
    let cloud = TestCloud::start().await;
    let (image, _) = neighbours(&cloud).await;
    let published = cloud.post(&format!("{IMAGE}/publish"), json!({})).await.expect(200);
    assert_eq!(published["visibility"], "public");
    assert_eq!(cloud.post(&format!("{IMAGE}/publish"), json!({})).await.expect(200), published);
    for scope in ["public", "all"] {
        assert_eq!(names(&cloud, &format!("{OTHER}/images?visibility={scope}")).await, ["image"], "{scope}");
    }
    make(&cloud, "web", &image).await.expect(202);
    cloud
        .post(&format!("{IMAGE}/unpublish"), json!({"surprise": 1}))
        .await
        .expect_problem(422, "validation_failed");
    cloud.post(&format!("{IMAGE}/unpublish"), json!({})).await.expect(200);
    make(&cloud, "late", &image).await.expect_problem(422, "validation_failed");
    cloud.get(&format!("{OTHER}/images?visibility=everything")).await.expect_problem(400, "invalid_query");
}

#[tokio::test]
async fn a_share_that_is_withdrawn_under_a_creation_was_never_there() {
    let cloud = TestCloud::start().await;
    let (image, _) = neighbours(&cloud).await;
    for round in 0..6 {
        share(&cloud, "other").await.expect(200);
        let name = format!("web-{round}");
        let path = format!("{IMAGE}/shares/other");
        let (made, withdrawn) = tokio::join!(make(&cloud, &name, &image), cloud.delete(&path));
        withdrawn.expect(204);
        assert!([202, 422].contains(&made.status.as_u16()), "{made:?}");
    }
    share(&cloud, "other").await.expect(200);
    let sql = "SELECT FROM images FOR UPDATE; DELETE FROM image_shares";
    let body = json!({"name": "late", "image": image, "instance_type": "tiny"});
    let late = crate::testing::during(&cloud, sql, &format!("{OTHER}/instances"), body).await;
    assert_eq!(late.expect_problem(422, "validation_failed")["errors"][0]["code"], "not_found");
}

#[tokio::test]
async fn hosts_get_the_bytes_of_shared_images_for_as_long_as_instances_need_them() {
    let cloud = TestCloud::start().await;
    let (image, _) = neighbours(&cloud).await;
    let host = cloud.join_host("host-1").await;
    share(&cloud, "other").await.expect(200);
    make(&cloud, "web", &image).await.expect(202);
    crate::instances::place_pending(&cloud.app).await.unwrap();
    cloud.delete(&format!("{IMAGE}/shares/other")).await.expect(204);
    cloud.delete(IMAGE).await.expect(204);
    super::swept(&cloud).await;
    let desired = host.desired(0).await;
    let sha256 = desired["objects"][0]["disks"][0]["volume"]["image"]["sha256"].as_str().unwrap();
    let answer = host.call(Method::GET, &format!("/agent/v1/blobs/{sha256}"), None).await;
    assert_eq!((answer.status.as_u16(), answer.body), (200, vec![0; 4096]));
    cloud.get(&content("image")).await.expect_problem(404, "not_found");
    assert_eq!(cloud.get(IMAGES).await.expect(200)["items"], json!([]));
}

/// The newest events about images in the log of a project.
async fn heard(cloud: &TestCloud, project: &str, count: usize) -> Vec<String> {
    crate::events::sequence(&cloud.app).await.unwrap();
    let page = cloud.get(&format!("/v1/projects/{project}/events?limit=500")).await.expect(200);
    let of_images = page["items"].as_array().unwrap().iter().filter(|event| event["kind"] == "image");
    let all: Vec<_> = of_images
        .map(|event| format!("{} {}", event["change"], event["resource_name"]).replace('"', ""))
        .collect();
    all[all.len().saturating_sub(count)..].to_vec()
}

#[tokio::test]
async fn both_projects_hear_of_what_they_share() {
    let cloud = TestCloud::start().await;
    neighbours(&cloud).await;
    share(&cloud, "other").await.expect(200);
    share(&cloud, "other").await.expect(200);
    assert_eq!(heard(&cloud, "demo", 2).await, ["state image", "updated image"]);
    assert_eq!(heard(&cloud, "other", 9).await, ["created image"]);
    cloud.delete(&format!("{IMAGE}/shares/other")).await.expect(204);
    share(&cloud, "other").await.expect(200);
    assert_eq!(heard(&cloud, "other", 2).await, ["deleted image", "created image"]);
    cloud.call(Method::PATCH, IMAGE, Some(json!({"min_disk_gib": 1}))).await.expect(200);
    cloud.post(&format!("{IMAGE}/deprecate"), json!({})).await.expect(200);
    cloud.delete(IMAGE).await.expect(204);
    super::swept(&cloud).await;
    let expected = ["updated image", "updated image", "updated image", "updated image", "deleted image"];
    assert_eq!(heard(&cloud, "demo", 5).await, expected);
    assert_eq!(heard(&cloud, "other", 2).await, ["created image", "deleted image"]);
}

//! Advising against an image, and deleting one that is in use.

use axum::http::Method;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::sharing::{make, neighbours, share};
use super::{IMAGES, announce, content, swept};
use crate::testing::{TestCloud, TestHost};

const IMAGE: &str = "/v1/projects/demo/images/image";
const INSTANCES: &str = "/v1/projects/demo/instances";

async fn names(cloud: &TestCloud, query: &str) -> Vec<String> {
    let page = cloud.get(&format!("{IMAGES}{query}")).await.expect(200);
    page["items"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

async fn create(cloud: &TestCloud, name: &str) -> Value {
    let body = json!({"name": name, "image": "image", "instance_type": "tiny", "networks": []});
    cloud.post(INSTANCES, body).await.expect(202)
}

/// What is wrong with the images, if the sweeper has had time enough.
async fn findings(cloud: &TestCloud) -> Vec<String> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let broken = crate::images::verify_rows(&mut conn, swept_by(cloud)).await.unwrap();
    broken.into_iter().map(|broken| broken.code).collect()
}

fn swept_by(cloud: &TestCloud) -> OffsetDateTime {
    cloud.app.clock.now() + Duration::SECOND
}

/// Removes an instance, as its host does.
async fn remove(cloud: &TestCloud, host: &TestHost<'_>, path: &str) {
    let deleting = cloud.delete(path).await.expect(202);
    host.report(&deleting["id"], 2, 1, json!({"state": "absent"})).await;
    cloud.get(path).await.expect_problem(404, "not_found");
}

async fn used(cloud: &TestCloud, resource: &str) -> Value {
    let quotas = cloud.get("/v1/projects/demo/quotas").await.expect(200);
    quotas["items"].as_array().unwrap().iter().find(|one| one["resource"] == resource).unwrap()["used"]
        .clone()
}

async fn used_images(cloud: &TestCloud) -> Value {
    used(cloud, "images").await
}

#[tokio::test]
async fn the_file_of_a_deleted_image_counts_until_nothing_is_made_from_it() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let made = create(&cloud, "web").await;
    crate::instances::place_pending(&cloud.app).await.unwrap();
    host.report(&made["id"], 1, 1, json!({"state": "running"})).await;
    // There is no room for more, and deleting makes none, but works.
    cloud.call(Method::PATCH, "/v1/projects/demo/quotas", Some(json!({"image_gib": 0}))).await.expect(200);
    assert_eq!(used(&cloud, "image_gib").await, 1);
    cloud.delete(&format!("{IMAGE}?dry_run=true")).await.expect(200);
    cloud.delete(IMAGE).await.expect(204);
    swept(&cloud).await;
    assert_eq!((used(&cloud, "images").await, used(&cloud, "image_gib").await), (json!(0), json!(1)));
    announce(&cloud, "next", "raw").await;
    let refused =
        cloud.put_bytes(&content("next"), vec![0; 4096]).await.expect_problem(409, "quota_exceeded");
    assert!(refused["detail"].as_str().unwrap().contains("the last disk"), "{refused}");
    remove(&cloud, &host, &format!("{INSTANCES}/web")).await;
    swept(&cloud).await;
    assert_eq!(used(&cloud, "image_gib").await, 0);
    let drifts = crate::quotas::drift(&mut cloud.app.pool.acquire().await.unwrap()).await.unwrap();
    assert_eq!(drifts, []);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_deprecated_image_is_marked_hidden_and_still_boots() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    announce(&cloud, "newer", "raw").await;
    let newer = cloud.get(&format!("{IMAGES}/newer")).await.expect(200);
    let deprecate = async |body: Value| cloud.post(&format!("{IMAGE}/deprecate"), body).await;
    for (wrong, code) in [("nothing", "not_found"), ("image", "invalid"), ("a/b", "not_found")] {
        let problem = deprecate(json!({"replacement": wrong})).await.expect_problem(422, "validation_failed");
        assert_eq!(
            (&problem["errors"][0]["pointer"], &problem["errors"][0]["code"]),
            (&json!("/replacement"), &json!(code))
        );
    }
    let marked = deprecate(json!({"replacement": "newer"})).await.expect(200);
    assert_eq!(marked["deprecated_at"], "2026-06-01T12:00:00Z");
    assert_eq!(marked["replacement"], json!({"id": newer["id"], "name": "newer"}));
    for (query, expected) in [
        ("", &["newer"][..]),
        ("?name=image", &[]),
        ("?deprecated=include", &["image", "newer"]),
        ("?deprecated=only", &["image"]),
    ] {
        assert_eq!(names(&cloud, query).await, expected, "{query}");
    }
    create(&cloud, "web").await;
    cloud.pass(60);
    // It was deprecated then, whatever is advised now.
    let again = deprecate(json!({})).await.expect(200);
    assert_eq!((&again["deprecated_at"], &again["replacement"]), (&marked["deprecated_at"], &Value::Null));
    deprecate(json!({"replacement": newer["id"]})).await.expect(200);
    cloud.delete(&format!("{IMAGES}/newer")).await.expect(204);
    assert_eq!(cloud.get(IMAGE).await.expect(200)["replacement"], Value::Null);
    swept(&cloud).await;
    let back = cloud.post(&format!("{IMAGE}/undeprecate"), json!({})).await.expect(200);
    assert_eq!((&back["deprecated_at"], names(&cloud, "").await), (&Value::Null, vec!["image".to_owned()]));
}

#[tokio::test]
async fn a_replacement_is_named_only_to_who_may_use_it() {
    let cloud = TestCloud::start().await;
    let (image, _) = neighbours(&cloud).await;
    announce(&cloud, "secret-plan", "raw").await;
    share(&cloud, "other").await.expect(200);
    cloud.post(&format!("{IMAGE}/deprecate"), json!({"replacement": "secret-plan"})).await.expect(200);
    let path = format!("/v1/projects/other/images/{image}");
    let seen = cloud.get(&path).await.expect(200);
    assert_eq!((&seen["replacement"], seen["deprecated_at"].is_string()), (&Value::Null, true));
    cloud.call(Method::PUT, &format!("{IMAGES}/secret-plan/shares/other"), None).await.expect(200);
    assert_eq!(cloud.get(&path).await.expect(200)["replacement"]["name"], "secret-plan");
}

#[tokio::test]
async fn a_deleted_image_stays_for_its_instances_and_goes_after_the_last() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let image = cloud.get(IMAGE).await.expect(200);
    for name in ["a", "b"] {
        let made = create(&cloud, name).await;
        crate::instances::place_pending(&cloud.app).await.unwrap();
        host.report(&made["id"], 1, 1, json!({"state": "running"})).await;
    }
    assert_eq!(used_images(&cloud).await, 1);
    let dry = cloud.delete(&format!("{IMAGE}?dry_run=true")).await;
    assert_eq!((dry.status.as_u16(), names(&cloud, "").await), (200, vec!["image".to_owned()]));
    cloud.delete(IMAGE).await.expect(204);

    assert_eq!(used_images(&cloud).await, 0);
    assert_eq!(swept(&cloud).await, (1, 1));
    let id = image["id"].as_str().unwrap();
    for path in [IMAGE.to_owned(), format!("{IMAGES}/{id}")] {
        cloud.get(&path).await.expect_problem(404, "not_found");
        cloud.delete(&path).await.expect_problem(404, "not_found");
        cloud.put_bytes(&format!("{path}/content"), vec![0; 512]).await.expect_problem(404, "not_found");
    }
    for scope in ["own", "private", "shared", "public", "all"] {
        assert!(
            names(&cloud, &format!("?visibility={scope}&deprecated=include")).await.is_empty(),
            "{scope}"
        );
    }
    for wanted in ["image", id, "demo/image"] {
        let body = json!({"name": "late", "image": wanted, "instance_type": "tiny"});
        cloud.post(INSTANCES, body).await.expect_problem(422, "validation_failed");
    }
    let shown = json!({"id": id, "name": "image", "gone": true});
    assert_eq!(cloud.get(&format!("{INSTANCES}/a")).await.expect(200)["image"], shown);
    assert_eq!(cloud.get(INSTANCES).await.expect(200)["items"][1]["image"], shown);
    // What a host needs in order to start it anew is still there.
    let sha256 = image["sha256"].as_str().unwrap();
    assert_eq!(host.call(Method::GET, &format!("/agent/v1/blobs/{sha256}"), None).await.status, 200);
    // The name is free, and so is the content.
    announce(&cloud, "image", "raw").await;
    cloud.put_bytes(&content("image"), vec![0; 4096]).await.expect(200);
    assert_eq!(cloud.get(&format!("{INSTANCES}/a")).await.expect(200)["image"], shown);
    cloud.delete(IMAGE).await.expect(204);
    assert_eq!((swept(&cloud).await, findings(&cloud).await), ((1, 1), Vec::new()));

    remove(&cloud, &host, &format!("{INSTANCES}/a")).await;
    assert_eq!(swept(&cloud).await, (1, 1));
    remove(&cloud, &host, &format!("{INSTANCES}/b")).await;
    assert_eq!(findings(&cloud).await, ["image_unswept"]);
    assert_eq!((swept(&cloud).await, findings(&cloud).await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn a_project_goes_while_others_still_run_its_image() {
    let cloud = TestCloud::start().await;
    let (image, _) = neighbours(&cloud).await;
    share(&cloud, "other").await.expect(200);
    make(&cloud, "web", &image).await.expect(202);
    cloud.delete("/v1/projects/demo").await.expect_problem(409, "in_use");
    cloud.delete(IMAGE).await.expect(204);
    cloud.delete("/v1/projects/demo").await.expect(204);
    let left = cloud.get("/v1/projects/other/instances/web").await.expect(200);
    assert_eq!(left["image"], json!({"id": image, "name": "image", "gone": true}));
    cloud.delete("/v1/projects/other/instances/web?wait=1").await;
    assert_eq!((swept(&cloud).await, findings(&cloud).await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn an_image_that_is_deleted_under_a_creation_is_there_or_was_not() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for round in 0..6 {
        let body = json!({"name": format!("web-{round}"), "image": "image", "instance_type": "tiny", "networks": []});
        let (made, deleted) = tokio::join!(cloud.post(INSTANCES, body), cloud.delete(IMAGE));
        deleted.expect(204);
        // The sweeper passes over what a call that was refused still holds for a moment.
        for _ in 0..100 {
            swept(&cloud).await;
            if findings(&cloud).await.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(findings(&cloud).await, Vec::<String>::new());
        match made.status.as_u16() {
            202 => {
                let web = cloud.get(&format!("{INSTANCES}/web-{round}")).await.expect(200);
                assert_eq!(web["image"]["gone"], true);
            }
            _ => drop(made.expect_problem(422, "validation_failed")),
        }
        announce(&cloud, "image", "raw").await;
        cloud.put_bytes(&content("image"), vec![0; 4096]).await.expect(200);
    }
    let sql = "UPDATE images SET project_id = NULL, deleted_at = created_at";
    let body = json!({"name": "late", "image": "image", "instance_type": "tiny"});
    let late = crate::testing::during(&cloud, sql, INSTANCES, body).await;
    assert_eq!(late.expect_problem(422, "validation_failed")["errors"][0]["pointer"], "/image");
}

#[tokio::test]
async fn what_must_never_be_is_found() {
    let cloud = TestCloud::start().await;
    let (image, _) = neighbours(&cloud).await;
    share(&cloud, "other").await.expect(200);
    make(&cloud, "web", &image).await.expect(202);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    for (sql, expected) in [
        ("UPDATE blobs SET state = 'discarded'", &["image_without_bytes"][..]),
        ("UPDATE images SET blob_id = NULL", &["instance_without_image", "blob_unowned"]),
        (
            "ALTER TABLE images DROP CONSTRAINT images_deleted_belong_to_nobody; UPDATE images SET deleted_at = created_at",
            &["deleted_image_owned"],
        ),
        (
            "ALTER TABLE images DROP CONSTRAINT images_deleted_belong_to_nobody; UPDATE images SET project_id = NULL",
            &["image_unowned"],
        ),
        (
            "DELETE FROM volumes; DELETE FROM instances; UPDATE images SET project_id = NULL, deleted_at = created_at; DELETE FROM image_shares",
            &["image_unswept"],
        ),
        ("UPDATE image_shares SET project_id = (SELECT project_id FROM images)", &["image_share_astray"]),
    ] {
        let mut tx = cloud.app.begin().await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut *tx).await.unwrap();
        let broken = crate::images::verify_rows(&mut tx, swept_by(&cloud)).await.unwrap();
        let codes: Vec<_> = broken.into_iter().map(|broken| broken.code).collect();
        assert_eq!(codes, expected, "{sql}");
        tx.rollback().await.unwrap();
    }
}

//! Another volume to boot from makes another instance of it.

use axum::http::Method;
use serde_json::{Value, json};

use super::{INSTANCES, WEB};
use crate::testing::TestCloud;

const VOLUMES: &str = "/v1/projects/demo/volumes";
const IMAGES: &str = "/v1/projects/demo/images";

/// A furnished cloud with `web`, which has nothing to boot from and is on no host.
async fn without_root() -> TestCloud {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": []});
    let web = cloud.post(INSTANCES, body).await.expect(202);
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    let root = json!({"volume": web["volumes"][0]["volume"]["name"]});
    cloud.post(&format!("{WEB}/detach_volume"), root).await.expect(202);
    cloud
}

/// A volume of an image of this name.
async fn volume_of(cloud: &TestCloud, image: Value) {
    let name = image["name"].clone();
    cloud.post(IMAGES, image).await.expect(201);
    let content = format!("{IMAGES}/{}/content", name.as_str().unwrap());
    cloud.put_bytes(&content, vec![0; 4096]).await.expect(200);
    cloud.post(VOLUMES, json!({"name": name, "source": {"image": name}})).await.expect(201);
}

#[tokio::test]
async fn a_policy_about_images_holds_for_it() {
    let cloud = without_root().await;
    volume_of(&cloud, json!({"name": "golden", "format": "raw"})).await;
    cloud.post(VOLUMES, json!({"name": "other", "source": {"image": "image"}})).await.expect(201);
    let bearer = cloud.user("dev", false).await;
    let all = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    let deny = json!({"Sid": "GoldenImagesOnly", "Effect": "Deny", "Action": "compute:CreateInstance",
        "Resource": "*", "Condition": {"StringNotEquals": {"compute:Image": "golden"}}});
    let document = json!({"Version": "2012-10-17", "Statement": [all, deny]});
    cloud
        .post("/v1/projects/demo/policies", json!({"name": "rules", "document": document}))
        .await
        .expect(201);
    let attachment = json!({"policy": "rules", "user": "dev"});
    cloud.post("/v1/projects/demo/policy_attachments", attachment).await.expect(201);
    let dev = [("authorization", bearer.as_str())];
    let attach = async |volume: &str, root: bool| {
        let body = json!({"volume": volume, "root": root});
        cloud.call_with(Method::POST, &format!("{WEB}/attach_volume"), &dev, Some(body)).await
    };
    attach("other", true).await.expect_problem(403, "forbidden");
    let web = cloud.get(WEB).await.expect(200);
    assert_eq!(web["volumes"], json!([]), "{web}");
    let web = attach("golden", true).await.expect(202);
    assert_eq!(web["image"]["name"], "golden", "{web}");
    // As a further disk it is data.
    attach("other", false).await.expect(202);
}

#[tokio::test]
async fn the_instance_is_of_the_image_that_it_boots_from() {
    let cloud = without_root().await;
    volume_of(&cloud, json!({"name": "uefi", "format": "raw", "firmware": "uefi"})).await;
    volume_of(&cloud, json!({"name": "arm", "format": "raw", "architecture": "aarch64"})).await;
    let attach = async |volume: &str, query: &str| {
        let path = format!("{WEB}/attach_volume{query}");
        cloud.post(&path, json!({"volume": volume, "root": true})).await
    };
    let refused = attach("arm", "").await.expect_problem(422, "validation_failed");
    let error = &refused["errors"][0];
    assert_eq!((&error["pointer"], &error["code"]), (&json!("/volume"), &json!("architecture")), "{refused}");
    attach("uefi", "?dry_run=true").await.expect(200);
    let system = |web: &Value| (web["image"]["name"].clone(), web["firmware"].clone());
    assert_eq!(system(&cloud.get(WEB).await.expect(200)), (json!("image"), json!("bios")));
    assert_eq!(system(&attach("uefi", "").await.expect(202)), (json!("uefi"), json!("uefi")));
}

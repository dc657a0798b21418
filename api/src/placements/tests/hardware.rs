//! Guests for other processors: refused with a reason where they do not fit.

use axum::http::Method;
use serde_json::{Value, json};

use crate::instances::place_pending;
use crate::testing::TestCloud;

const INSTANCES: &str = "/v1/projects/demo/instances";
const TYPES: &str = "/v1/instance_types";

/// The first field that is wrong, and why.
async fn refused(cloud: &TestCloud, path: &str, body: Value) -> (String, String) {
    let refused = cloud.post(path, body).await.expect_problem(422, "validation_failed");
    let text = |field: &str| refused["errors"][0][field].as_str().unwrap().to_owned();
    (text("pointer"), text("message"))
}

#[tokio::test]
async fn the_commands_of_the_guide_work() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let guide = include_str!("../../../../docs/guest-hardware.md");
    let commands = crate::testing::guide::commands(guide);
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in commands {
        let answer = crate::testing::guide::run(&cloud, &command).await;
        assert!(answer.status.is_success(), "{command:?}: {answer:?}");
    }
}

#[tokio::test]
async fn guests_for_other_processors_go_where_they_can_be_emulated_and_boot_by_uefi() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let _host = cloud.join_host("host-1").await;
    let image = "/v1/projects/demo/images/image";
    let arm =
        json!({"name": "arm", "architecture": "aarch64", "vcpus": 1, "memory_mib": 256, "root_disk_gib": 1});
    cloud.post(TYPES, arm).await.expect(201);

    let patch = async |body| cloud.call(Method::PATCH, image, Some(body)).await;
    let refused = patch(json!({"architecture": "aarch64"})).await.expect_problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["message"], "guests for aarch64 boot with uefi only");
    let new = json!({"name": "new", "format": "qcow2", "architecture": "riscv64"});
    assert_eq!(cloud.post("/v1/projects/demo/images", new).await.expect(201)["firmware"], "uefi");
    // As an image of an earlier release may say.
    sqlx::query("UPDATE images SET architecture = 'aarch64'").execute(&cloud.app.pool).await.unwrap();
    let body = json!({"name": "web", "image": "image", "instance_type": "arm"});
    let why = "guests for aarch64 boot with uefi only; its owner can change `firmware`".to_owned();
    assert_eq!(self::refused(&cloud, INSTANCES, body.clone()).await, ("/image".to_owned(), why));

    patch(json!({"firmware": "uefi"})).await.expect(200);
    let on_x86 = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    let why = "the image is for aarch64, the type for x86_64; what fits: arm".to_owned();
    assert_eq!(self::refused(&cloud, INSTANCES, on_x86).await, ("/instance_type".to_owned(), why));
    cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let shown = cloud.get(&format!("{INSTANCES}/web")).await.expect(200);
    assert_eq!(
        shown["placement"]["summary"],
        "none of 1 hosts takes it: 1 cannot run this architecture; no change of it would help now, an operator can \
         look into it"
    );
}

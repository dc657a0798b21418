//! What an image says of itself, and what it asks of instances.

use axum::http::Method;
use serde_json::{Value, json};

use super::{IMAGES, announce, content};
use crate::testing::{Answer, TestCloud};

const IMAGE: &str = "/v1/projects/demo/images/image";
const INSTANCES: &str = "/v1/projects/demo/instances";

async fn patch(cloud: &TestCloud, body: Value) -> Answer {
    cloud.call(Method::PATCH, IMAGE, Some(body)).await
}

#[tokio::test]
async fn properties_have_defaults_and_change() {
    let cloud = super::cloud().await;
    let body = json!({"name": "image", "format": "raw", "labels": {"os": "debian"}});
    let made = cloud.post(IMAGES, body).await.expect(201);
    assert_eq!((&made["firmware"], &made["visibility"]), (&json!("bios"), &json!("private")));
    assert_eq!((&made["min_disk_gib"], &made["min_memory_mib"]), (&json!(0), &json!(0)));
    assert_eq!((&made["default_user"], &made["project"]["name"]), (&Value::Null, &json!("demo")));

    let before = cloud.get(IMAGE).await;
    let etag = before.headers["etag"].to_str().unwrap().to_owned();
    let change = json!({
        "name": "debian", "description": "Debian 12", "architecture": "aarch64", "firmware": "uefi",
        "min_disk_gib": 8, "min_memory_mib": 512, "default_user": "debian", "labels": {"os": null, "tier": "base"},
    });
    let dry = cloud.call(Method::PATCH, &format!("{IMAGE}?dry_run=true"), Some(change.clone())).await;
    assert_eq!(dry.expect(200)["name"], "debian");
    assert_eq!(cloud.get(IMAGE).await.body, before.body);
    let with = [("if-match", etag.as_str())];
    let changed = cloud.call_with(Method::PATCH, IMAGE, &with, Some(change.clone())).await.expect(200);
    for (field, value) in change.as_object().unwrap() {
        let expected = if field == "labels" { &json!({"tier": "base"}) } else { value };
        assert_eq!(&changed[field], expected, "{field}");
    }
    assert_eq!(changed, cloud.get(&format!("{IMAGES}/debian")).await.expect(200));
    let late = cloud.call_with(Method::PATCH, &format!("{IMAGES}/debian"), &with, Some(json!({}))).await;
    late.expect_problem(412, "precondition_failed");
    let path = format!("{IMAGES}/debian");
    let removed = cloud.call(Method::PATCH, &path, Some(json!({"default_user": null}))).await.expect(200);
    assert_eq!((&removed["default_user"], &removed["firmware"]), (&Value::Null, &json!("uefi")));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let cloud = super::cloud().await;
    announce(&cloud, "image", "raw").await;
    announce(&cloud, "other", "raw").await;
    patch(&cloud, json!({"name": "other"})).await.expect_problem(409, "name_taken");
    for (body, pointer) in [
        (json!({"min_disk_gib": 16385}), "/min_disk_gib"),
        (json!({"min_memory_mib": 4_294_967_295_u32}), "/min_memory_mib"),
        (json!({"description": "a\u{0}"}), "/description"),
        (json!({"default_user": ""}), "/default_user"),
        (json!({"default_user": "-x"}), "/default_user"),
        (json!({"default_user": "root\nAllowUsers x"}), "/default_user"),
        (json!({"default_user": "ubuntu; reboot"}), "/default_user"),
        (json!({"default_user": "ä"}), "/default_user"),
        (json!({"default_user": "a".repeat(33)}), "/default_user"),
    ] {
        let problem = patch(&cloud, body.clone()).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
        let mut new = body;
        new["name"] = json!("new");
        new["format"] = json!("raw");
        let problem = cloud.post(IMAGES, new).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    for body in [
        json!({"visibility": "public"}),
        json!({"public": true}),
        json!({"format": "qcow2"}),
        json!({"firmware": "coreboot"}),
        json!({"firmware": null}),
        json!({"min_disk_gib": -1}),
        json!({"project_id": null}),
    ] {
        let status = patch(&cloud, body.clone()).await.status.as_u16();
        assert!([400, 422].contains(&status), "{body}: {status}");
    }
    assert_eq!(cloud.get(IMAGE).await.expect(200)["updated_at"], "2026-06-01T12:00:00Z");
}

#[tokio::test]
async fn an_instance_that_does_not_fit_is_refused_with_what_would() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let types = [
        ("small", 512, 4, "x86_64"),
        ("large", 4096, 40, "x86_64"),
        ("huge", 8192, 80, "x86_64"),
        ("arm", 4096, 40, "aarch64"),
    ];
    for (name, memory_mib, root_disk_gib, architecture) in types {
        let body = json!({"name": name, "vcpus": 1, "memory_mib": memory_mib, "root_disk_gib": root_disk_gib,
                          "architecture": architecture});
        cloud.post("/v1/instance_types", body).await.expect(201);
    }
    let wrong = async |instance_type: &str| {
        let body = json!({"name": "web", "image": "image", "instance_type": instance_type});
        let problem = cloud.post(INSTANCES, body).await.expect_problem(422, "validation_failed");
        let errors = problem["errors"].as_array().unwrap().clone();
        let text = |error: &Value, field: &str| error[field].as_str().unwrap().to_owned();
        errors.iter().map(|e| (text(e, "code"), text(e, "message"))).collect::<Vec<_>>()
    };
    let told = |code: &str, message: &str| (code.to_owned(), message.to_owned());
    patch(&cloud, json!({"min_disk_gib": 5, "min_memory_mib": 1024})).await.expect(200);
    assert_eq!(
        wrong("small").await,
        [
            told(
                "disk_too_small",
                "the image needs a root disk of 5 GiB, this type has 4 GiB (`root_disk_gib` asks for more); what fits: large, huge"
            ),
            told(
                "memory_too_small",
                "the image needs 1024 MiB of memory, this type has 512 MiB; what fits: large, huge"
            ),
        ]
    );
    assert_eq!(
        wrong("arm").await,
        [told("architecture", "the image is for x86_64, the type for aarch64; what fits: large, huge")]
    );
    patch(&cloud, json!({"min_disk_gib": 100})).await.expect(200);
    assert_eq!(
        wrong("huge").await,
        [told(
            "disk_too_small",
            "the image needs a root disk of 100 GiB, this type has 80 GiB (`root_disk_gib` asks for more); no type fits: ask an operator for one for \
             x86_64 with 100 GiB of root disk and 1024 MiB of memory or more"
        )]
    );
    assert_eq!(cloud.get(INSTANCES).await.expect(200)["items"], json!([]));
    let body = json!({"name": "web", "image": "image", "instance_type": "large"});
    patch(&cloud, json!({"min_disk_gib": 40})).await.expect(200);
    cloud.post(INSTANCES, body).await.expect(202);
}

#[tokio::test]
async fn the_disk_in_the_file_counts_whatever_the_owner_says() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    announce(&cloud, "wide", "raw").await;
    cloud.put_bytes(&content("wide"), vec![0; 4096]).await.expect(200);
    // As an upload of that size would leave it.
    sqlx::query("UPDATE blobs SET virtual_size_bytes = (3::bigint << 30) + 512")
        .execute(&cloud.app.pool)
        .await
        .unwrap();
    let body = json!({"name": "web", "image": "wide", "instance_type": "tiny"});
    let problem = cloud.post(INSTANCES, body).await.expect_problem(422, "validation_failed");
    let message = problem["errors"][0]["message"].as_str().unwrap();
    assert!(
        message.starts_with("the image needs a root disk of 4 GiB, this type has 1 GiB (`root_disk_gib` asks for more); no type"),
        "{message}"
    );
}

#[tokio::test]
async fn an_instance_keeps_the_firmware_that_it_was_made_with() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    patch(&cloud, json!({"firmware": "uefi"})).await.expect(200);
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": []});
    let made = cloud.post(INSTANCES, body).await.expect(202);
    patch(&cloud, json!({"firmware": "bios"})).await.expect(200);
    crate::instances::place_pending(&cloud.app).await.unwrap();
    assert_eq!(
        (&made["firmware"], &host.desired(0).await["objects"][0]["firmware"]),
        (&json!("uefi"), &json!("uefi"))
    );
}

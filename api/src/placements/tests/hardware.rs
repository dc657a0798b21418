//! Guest hardware: from the type to the host, and refused with a reason where it does not fit.

use axum::http::Method;
use serde_json::{Value, json};

use crate::instances::place_pending;
use crate::testing::TestCloud;

const INSTANCES: &str = "/v1/projects/demo/instances";
const TYPES: &str = "/v1/instance_types";

fn of_type(name: &str, hardware: &Value) -> Value {
    json!({"name": name, "vcpus": 2, "memory_mib": 256, "root_disk_gib": 1, "hardware": hardware})
}

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
    // What `make up` has made is called otherwise here.
    let guide = include_str!("../../../../docs/guest-hardware.md").replace("cumulo-test", "image");
    let commands = crate::testing::guide::commands(&guide);
    assert_eq!(commands.len(), 6, "{commands:?}");
    for command in commands {
        let answer = crate::testing::guide::run(&cloud, &command).await;
        assert!(answer.status.is_success(), "{command:?}: {answer:?}");
    }
}

#[tokio::test]
async fn an_instance_has_the_hardware_of_its_type() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let hardware = json!({"topology": {"sockets": 1, "cores": 1, "threads": 2}, "cpu_model": "EPYC",
        "nested_virtualization": false, "disk_bus": "sata", "nic_model": "e1000e",
        "boot_order": "disk_then_network"});
    let made = cloud.post(TYPES, of_type("old", &hardware)).await.expect(201);
    assert_eq!(made["hardware"], hardware);
    let body = json!({"name": "web", "image": "image", "instance_type": "old"});
    cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(host.desired(0).await["objects"][0]["hardware"], hardware);
    // The usual is not said: agents of earlier releases read it.
    let body = json!({"name": "plain", "image": "image", "instance_type": "tiny"});
    cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let objects = host.desired(0).await["objects"].as_array().unwrap().clone();
    assert_eq!(objects.iter().filter(|object| object["hardware"].is_null()).count(), 1, "{objects:?}");
    let usual = json!({"cpu_model": "host_passthrough", "nested_virtualization": false, "disk_bus": "virtio",
        "nic_model": "virtio", "boot_order": "disk"});
    assert_eq!(cloud.get("/v1/instance_types/tiny").await.expect(200)["hardware"], usual);
}

#[tokio::test]
async fn volumes_of_sata_come_and_go_while_it_is_stopped() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    cloud.post(TYPES, of_type("old", &json!({"disk_bus": "sata"}))).await.expect(201);
    cloud.post("/v1/projects/demo/volumes", json!({"name": "data", "size_gib": 1})).await.expect(201);
    let body = json!({"name": "web", "image": "image", "instance_type": "old"});
    let web = cloud.post(INSTANCES, body).await.expect(202)["id"].clone();
    place_pending(&cloud.app).await.unwrap();
    host.report(&web, 1, 1, json!({"state": "running"})).await;
    let attach = || cloud.post("/v1/projects/demo/instances/web/attach_volume", json!({"volume": "data"}));
    let refused = attach().await.expect_problem(409, "wrong_state");
    assert_eq!(
        refused["detail"],
        "its type old has its disks on SATA, where volumes come and go only while it is stopped; stop it first"
    );
    cloud.post("/v1/projects/demo/instances/web/stop", json!({"force": true})).await.expect(202);
    host.report(&web, 2, 1, json!({"state": "stopped", "reason": "requested"})).await;
    attach().await.expect(202);
    cloud.post("/v1/projects/demo/instances/web/start", json!({})).await.expect(202);
    let detach = cloud.post("/v1/projects/demo/instances/web/detach_volume", json!({"volume": "data"})).await;
    assert_eq!(detach.expect_problem(409, "wrong_state")["detail"], refused["detail"]);
}

#[tokio::test]
async fn a_resize_to_hardware_that_its_host_lacks_is_refused() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    cloud.post(TYPES, of_type("nesting", &json!({"nested_virtualization": true}))).await.expect(201);
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    let web = cloud.post(INSTANCES, body).await.expect(202)["id"].clone();
    place_pending(&cloud.app).await.unwrap();
    host.report(&web, 1, 1, json!({"state": "running"})).await;
    let body = json!({"instance_type": "nesting", "reboot": true});
    let resize = || cloud.post("/v1/projects/demo/instances/web/resize", body.clone());
    let refused = resize().await.expect_problem(409, "insufficient_capacity");
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.starts_with("its host cannot give its guest what that type asks for, and "), "{detail}");
    assert!(detail.contains("choose another type"), "{detail}");
}

#[tokio::test]
async fn hardware_that_makes_no_sense_is_refused_with_the_reason() {
    let cloud = TestCloud::start().await;
    let on_arm = |hardware| {
        let mut body = of_type("arm", &hardware);
        body["architecture"] = json!("aarch64");
        body
    };
    let four = json!({"topology": {"sockets": 2, "cores": 2, "threads": 1}});
    let nested = json!({"cpu_model": "EPYC", "nested_virtualization": true});
    for (body, pointer, words) in [
        (of_type("new", &four), "topology", "its product is 4, and the type has 2 vCPUs"),
        (of_type("new", &nested), "nested_virtualization", "needs the `cpu_model` `host_passthrough`"),
        (on_arm(json!({"disk_bus": "sata"})), "disk_bus", "sata is for x86_64 only, the type is for aarch64"),
        (
            on_arm(json!({"cpu_model": "cortex-a57"})),
            "cpu_model",
            "this is for x86_64 only, the type is for aarch64",
        ),
        (
            on_arm(json!({"nic_model": "e1000e"})),
            "nic_model",
            "e1000e is for x86_64 only, the type is for aarch64",
        ),
        (
            on_arm(json!({"nested_virtualization": true})),
            "nested_virtualization",
            "this is for x86_64 only, the type is for aarch64",
        ),
    ] {
        let expected = (format!("/hardware/{pointer}"), words.to_owned());
        assert_eq!(refused(&cloud, TYPES, body).await, expected);
    }
    let strange = of_type("new", &json!({"cpu_model": "<x>"}));
    cloud.post(TYPES, strange).await.expect_problem(422, "validation_failed");
}

#[tokio::test]
async fn what_no_host_gives_waits_and_the_operator_sees_what_is_missing() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let _host = cloud.join_host("host-1").await;
    for (name, hardware, lacks) in [
        ("new-cpu", json!({"cpu_model": "EPYC-Turin"}), "it lacks cpu_model EPYC-Turin"),
        ("nesting", json!({"nested_virtualization": true}), "it lacks nested_virtualization"),
    ] {
        cloud.post(TYPES, of_type(name, &hardware)).await.expect(201);
        let body = json!({"name": name, "image": "image", "instance_type": name});
        let made = cloud.post(INSTANCES, body).await.expect(202);
        place_pending(&cloud.app).await.unwrap();
        let shown = cloud.get(&format!("{INSTANCES}/{name}")).await.expect(200);
        assert_eq!(
            shown["placement"]["summary"],
            "none of 1 hosts takes it: 1 cannot give its guest what its type asks for; it would fit as type tiny"
        );
        let detail = cloud.get(&format!("/v1/placements/{}", made["id"].as_str().unwrap())).await.expect(200);
        assert_eq!(detail["hosts"][0]["rejections"][0]["detail"], lacks);
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

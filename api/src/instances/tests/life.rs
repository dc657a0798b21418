//! What an owner says of an instance, what its guest gets, and a guest that stands still.

use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{INSTANCES, WEB, create, operation_path, pair, running, state};
use crate::instances::place_pending;
use crate::testing::{TestCloud, TestHost};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me@here";

async fn seed_of(host: &TestHost<'_>, instance: &Value) -> Value {
    let page = host.desired(0).await;
    let mut objects = page["objects"].as_array().unwrap().iter();
    objects.find(|object| object["id"] == *instance).unwrap()["seed"].clone()
}

#[tokio::test]
async fn keys_of_key_pairs_and_bytes_of_user_data_reach_the_host() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let key_pairs = "/v1/projects/demo/key_pairs";
    cloud.post(key_pairs, json!({"name": "laptop", "public_key": KEY})).await.expect(201);
    let bytes = [0x1f, 0x8b, 0, 0xff, 0xfe, b'\n'];
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "key_pairs": ["laptop"],
        "ssh_authorized_keys": ["ssh-ed25519 AAAAB other"], "user_data_base64": STANDARD.encode(bytes)});
    let created = cloud.post(INSTANCES, body.clone()).await.expect(202);
    assert_eq!(created["key_pairs"], json!(["laptop"]));
    place_pending(&cloud.app).await.unwrap();
    let seed = seed_of(&host, &created["id"]).await;
    assert_eq!(seed["ssh_authorized_keys"], json!(["ssh-ed25519 AAAAB other", KEY]));
    assert_eq!(
        (&seed["user_data"], &seed["user_data_base64"]),
        (&Value::Null, &json!(STANDARD.encode(bytes)))
    );
    // It stays with the instance, whatever becomes of the key pair.
    cloud.delete(&format!("{key_pairs}/laptop")).await.expect(204);
    assert_eq!(seed_of(&host, &created["id"]).await, seed);
    assert_eq!(cloud.get(WEB).await.expect(200)["key_pairs"], json!(["laptop"]));

    for (field, value, pointer) in [
        ("key_pairs", json!(["laptop"]), "/key_pairs/0"),
        ("user_data_base64", json!("%"), "/user_data_base64"),
        ("user_data_base64", json!(STANDARD.encode(vec![0; 65537])), "/user_data_base64"),
        ("user_data", json!("#!/bin/sh"), "/user_data_base64"),
        ("user_data", json!("x".repeat(65537)), "/user_data"),
    ] {
        let mut wrong = json!({"name": "db", "image": "image", "instance_type": "tiny",
            "user_data_base64": STANDARD.encode(bytes)});
        wrong[field] = value;
        let refused = cloud.post(INSTANCES, wrong).await.expect_problem(422, "validation_failed");
        let pointers: Vec<_> =
            refused["errors"].as_array().unwrap().iter().map(|one| &one["pointer"]).collect();
        assert!(pointers.contains(&&json!(pointer)), "{field}: {refused}");
    }
    let exactly = json!({"name": "db", "image": "image", "instance_type": "tiny",
        "user_data_base64": STANDARD.encode(vec![0xff; 65536])});
    cloud.post(INSTANCES, exactly).await.expect(202);
}

#[tokio::test]
async fn a_protected_instance_is_deleted_by_nobody_until_that_is_taken_back() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let created = running(&cloud, &host).await;
    assert_eq!((&created["description"], &created["delete_protection"]), (&json!(""), &json!(false)));
    let patch =
        json!({"description": "the shop", "delete_protection": true, "name": "shop", "labels": {"a": "b"}});
    let dry =
        cloud.call(Method::PATCH, &format!("{WEB}?dry_run=true"), Some(patch.clone())).await.expect(200);
    assert_eq!(dry["description"], "the shop");
    let shop = &format!("{INSTANCES}/shop");
    let changed = cloud.call(Method::PATCH, WEB, Some(patch)).await.expect(200);
    assert_eq!(changed["delete_protection"], true);
    assert_eq!(cloud.get(shop).await.expect(200)["description"], "the shop");
    let refused = cloud.delete(shop).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("`delete_protection` to false"), "{refused}");
    cloud.call(Method::PATCH, shop, Some(json!({"delete_protection": null}))).await.expect(422);
    let long = json!({"description": "x".repeat(1001)});
    cloud.call(Method::PATCH, shop, Some(long)).await.expect_problem(422, "validation_failed");
    cloud.call(Method::PATCH, shop, Some(json!({"delete_protection": false}))).await.expect(200);
    cloud.delete(shop).await.expect(202);
}

async fn report_paused(host: &TestHost<'_>, instance: &Value, generation: i64, reason: &str) {
    let report = json!({"id": instance, "generation": generation, "boot": 1, "state": {"state": "running"},
        "paused": reason});
    let body = json!({"epoch": host.epoch, "reports": [report]});
    host.call(Method::POST, "/agent/v1/observed", Some(body)).await.expect(200);
}

#[tokio::test]
async fn a_paused_guest_stands_still_until_it_is_resumed() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let created = create(&cloud).await;
    let refused = cloud.post(&format!("{WEB}/pause"), json!({})).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("wait until it runs"), "{refused}");
    // What was refused lets go of the row some moments after its answer; a pass does not wait for it.
    while host.disks(&created["id"]).await.is_none() {
        place_pending(&cloud.app).await.unwrap();
    }
    host.report(&created["id"], 1, 1, json!({"state": "running"})).await;

    let pausing = cloud.post(&format!("{WEB}/pause"), json!({})).await.expect(202);
    assert_eq!((&pausing["state"], &pausing["state_reason"]), (&json!("running"), &json!("pause_requested")));
    assert_eq!(host.desired(0).await["objects"][0]["power"], "paused");
    host.report(&created["id"], 2, 1, json!({"state": "running"})).await;
    assert_eq!(cloud.get(&operation_path(&pausing)).await.expect(200)["status"], "running");
    report_paused(&host, &created["id"], 2, "requested").await;
    assert_eq!(state(&cloud).await, pair("paused", "as_requested"));
    assert_eq!(cloud.get(&operation_path(&pausing)).await.expect(200)["status"], "succeeded");

    // Its disks cannot be gone back with, and it can be stopped, started and resumed.
    let resuming = cloud.post(&format!("{WEB}/resume"), json!({})).await.expect(202);
    assert_eq!(
        (&resuming["state"], &resuming["state_reason"]),
        (&json!("paused"), &json!("resume_requested"))
    );
    report_paused(&host, &created["id"], 3, "requested").await;
    assert_eq!(cloud.get(&operation_path(&resuming)).await.expect(200)["status"], "running");
    host.report(&created["id"], 3, 1, json!({"state": "running"})).await;
    assert_eq!(cloud.get(&operation_path(&resuming)).await.expect(200)["status"], "succeeded");
    assert_eq!(state(&cloud).await, pair("running", "as_requested"));

    let lost = cloud.post(&format!("{WEB}/pause"), json!({})).await.expect(202);
    host.report(&created["id"], 4, 1, json!({"state": "stopped", "reason": "unobserved"})).await;
    assert_eq!(state(&cloud).await, pair("stopped", "ended_unobserved"));
    assert_eq!(cloud.get(&operation_path(&lost)).await.expect(200)["error"]["code"], "guest_ended");
    let refused = cloud.post(&format!("{WEB}/resume"), json!({})).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("start it instead"), "{refused}");
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    let wanted = &host.desired(0).await["objects"][0];
    assert_eq!((&wanted["power"], &wanted["boot"]), (&json!("running"), &json!(2)));
}

//! A clone of an instance, in one call.

use serde_json::{Value, json};

use super::{INSTANCES, WEB, all_but, findings, running};
use crate::instances::place_pending;
use crate::testing::{TestCloud, TestHost};

async fn spec(host: &TestHost<'_>, instance: &Value) -> Option<Value> {
    let page = host.desired(0).await;
    page["objects"].as_array().unwrap().iter().find(|one| one["id"] == *instance).cloned()
}

fn clone_of_web() -> Value {
    json!({"name": "twin", "source": {"instance": "web"}})
}

#[tokio::test]
async fn a_clone_of_a_running_instance_waits_until_its_guest_writes_elsewhere() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    let dry = cloud.post(&format!("{INSTANCES}?dry_run=true"), clone_of_web()).await.expect(200);
    assert_eq!((&dry["plan"]["placeable"], &dry["instance_type"]["name"]), (&json!(true), &json!("tiny")));
    let written = spec(&host, &web["id"]).await.unwrap()["disks"][0]["volume"]["layers"][0].clone();

    let twin = cloud.post(INSTANCES, clone_of_web()).await.expect(202);
    assert_eq!((&twin["image"], &twin["state"]), (&web["image"], &json!("pending")));
    place_pending(&cloud.app).await.unwrap();
    assert!(spec(&host, &twin["id"]).await.is_none(), "the guest may still write to what it stands on");
    let source = spec(&host, &web["id"]).await.unwrap();
    assert_eq!((&source["generation"], &source["boot"]), (&json!(2), &json!(1)));
    assert_eq!(source["disks"][0]["volume"]["layers"].as_array().unwrap().len(), 2);
    host.report(&web["id"], 2, 1, json!({"state": "running"})).await;
    place_pending(&cloud.app).await.unwrap();
    let clone = spec(&host, &twin["id"]).await.expect("it is on no host");
    let layers = clone["disks"][0]["volume"]["layers"].as_array().unwrap();
    assert_eq!((layers.len(), &layers[0]), (2, &written));
    assert_ne!(clone["disks"][0]["volume"]["layers"], source["disks"][0]["volume"]["layers"]);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_clone_has_what_its_source_was_given_unless_told_otherwise() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "user_data": "#!/bin/sh\n",
        "ssh_authorized_keys": ["ssh-ed25519 AAAAB me"], "volumes": [{"size_gib": 2}]});
    // On no host yet: nothing is waited for.
    let web = cloud.post(INSTANCES, body).await.expect(202);
    let twin = cloud.post(INSTANCES, clone_of_web()).await.expect(202);
    let mut other = clone_of_web();
    other["name"] = json!("other");
    other["user_data"] = json!("#!/bin/true\n");
    other["ssh_authorized_keys"] = json!(["ssh-ed25519 AAAAB you"]);
    let other = cloud.post(INSTANCES, other).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let [web, twin, other] = [&web["id"], &twin["id"], &other["id"]];
    let seed = async |id: &Value| spec(&host, id).await.unwrap()["seed"].clone();
    assert_eq!(seed(web).await, seed(twin).await);
    assert_eq!(seed(other).await["ssh_authorized_keys"], json!(["ssh-ed25519 AAAAB you"]));
    assert_eq!(spec(&host, twin).await.unwrap()["disks"].as_array().unwrap().len(), 2);

    for (wrong, pointer) in [
        (json!({"name": "x", "source": {"instance": "nobody"}}), "/source/instance"),
        (json!({"name": "x", "source": {"instance": "web"}, "image": "image"}), "/image"),
        (json!({"name": "x", "source": {"instance": "web"}, "snapshot": "s"}), "/source"),
        (json!({"name": "x", "source": {"instance": "web"}, "instance_type": "none"}), "/instance_type"),
    ] {
        let refused = cloud.post(INSTANCES, wrong).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer);
    }
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn who_may_not_clone_it_makes_none() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let ada = all_but(&cloud, "compute:CloneInstance", "*").await;
    let ada = [("authorization", ada.as_str())];
    let post = axum::http::Method::POST;
    cloud.call_with(post, INSTANCES, &ada, Some(clone_of_web())).await.expect_problem(403, "forbidden");
    assert_eq!(cloud.get(WEB).await.expect(200)["volumes"].as_array().unwrap().len(), 1);
}

//! A root disk that is made anew, and a system that is booted to repair another.

use axum::http::Method;
use serde_json::{Value, json};

use super::{INSTANCES, WEB, findings, running};
use crate::testing::{TestCloud, TestHost};

/// A furnished cloud with the further image `other`.
async fn cloud_with_images() -> TestCloud {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let image = json!({"name": "other", "format": "raw"});
    cloud.post("/v1/projects/demo/images", image).await.expect(201);
    cloud.put_bytes("/v1/projects/demo/images/other/content", vec![1; 8192]).await.expect(200);
    cloud
}

async fn spec(host: &TestHost<'_>) -> Value {
    let page = host.desired(0).await;
    page["objects"].as_array().unwrap().iter().find(|one| one["kind"] == "instance").unwrap().clone()
}

fn sha256_of(disk: &Value) -> &Value {
    &disk["volume"]["image"]["sha256"]
}

#[tokio::test]
async fn a_rebuilt_instance_keeps_all_but_its_root_disk() {
    let cloud = cloud_with_images().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    let volume = json!({"name": "data", "size_gib": 1});
    cloud.post("/v1/projects/demo/volumes", volume).await.expect(201);
    cloud.post(&format!("{WEB}/attach_volume"), json!({"volume": "data"})).await.expect(202);
    host.report(&web["id"], 2, 1, json!({"state": "running"})).await;
    let before = spec(&host).await;
    let dry = cloud.post(&format!("{WEB}/rebuild?dry_run=true"), json!({"image": "other"})).await.expect(200);
    assert_eq!(dry["image"]["name"], "other");
    assert_eq!(spec(&host).await, before);

    let rebuilding = cloud.post(&format!("{WEB}/rebuild"), json!({"image": "other"})).await.expect(202);
    assert_eq!(
        (&rebuilding["image"]["name"], &rebuilding["operation"]["kind"], &rebuilding["id"]),
        (&json!("other"), &json!("rebuild_instance"), &web["id"])
    );
    let after = spec(&host).await;
    assert_eq!((&after["boot"], &after["disks"][1]), (&json!(2), &before["disks"][1]));
    let (old, new) = (&before["disks"][0], &after["disks"][0]);
    assert_eq!(old["volume"]["id"], new["volume"]["id"]);
    assert_ne!(old["volume"]["layers"], new["volume"]["layers"]);
    assert_ne!(sha256_of(old), sha256_of(new));
    assert_eq!(after["nics"], before["nics"]);
    let removals = host.removals().await;
    assert_eq!((removals.len(), &removals[0]["layers"]), (1, &old["volume"]["layers"]));
    host.report(&web["id"], 3, 2, json!({"state": "running"})).await;
    host.report_removed(json!([removals[0]["removal_id"]])).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["operation"]["status"], "succeeded");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());

    // A stopped one stays so, and from its present image again.
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    host.report(&web["id"], 4, 2, json!({"state": "stopped", "reason": "requested"})).await;
    cloud.post(&format!("{WEB}/rebuild"), json!({})).await.expect(202);
    let again = spec(&host).await;
    assert_eq!((&again["power"], &again["boot"]), (&json!("stopped"), &json!(2)));
    assert_ne!(again["disks"][0]["volume"]["layers"], after["disks"][0]["volume"]["layers"]);
}

#[tokio::test]
async fn what_a_snapshot_holds_survives_a_rebuild() {
    let cloud = cloud_with_images().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    host.report(&web["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;
    let snapshot = json!({"name": "before", "instance": "web"});
    cloud.post("/v1/projects/demo/snapshots", snapshot).await.expect(201);
    let held = spec(&host).await["disks"][0]["volume"]["layers"][0].clone();
    cloud.post(&format!("{WEB}/rebuild"), json!({"image": "other"})).await.expect(202);
    let removed: Vec<_> =
        host.removals().await.iter().flat_map(|one| one["layers"].as_array().unwrap().clone()).collect();
    assert!(!removed.contains(&held), "{removed:?}");
    let clone = json!({"name": "clone", "snapshot": "before"});
    cloud.post(INSTANCES, clone).await.expect(202);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_stands_in_the_way_of_a_rebuild_is_told() {
    let cloud = cloud_with_images().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let refused = cloud.post(&format!("{WEB}/rebuild"), json!({"image": "none"})).await;
    assert_eq!(refused.expect_problem(422, "validation_failed")["errors"][0]["pointer"], "/image");
    let image = json!({"name": "large", "format": "raw", "min_disk_gib": 2});
    cloud.post("/v1/projects/demo/images", image).await.expect(201);
    cloud.put_bytes("/v1/projects/demo/images/large/content", vec![1; 512]).await.expect(200);
    let refused = cloud.post(&format!("{WEB}/rebuild"), json!({"image": "large"})).await;
    let refused = refused.expect_problem(422, "validation_failed");
    assert!(refused["errors"][0]["message"].as_str().unwrap().contains("grow that first"), "{refused}");
    let root = cloud.get(WEB).await.expect(200)["volumes"][0]["volume"]["name"].as_str().unwrap().to_owned();
    let path = format!("/v1/projects/demo/volumes/{root}");
    cloud.call(Method::PATCH, &path, Some(json!({"delete_protection": true}))).await.expect(200);
    let refused = cloud.post(&format!("{WEB}/rebuild"), json!({})).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("is protected"), "{refused}");
}

#[tokio::test]
async fn a_rescued_instance_boots_from_another_disk_and_goes_back() {
    let cloud = cloud_with_images().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    let before = spec(&host).await;
    let rescuing = cloud.post(&format!("{WEB}/rescue"), json!({"image": "other"})).await.expect(202);
    assert_eq!(rescuing["operation"]["kind"], "rescue_instance");
    let positions: Vec<_> =
        rescuing["volumes"].as_array().unwrap().iter().map(|one| one["position"].clone()).collect();
    assert_eq!(positions, [json!(-1), json!(0)]);
    let rescued = spec(&host).await;
    assert_eq!((&rescued["boot"], &rescued["disks"][1]), (&json!(2), &before["disks"][0]));
    assert_ne!(sha256_of(&rescued["disks"][0]), sha256_of(&rescued["disks"][1]));
    host.report(&web["id"], 2, 2, json!({"state": "running"})).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state_reason"], "rescued");
    for (verb, body) in [("rescue", json!({"image": "other"})), ("rebuild", json!({}))] {
        let refused = cloud.post(&format!("{WEB}/{verb}"), body).await.expect_problem(409, "wrong_state");
        assert!(refused["detail"].as_str().unwrap().contains("unrescue it first"), "{refused}");
    }
    let disk = rescuing["volumes"][0]["volume"]["name"].clone();
    let detach = cloud.post(&format!("{WEB}/detach_volume"), json!({"volume": disk})).await;
    assert!(detach.expect_problem(409, "wrong_state")["detail"].as_str().unwrap().contains("unrescue"));
    // Snapshots are of its own disks.
    let snapshot = cloud.post("/v1/projects/demo/snapshots", json!({"name": "s", "instance": "web"})).await;
    let snapshot = snapshot.expect(202);
    assert_eq!(snapshot["volumes"].as_array().unwrap().len(), 1);
    host.report(&web["id"], 3, 2, json!({"state": "running"})).await;

    cloud.post(&format!("{WEB}/unrescue"), json!({})).await.expect(202);
    let soon = cloud.post(&format!("{WEB}/rescue"), json!({"image": "other"})).await;
    let soon = soon.expect_problem(409, "wrong_state");
    assert!(soon["detail"].as_str().unwrap().contains("not let go yet"), "{soon}");
    let back = spec(&host).await;
    assert_eq!((&back["boot"], back["disks"].as_array().unwrap().len()), (&json!(3), 1));
    assert_eq!(back["disks"][0]["volume"]["id"], before["disks"][0]["volume"]["id"]);
    let removals = host.removals().await;
    assert_eq!(removals[0]["layers"], rescued["disks"][0]["volume"]["layers"]);
    host.report(&web["id"], 4, 3, json!({"state": "running"})).await;
    host.report_removed(json!([removals[0]["removal_id"]])).await;
    let shown = cloud.get(WEB).await.expect(200);
    assert_eq!(
        (&shown["state_reason"], shown["volumes"].as_array().unwrap().len()),
        (&json!("as_requested"), 1)
    );
    assert_eq!(
        cloud.get("/v1/projects/demo/volumes").await.expect(200)["items"].as_array().unwrap().len(),
        1
    );
    cloud.post(&format!("{WEB}/unrescue"), json!({})).await.expect_problem(409, "wrong_state");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_left_of_an_instance_that_goes_while_it_is_rescued() {
    for unrescued in [false, true] {
        let cloud = cloud_with_images().await;
        let host = cloud.join_host("host-1").await;
        let web = running(&cloud, &host).await;
        cloud.post(&format!("{WEB}/rescue"), json!({"image": "other"})).await.expect(202);
        let mut generation = 2;
        host.report(&web["id"], generation, 2, json!({"state": "running"})).await;
        if unrescued {
            cloud.post(&format!("{WEB}/unrescue"), json!({})).await.expect(202);
            generation += 1;
        }
        cloud.delete(WEB).await.expect(202);
        generation += 1;
        let page = host.desired(0).await;
        let deletion =
            page["objects"].as_array().unwrap().iter().find(|one| one["kind"] == "delete_instance").unwrap();
        assert_eq!(deletion["layers"].as_array().unwrap().len(), 2);
        // What was to be removed before is told by itself.
        let removals = host.removals().await;
        assert_eq!(removals.len(), usize::from(unrescued));
        host.report(&web["id"], generation, 2, json!({"state": "absent"})).await;
        for removal in removals {
            host.report_removed(json!([removal["removal_id"]])).await;
        }
        cloud.get(WEB).await.expect_problem(404, "not_found");
        assert_eq!(cloud.get("/v1/projects/demo/volumes").await.expect(200)["items"], json!([]));
        assert_eq!(findings(&cloud).await, Vec::<String>::new());
    }
}

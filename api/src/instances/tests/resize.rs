//! Another size, with a way back.

use serde_json::{Value, json};

use super::{INSTANCES, WEB, all_but, findings, operation_path, running};
use crate::instances::{confirm_resizes, place_pending};
use crate::testing::{TestCloud, TestHost};

/// A furnished cloud with a host of 16 vCPUs and 8 GiB, and the types `small` and `huge`.
async fn cloud_with_types() -> TestCloud {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for (name, vcpus, memory_mib) in [("small", 2, 512), ("huge", 12, 4096), ("vast", 17, 4096)] {
        let new = json!({"name": name, "vcpus": vcpus, "memory_mib": memory_mib, "root_disk_gib": 1});
        cloud.post("/v1/instance_types", new).await.expect(201);
    }
    cloud
}

async fn resize(cloud: &TestCloud, body: Value) -> crate::testing::Answer {
    cloud.post(&format!("{WEB}/resize"), body).await
}

/// vCPUs that the host has given away, and that the project is charged with.
async fn held(cloud: &TestCloud) -> (Value, Value) {
    let host = cloud.get("/v1/hosts").await.expect(200)["items"][0]["vcpus"]["reserved"].clone();
    let quotas = cloud.get("/v1/projects/demo/quotas").await.expect(200);
    let quota = quotas["items"].as_array().unwrap().iter().find(|one| one["resource"] == "vcpus").unwrap();
    (host, quota["used"].clone())
}

async fn spec(host: &TestHost<'_>) -> Value {
    let page = host.desired(0).await;
    page["objects"].as_array().unwrap().iter().find(|one| one["kind"] == "instance").unwrap().clone()
}

#[tokio::test]
async fn a_running_instance_gets_its_size_with_a_reboot_and_goes_back() {
    let cloud = cloud_with_types().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    let refused = resize(&cloud, json!({"instance_type": "small"})).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("`reboot`"), "{refused}");
    let body = json!({"instance_type": "small", "reboot": true, "timeout_seconds": 9});
    let dry = cloud.post(&format!("{WEB}/resize?dry_run=true"), body.clone()).await.expect(200);
    assert_eq!((&dry["vcpus"], &dry["plan"]["placeable"]), (&json!(2), &json!(true)));
    assert!(
        dry["plan"]["quota"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["resource"] == "vcpus" && one["used"] == 1 && one["after"] == 2),
        "{dry}"
    );
    assert_eq!(held(&cloud).await, (json!(1), json!(1)));

    let resizing = resize(&cloud, body).await.expect(202);
    assert_eq!(resizing["operation"]["kind"], "resize_instance");
    let wanted = spec(&host).await;
    assert_eq!(
        (&wanted["vcpus"], &wanted["memory_mib"], &wanted["boot"]),
        (&json!(2), &json!(512), &json!(2))
    );
    assert_eq!(wanted["stop"], json!({"mode": "graceful", "timeout_seconds": 9}));
    host.report(&web["id"], 2, 2, json!({"state": "running"})).await;
    let resized = cloud.get(WEB).await.expect(200);
    assert_eq!((&resized["state"], &resized["state_reason"]), (&json!("running"), &json!("resized")));
    assert_eq!(resized["resize"]["from"]["name"], "tiny");
    assert_eq!(resized["resize"]["confirm_at"], "2026-06-02T12:00:00Z");
    assert_eq!(cloud.get(&operation_path(&resizing)).await.expect(200)["status"], "succeeded");
    let again = resize(&cloud, json!({"instance_type": "huge", "reboot": true})).await;
    again.expect_problem(409, "wrong_state");
    let kept = cloud.delete("/v1/instance_types/tiny").await.expect_problem(409, "in_use");
    assert!(kept["detail"].as_str().unwrap().contains("confirm their resizes"), "{kept}");

    let reverting = cloud.post(&format!("{WEB}/revert_resize"), json!({"force": true})).await.expect(202);
    assert_eq!((&reverting["instance_type"]["name"], reverting.get("resize")), (&json!("tiny"), None));
    // The larger guest may still run.
    assert_eq!(held(&cloud).await, (json!(2), json!(2)));
    confirm_resizes(&cloud.app).await.unwrap();
    assert_eq!(held(&cloud).await, (json!(2), json!(2)));
    let wanted = spec(&host).await;
    assert_eq!(
        (&wanted["vcpus"], &wanted["boot"], &wanted["stop"]),
        (&json!(1), &json!(3), &json!({"mode": "force"}))
    );
    host.report(&web["id"], 3, 3, json!({"state": "running"})).await;
    confirm_resizes(&cloud.app).await.unwrap();
    assert_eq!(held(&cloud).await, (json!(1), json!(1)));
    cloud.post(&format!("{WEB}/revert_resize"), json!({})).await.expect_problem(409, "wrong_state");
    cloud.post(&format!("{WEB}/confirm_resize"), json!({})).await.expect_problem(409, "wrong_state");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_smaller_holds_the_larger_until_it_is_confirmed() {
    let cloud = cloud_with_types().await;
    let host = cloud.join_host("host-1").await;
    let body = json!({"name": "web", "image": "image", "instance_type": "huge"});
    let web = cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    let early = resize(&cloud, json!({"instance_type": "tiny"})).await.expect_problem(409, "wrong_state");
    assert!(early["detail"].as_str().unwrap().contains("when it is stopped"), "{early}");
    host.report(&web["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;
    resize(&cloud, json!({"instance_type": "tiny", "confirm_after_seconds": 60})).await.expect(202);
    assert_eq!(spec(&host).await["boot"], 1, "it stays stopped");
    assert_eq!(held(&cloud).await, (json!(12), json!(12)));
    host.report(&web["id"], 3, 1, json!({"state": "stopped", "reason": "requested"})).await;
    cloud.pass(59);
    confirm_resizes(&cloud.app).await.unwrap();
    assert_eq!(held(&cloud).await, (json!(12), json!(12)));
    cloud.pass(1);
    confirm_resizes(&cloud.app).await.unwrap();
    assert_eq!(held(&cloud).await, (json!(1), json!(1)));
    assert_eq!(cloud.get(WEB).await.expect(200).get("resize"), None);

    // Growing and confirmed by hand; the host has the last word.
    resize(&cloud, json!({"instance_type": "small"})).await.expect(202);
    host.report(&web["id"], 4, 1, json!({"state": "stopped", "reason": "requested"})).await;
    let confirmed = cloud.post(&format!("{WEB}/confirm_resize"), json!({})).await.expect(200);
    assert_eq!((confirmed.get("resize"), &confirmed["vcpus"]), (None, &json!(2)));
    cloud.post(&format!("{WEB}/revert_resize"), json!({})).await.expect_problem(409, "wrong_state");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_does_not_fit_says_why_and_changes_nothing() {
    let cloud = cloud_with_types().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    let big = json!({"instance_type": "vast", "reboot": true});
    let refused = resize(&cloud, big.clone()).await.expect_problem(409, "insufficient_capacity");
    assert!(refused["detail"].as_str().unwrap().contains("on the disk of that host"), "{refused}");
    cloud
        .call(axum::http::Method::PATCH, "/v1/projects/demo/quotas", Some(json!({"vcpus": 8})))
        .await
        .expect(200);
    let huge = json!({"instance_type": "huge", "reboot": true});
    resize(&cloud, huge).await.expect_problem(409, "quota_exceeded");
    for (wrong, pointer) in [
        (json!({"instance_type": "tiny", "reboot": true}), "/instance_type"),
        (json!({"instance_type": "none", "reboot": true}), "/instance_type"),
        (json!({"instance_type": "small", "confirm_after_seconds": 2592001}), "/confirm_after_seconds"),
        (json!({"instance_type": "small", "timeout_seconds": 0}), "/timeout_seconds"),
    ] {
        let refused = resize(&cloud, wrong).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer);
    }
    assert_eq!(cloud.get(WEB).await.expect(200)["instance_type"]["name"], "tiny");
    assert_eq!(held(&cloud).await, (json!(1), json!(1)));
    assert_eq!(spec(&host).await["generation"], 1);
    host.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn who_may_not_make_such_an_instance_turns_none_into_it() {
    let cloud = cloud_with_types().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let ada = all_but(&cloud, "compute:CreateInstance", "*").await;
    let ada = [("authorization", ada.as_str())];
    let post = axum::http::Method::POST;
    for (verb, body) in [
        ("resize", json!({"instance_type": "small", "reboot": true})),
        ("rebuild", json!({})),
        ("rescue", json!({"image": "image"})),
    ] {
        let path = format!("{WEB}/{verb}");
        cloud.call_with(post.clone(), &path, &ada, Some(body)).await.expect_problem(403, "forbidden");
    }
}

#[tokio::test]
async fn what_is_reverted_on_its_way_down_is_held_until_it_is_down() {
    let cloud = cloud_with_types().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    resize(&cloud, json!({"instance_type": "small", "reboot": true})).await.expect(202);
    host.report(&web["id"], 2, 2, json!({"state": "running"})).await;
    cloud.post(&format!("{WEB}/stop"), json!({"timeout_seconds": 600})).await.expect(202);
    host.report(&web["id"], 3, 2, json!({"state": "stopping"})).await;
    cloud.post(&format!("{WEB}/revert_resize"), json!({})).await.expect(202);
    assert_eq!(spec(&host).await["stop"], json!({"mode": "graceful", "timeout_seconds": 600}));
    host.report(&web["id"], 4, 2, json!({"state": "stopping"})).await;
    confirm_resizes(&cloud.app).await.unwrap();
    assert_eq!(held(&cloud).await, (json!(2), json!(2)), "the larger guest is still there");
    host.report(&web["id"], 4, 2, json!({"state": "stopped", "reason": "requested"})).await;
    confirm_resizes(&cloud.app).await.unwrap();
    assert_eq!(held(&cloud).await, (json!(1), json!(1)));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_waits_for_a_host_finds_one_in_its_new_size() {
    let cloud = cloud_with_types().await;
    let _host = cloud.join_host("host-1").await;
    let body = json!({"name": "web", "image": "image", "instance_type": "vast"});
    cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let waiting = cloud.get(WEB).await.expect(200);
    assert_eq!(waiting["state_reason"], "no_host_fits");
    let still = json!({"name": "wider", "vcpus": 18, "memory_mib": 512, "root_disk_gib": 1});
    cloud.post("/v1/instance_types", still).await.expect(201);
    for (wanted, placeable) in [("wider", false), ("small", true)] {
        let path = format!("{WEB}/resize?dry_run=true");
        let dry = cloud.post(&path, json!({"instance_type": wanted})).await.expect(200);
        assert_eq!(dry["plan"]["placeable"], placeable, "{dry}");
    }
    let resized = resize(&cloud, json!({"instance_type": "small"})).await.expect(202);
    assert_eq!(resized.get("resize"), None, "nothing is held for a way back");
    // At once, not when it would have been looked at again.
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "provisioning");
    assert_eq!(held(&cloud).await, (json!(2), json!(2)));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

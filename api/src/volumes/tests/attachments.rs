//! Attached and detached is what the instance's host says, at the generation that asked for it.

use axum::http::Method;
use serde_json::{Value, json};
use sha2::Digest as _;

use super::{
    DATA, INSTANCES, VOLUMES, WEB, attach, count, data, detach, findings, instance, operation, run, running,
    state,
};
use crate::instances::place_pending;
use crate::testing::TestCloud;

fn listed(volume: &Value, generation: i64, state: &str) -> Value {
    json!({"id": volume["id"], "generation": generation, "state": state})
}

/// Why the volume is still on its way.
async fn detail(cloud: &TestCloud) -> Option<String> {
    let volume = cloud.get(DATA).await.expect(200);
    let listed = cloud.get(&format!("{VOLUMES}?name=data")).await.expect(200);
    assert_eq!(listed["items"][0].get("state_detail"), volume.get("state_detail"));
    volume["state_detail"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_volume_comes_and_goes_by_the_word_of_its_host() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = run(&cloud, &host, "web").await;
    let other = run(&cloud, &host, "other").await;
    let volume = data(&cloud).await;
    let attached = attach(&cloud, "web", "data").await.expect(202);
    assert_eq!(
        (&attached["operation"]["kind"], &attached["state"]),
        (&json!("attach_volume"), &json!("running"))
    );
    assert_eq!(state(&cloud, DATA).await, "attaching");
    assert!(detail(&cloud).await.unwrap().contains("to give it to the guest"));
    let (generation, disks) = host.disks(&web["id"]).await.unwrap();
    assert_eq!((generation, disks.len()), (2, 2));
    assert_eq!((&disks[1]["volume"]["id"], disks[1]["volume"].get("image")), (&volume["id"], None));

    // Unfinished, older, from the future, and from another instance.
    for (instance, generation, volumes) in [
        (&web, 2, json!([listed(&volume, 2, "preparing")])),
        (&web, 2, json!([listed(&volume, 1, "ready")])),
        (&web, 2, json!([listed(&volume, 3, "ready")])),
        (&other, 1, json!([listed(&volume, 2, "ready")])),
    ] {
        host.report_with(&instance["id"], generation, 1, running(), volumes.clone()).await;
        assert_eq!(state(&cloud, DATA).await, "attaching", "{volumes}");
    }
    assert_eq!(findings(&cloud).await, ["volume_in_two_instances", "volume_kept_by_another"]);
    host.report(&other["id"], 1, 1, running()).await;
    assert_eq!(operation(&cloud, &attached).await, "running");
    host.report(&web["id"], 2, 1, running()).await;
    assert_eq!(state(&cloud, DATA).await, "attached");
    assert_eq!(operation(&cloud, &attached).await, "succeeded");
    assert_eq!(detail(&cloud).await, None);
    attach(&cloud, "other", "data").await.expect_problem(409, "in_use");
    cloud.delete(DATA).await.expect_problem(409, "in_use");

    let detaching = detach(&cloud, "web", "data").await.expect(202);
    assert_eq!(
        detach(&cloud, "web", "data").await.expect(202)["operation"]["id"],
        detaching["operation"]["id"]
    );
    assert_eq!(host.disks(&web["id"]).await.unwrap().1.len(), 1);
    // Said before the host had heard of it.
    host.report_with(&web["id"], 2, 1, running(), json!([])).await;
    assert_eq!(state(&cloud, DATA).await, "detaching");
    host.report_with(&web["id"], 3, 1, running(), json!([listed(&volume, 2, "detaching")])).await;
    assert_eq!(state(&cloud, DATA).await, "detaching");
    attach(&cloud, "other", "data").await.expect_problem(409, "in_use");
    cloud.delete(DATA).await.expect_problem(409, "in_use");
    assert_eq!(operation(&cloud, &detaching).await, "running");
    assert!(detail(&cloud).await.unwrap().contains("force_detach_volume"));
    cloud.pass(60);
    let silent = detail(&cloud).await.unwrap();
    assert!(silent.starts_with("nothing is heard of its host") && !silent.contains("host-1"), "{silent}");
    host.report(&web["id"], 3, 1, running()).await;
    assert_eq!(state(&cloud, DATA).await, "available");
    assert_eq!(operation(&cloud, &detaching).await, "succeeded");

    // Back again: what was said of it before does not count.
    attach(&cloud, "web", "data").await.expect(202);
    host.report_with(&web["id"], 4, 1, running(), json!([listed(&volume, 2, "ready")])).await;
    assert_eq!(state(&cloud, DATA).await, "attaching");
    host.report(&web["id"], 4, 1, running()).await;
    assert_eq!(state(&cloud, DATA).await, "attached");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn size_and_limits_reach_the_guest_that_has_it() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = run(&cloud, &host, "web").await;
    data(&cloud).await;
    attach(&cloud, "web", "data").await.expect(202);
    host.report(&web["id"], 2, 1, running()).await;
    // A name concerns no host.
    let named = json!({"description": "ours", "delete_with_instance": true});
    cloud.call(Method::PATCH, DATA, Some(named)).await.expect(200);
    let grown =
        cloud.call(Method::PATCH, DATA, Some(json!({"size_gib": 4, "iops_limit": 900}))).await.expect(202);
    assert_eq!((&grown["state"], &grown["operation"]["kind"]), (&json!("updating"), &json!("update_volume")));
    let (generation, disks) = host.disks(&web["id"]).await.unwrap();
    assert_eq!((generation, &disks[1]["limits"]), (3, &json!({"iops": 900})));
    assert_eq!(disks[1]["volume"]["size_gib"], 4);
    let hosts = cloud.get("/v1/hosts").await.expect(200);
    assert_eq!(hosts["items"][0]["disk_gib"]["reserved"], 5);
    host.report_with(&web["id"], 3, 1, running(), json!([listed(&grown, 2, "ready")])).await;
    assert_eq!(operation(&cloud, &grown).await, "running");
    host.report(&web["id"], 3, 1, running()).await;
    assert_eq!(
        (state(&cloud, DATA).await, operation(&cloud, &grown).await),
        ("attached".into(), "succeeded".into())
    );
    let huge = cloud.call(Method::PATCH, DATA, Some(json!({"size_gib": 500}))).await;
    huge.expect_problem(409, "insufficient_capacity");
    cloud
        .call(Method::PATCH, DATA, Some(json!({"size_gib": 3})))
        .await
        .expect_problem(422, "validation_failed");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_an_instance_boots_from_changes_while_it_is_stopped() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = run(&cloud, &host, "web").await;
    let root = web["volumes"][0]["volume"]["name"].as_str().unwrap().to_owned();
    detach(&cloud, "web", &root).await.expect_problem(409, "wrong_state");
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    detach(&cloud, "web", &root).await.expect_problem(409, "wrong_state");
    host.report(&web["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;
    let detaching = detach(&cloud, "web", &root).await.expect(202);
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect_problem(409, "wrong_state");
    host.report(&web["id"], 3, 1, json!({"state": "stopped", "reason": "requested"})).await;
    assert_eq!(operation(&cloud, &detaching).await, "succeeded");
    assert_eq!(cloud.get(WEB).await.expect(200).get("root_disk_gib"), None);

    let attach_root = format!("{WEB}/attach_volume");
    data(&cloud).await;
    let empty = cloud.post(&attach_root, json!({"volume": "data", "root": true})).await;
    assert_eq!(empty.expect_problem(422, "validation_failed")["errors"][0]["code"], "not_bootable");
    cloud.post(&attach_root, json!({"volume": root, "root": true})).await.expect(202);
    cloud
        .post(&attach_root, json!({"volume": "data", "root": true}))
        .await
        .expect_problem(409, "wrong_state");
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    host.report(&web["id"], 5, 2, running()).await;
    let now = cloud.get(WEB).await.expect(200);
    assert_eq!((&now["state"], &now["root_disk_gib"]), (&json!("running"), &json!(1)));
    // It stays now when the instance goes.
    cloud.delete(WEB).await.expect(202);
    host.report(&web["id"], 6, 2, json!({"state": "absent"})).await;
    assert_eq!(state(&cloud, &format!("{VOLUMES}/{root}")).await, "available");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn without_a_host_it_is_done_at_once() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post(INSTANCES, instance("web")).await.expect(202);
    data(&cloud).await;
    attach(&cloud, "web", "data").await.expect(202);
    assert_eq!(state(&cloud, DATA).await, "attaching");
    cloud.call(Method::PATCH, DATA, Some(json!({"size_gib": 3}))).await.expect(200);
    let detached = detach(&cloud, "web", "data").await.expect(202);
    assert_eq!(operation(&cloud, &detached).await, "succeeded");
    assert_eq!(state(&cloud, DATA).await, "available");
    attach(&cloud, "web", "data").await.expect(202);
    cloud.delete(WEB).await.expect(202);
    assert_eq!(state(&cloud, DATA).await, "available");
    assert_eq!(count(&cloud, "SELECT count(*) FROM volumes").await, 1);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_digest_tells_of_every_volume_that_was_reported() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = cloud.post(INSTANCES, instance("web")).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let root = &web["volumes"][0]["volume"];
    // One that nobody knows is kept, too: the digest is over what was said.
    let unknown =
        json!({"id": "0190a0a0-0000-7000-8000-000000000001", "generation": 9, "state": "detaching"});
    let volumes = json!([listed(root, 1, "ready"), unknown]);
    host.report_with(&web["id"], 1, 1, running(), volumes).await;
    let line = |id: &Value, rest: &str| format!("{} {rest}\n", id.as_str().unwrap());
    let text = line(&web["id"], "1 1 running -")
        + "- "
        + &line(&root["id"], "1 ready")
        + "- 0190a0a0-0000-7000-8000-000000000001 9 detaching\n";
    let beat = async |text: &str| {
        let digest = hex::encode(sha2::Sha256::digest(text));
        let body = json!({"epoch": host.epoch, "hypervisor": {"status": "ok"}, "observed_digest": digest,
            "quarantined": 0});
        host.call(Method::POST, "/agent/v1/heartbeat", Some(body)).await.expect(200)["report_all"].clone()
    };
    assert_eq!(beat(&text).await, false);
    assert_eq!(beat(&text.replace("ready", "preparing")).await, true);
    assert_eq!(beat(&line(&web["id"], "1 1 running -")).await, true);
    let many = vec![listed(root, 1, "ready"); 65];
    let report = json!({"id": web["id"], "generation": 1, "boot": 1, "state": running(), "volumes": many});
    let body = json!({"epoch": host.epoch, "reports": [report]});
    host.call(Method::POST, "/agent/v1/observed", Some(body)).await.expect_problem(422, "validation_failed");
}

#[tokio::test]
async fn attaching_takes_a_right_to_both() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post(INSTANCES, instance("web")).await.expect(202);
    data(&cloud).await;
    let worker = cloud.user("worker", false).await;
    let allow = |actions: Value| json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]});
    let grant = async |name: &str, actions: Value| {
        let body = json!({"name": name, "document": allow(actions)});
        cloud.post("/v1/projects/demo/policies", body).await.expect(201);
        let body = json!({"policy": name, "user": "worker"});
        cloud.post("/v1/projects/demo/policy_attachments", body).await.expect(201);
    };
    let call = async |action: &str| {
        let path = format!("{WEB}/{action}");
        let headers = [("authorization", worker.as_str())];
        cloud.call_with(Method::POST, &path, &headers, Some(json!({"volume": "data"}))).await
    };
    grant("compute", json!(["compute:*"])).await;
    // It may not know of the volume.
    assert_eq!(
        call("attach_volume").await.expect_problem(422, "validation_failed")["errors"][0]["pointer"],
        "/volume"
    );
    grant("see", json!(["volume:GetVolume"])).await;
    let denied = call("attach_volume").await.expect_problem(403, "forbidden");
    assert_eq!(denied["denial"]["action"], "volume:AttachVolume");
    grant("lend", json!(["volume:AttachVolume"])).await;
    call("attach_volume").await.expect(202);
    let denied = call("detach_volume").await.expect_problem(403, "forbidden");
    assert_eq!(denied["denial"]["action"], "volume:DetachVolume");
    let mut more = instance("more");
    more["volumes"] = json!([{"size_gib": 1}]);
    let headers = [("authorization", worker.as_str())];
    let denied = cloud.call_with(Method::POST, INSTANCES, &headers, Some(more)).await;
    assert_eq!(denied.expect_problem(403, "forbidden")["denial"]["action"], "volume:CreateVolume");
}

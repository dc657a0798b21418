//! From the call to the word of the host.

use axum::http::Method;
use serde_json::json;

use super::{
    INSTANCES, SNAPSHOTS, VOLUMES, WEB, count, findings, follow, get, layers, operation, running, say,
    snapshot, stop, web,
};
use crate::snapshots::expire;
use crate::testing::TestCloud;

#[tokio::test]
async fn from_creation_to_deletion_without_a_host() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post(VOLUMES, json!({"name": "data", "size_gib": 2})).await.expect(201);
    for (body, pointer) in [
        (json!({}), "/volume"),
        (json!({"volume": "data", "instance": "web"}), "/instance"),
        (json!({"volume": "none"}), "/volume"),
        (json!({"instance": "none"}), "/instance"),
        (json!({"volume": "data", "consistency": "perfect"}), "/consistency"),
    ] {
        let refused = snapshot(&cloud, "one", body).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    let body = json!({"name": "one", "volume": "data", "labels": {"tier": "db"}, "description": "before"});
    let dry = cloud.post(&format!("{SNAPSHOTS}?dry_run=true"), body.clone()).await.expect(200);
    assert_eq!(dry["state"], "available");
    assert_eq!(layers(&cloud).await, 1);
    let key = [("idempotency-key", "one")];
    let made = cloud.call_with(Method::POST, SNAPSHOTS, &key, Some(body.clone())).await.expect(201);
    let again = cloud.call_with(Method::POST, SNAPSHOTS, &key, Some(body.clone())).await.expect(201);
    assert_eq!(made["id"], again["id"]);
    assert_eq!((&made["state"], &made["consistency"]), (&json!("available"), &json!("crash")));
    assert_eq!((&made["volumes"][0]["name"], &made["volumes"][0]["size_gib"]), (&json!("data"), &json!(2)));
    cloud.post(SNAPSHOTS, body).await.expect_problem(409, "name_taken");
    assert_eq!(layers(&cloud).await, 2);

    for (query, found) in
        [("label_selector=tier=db", 1), ("volume=data", 1), ("volume=other", 0), ("instance=web", 0)]
    {
        let listed = cloud.get(&format!("{SNAPSHOTS}?{query}")).await.expect(200);
        assert_eq!(listed["items"].as_array().unwrap().len(), found, "{query}");
    }
    let path = format!("{SNAPSHOTS}/one");
    let stale = cloud.call_with(Method::PATCH, &path, &[("if-match", "\"7.0\"")], Some(json!({}))).await;
    stale.expect_problem(412, "precondition_failed");
    let patch = json!({"name": "first", "description": "", "labels": {"tier": null}});
    let patched = cloud.call(Method::PATCH, &path, Some(patch)).await.expect(200);
    assert_eq!((&patched["name"], &patched["labels"]), (&json!("first"), &json!({})));

    // The data outlives its volume, and the project with it.
    cloud.delete(&format!("{VOLUMES}/data")).await.expect(204);
    assert_eq!(get(&cloud, "first").await["volumes"][0].get("id"), None);
    assert_eq!(layers(&cloud).await, 1);
    cloud.delete("/v1/projects/demo/images/image").await.expect(204);
    cloud.delete("/v1/projects/demo").await.expect_problem(409, "in_use");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    cloud.delete(&format!("{SNAPSHOTS}/first")).await.expect(204);
    cloud.get(&format!("{SNAPSHOTS}/first")).await.expect_problem(404, "not_found");
    assert_eq!(layers(&cloud).await, 0);
}

#[tokio::test]
async fn a_running_guest_has_its_snapshot_when_its_host_says_so() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    let taking = snapshot(&cloud, "one", json!({"instance": "web"})).await.expect(202);
    assert_eq!(
        (&taking["state"], &taking["operation"]["kind"]),
        (&json!("creating"), &json!("create_snapshot"))
    );
    assert_eq!(taking.get("taken_at"), None);
    let (generation, disks) = host.disks(&instance["id"]).await.unwrap();
    assert_eq!(generation, 2);
    for disk in &disks {
        assert_eq!(
            (&disk["volume"]["generation"], disk["volume"]["layers"].as_array().unwrap().len()),
            (&json!(2), 2)
        );
    }
    assert_eq!(host.desired(0).await["objects"][0]["freeze"], false);

    // One at a time, and nothing leaves meanwhile.
    let second = snapshot(&cloud, "two", json!({"volume": "data"})).await.expect_problem(409, "wrong_state");
    assert!(second["detail"].as_str().unwrap().contains("one"), "{second}");
    let detach = cloud.post(&format!("{WEB}/detach_volume"), json!({"volume": "data"})).await;
    detach.expect_problem(409, "wrong_state");
    // Half of it is nothing.
    let volume = |index: usize, generation: i64, state: &str| json!({"id": disks[index]["volume"]["id"], "generation": generation, "state": state});
    for volumes in [
        json!([volume(0, 2, "ready"), volume(1, 1, "ready")]),
        json!([volume(0, 2, "ready"), volume(1, 2, "preparing")]),
        json!([volume(0, 2, "ready")]),
    ] {
        host.report_with(&instance["id"], 2, 1, running(), volumes).await;
        let creating = get(&cloud, "one").await;
        assert_eq!(creating["state"], "creating");
        assert!(creating["state_detail"].as_str().unwrap().contains("is to take it"), "{creating}");
    }
    follow(&host, &instance, running()).await;
    let taken = get(&cloud, "one").await;
    assert_eq!((&taken["state"], &taken["instance"]["name"]), (&json!("available"), &json!("web")));
    assert_eq!(taken.get("state_detail"), None);
    assert_eq!(operation(&cloud, &taking).await["status"], "succeeded");
    assert_eq!(taken["instance"]["instance_type"]["name"], "tiny");
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());

    // A guest that does not run has its snapshot at once.
    stop(&cloud, &host, &instance).await;
    let at_once = snapshot(&cloud, "two", json!({"instance": "web", "consistency": "filesystem"})).await;
    assert_eq!(at_once.expect(201)["state"], "available");
    // Of one that is asked to start nobody knows.
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    let early = snapshot(&cloud, "three", json!({"instance": "web", "consistency": "filesystem"})).await;
    early.expect_problem(409, "wrong_state");
    snapshot(&cloud, "three", json!({"volume": "data"})).await.expect(202);
    cloud.delete(WEB).await.expect(202);
    snapshot(&cloud, "four", json!({"instance": "web"})).await.expect_problem(409, "wrong_state");
    // Whatever was written, it is all in the sealed layer now.
    host.report(&instance["id"], 7, 2, json!({"state": "absent"})).await;
    assert_eq!(get(&cloud, "three").await["state"], "available");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_a_guest_does_not_freeze_in_time_fails_and_says_why() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    let wanted = json!({"instance": "web", "consistency": "filesystem"});
    let taking = snapshot(&cloud, "one", wanted.clone()).await.expect(202);
    assert_eq!(host.desired(0).await["objects"][0]["freeze"], true);
    let report = json!({"id": instance["id"], "generation": 2, "boot": 1, "state": running(),
        "detail": "The guest agent does not answer.", "volumes": []});
    let body = json!({"epoch": host.epoch, "reports": [report]});
    host.call(Method::POST, "/agent/v1/observed", Some(body)).await.expect(200);
    cloud.pass(59);
    expire(&cloud.app).await.unwrap();
    assert_eq!(get(&cloud, "one").await["state"], "creating");
    cloud.pass(1);
    expire(&cloud.app).await.unwrap();
    let failed = get(&cloud, "one").await;
    assert_eq!(failed["state"], "failed");
    assert!(failed["failure"].as_str().unwrap().contains("agent does not answer"), "{failed}");
    assert_eq!(operation(&cloud, &taking).await["error"]["code"], "snapshot_failed");
    // A generation without it; what the host does now is no snapshot.
    let page = host.desired(0).await;
    assert_eq!(
        (&page["objects"][0]["generation"], &page["objects"][0]["freeze"]),
        (&json!(3), &json!(false))
    );
    follow(&host, &instance, running()).await;
    assert_eq!(get(&cloud, "one").await["state"], "failed");
    let clone = json!({"name": "clone", "source": {"snapshot": "one", "volume": "data"}});
    cloud.post(VOLUMES, clone).await.expect_problem(409, "wrong_state");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());

    // Frozen in time.
    snapshot(&cloud, "two", wanted.clone()).await.expect(202);
    follow(&host, &instance, running()).await;
    assert_eq!(get(&cloud, "two").await["state"], "available");
    // Its host says at once that nobody freezes anything. What it says of older disks is about something else.
    snapshot(&cloud, "refused", wanted.clone()).await.expect(202);
    for (behind, state) in [(1, "creating"), (0, "failed")] {
        let said = json!({"state": running(), "not_taken": "no_guest_agent"});
        say(&host, &instance, "preparing", behind, said).await;
        expire(&cloud.app).await.unwrap();
        assert_eq!(get(&cloud, "refused").await["state"], state);
    }
    let failed = get(&cloud, "refused").await;
    assert!(failed["failure"].as_str().unwrap().contains("no guest agent is connected"), "{failed}");
    // A guest that stands still freezes nothing.
    say(&host, &instance, "ready", 0, json!({"state": running(), "paused": "pool_full"})).await;
    let still = snapshot(&cloud, "still", wanted.clone()).await.expect_problem(409, "wrong_state");
    assert!(still["detail"].as_str().unwrap().contains("stands still"), "{still}");
    snapshot(&cloud, "still", json!({"instance": "web"})).await.expect(202);
    assert_eq!(get(&cloud, "still").await["state"], "creating");
    follow(&host, &instance, running()).await;
    assert_eq!(get(&cloud, "still").await["state"], "available");
    // A guest that went down before it could be frozen was not.
    snapshot(&cloud, "three", wanted.clone()).await.expect(202);
    follow(&host, &instance, json!({"state": "stopped", "reason": "guest_shutdown"})).await;
    assert_eq!(get(&cloud, "three").await["state"], "creating");
    expire(&cloud.app).await.unwrap();
    assert!(get(&cloud, "three").await["failure"].as_str().unwrap().contains("ended"));
    // Deleted while it is taken: nothing is frozen for it.
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    let (generation, _) = host.disks(&instance["id"]).await.unwrap();
    host.report(&instance["id"], generation, 2, running()).await;
    let dropped = snapshot(&cloud, "four", wanted).await.expect(202);
    assert_eq!(host.desired(0).await["objects"][0]["freeze"], true);
    cloud.delete(&format!("{SNAPSHOTS}/four")).await.expect(204);
    assert_eq!(host.desired(0).await["objects"][0]["freeze"], false);
    assert_eq!(operation(&cloud, &dropped).await["status"], "cancelled");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_project_has_only_so_many_and_only_its_own_and_chains_have_an_end() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    // Of an instance that waits for a host.
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny",
        "volumes": [{"size_gib": 1, "name": "data"}]});
    cloud.post(INSTANCES, body).await.expect(202);
    let made = snapshot(&cloud, "one", json!({"volume": "data"})).await.expect(201);
    let quotas = "/v1/projects/demo/quotas";
    cloud.call(Method::PATCH, quotas, Some(json!({"snapshots": 1}))).await.expect(200);
    let more = snapshot(&cloud, "two", json!({"volume": "data"})).await.expect_problem(409, "quota_exceeded");
    assert_eq!(more["quota"][0]["resource"], "snapshots");
    cloud.call(Method::PATCH, quotas, Some(json!({"snapshots": 50}))).await.expect(200);
    for n in 2..=20 {
        cloud.pass(1);
        snapshot(&cloud, &format!("s{n}"), json!({"volume": "data"})).await.expect(201);
    }
    let refused =
        snapshot(&cloud, "last", json!({"volume": "data"})).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("delete some"), "{refused}");
    assert_eq!(count(&cloud, "SELECT max(cardinality(chain_of(layer_id)))::bigint FROM volumes").await, 21);

    cloud.pass(5);
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    for name in [made["id"].as_str().unwrap(), "one"] {
        let path = format!("/v1/projects/other/snapshots/{name}");
        cloud.get(&path).await.expect_problem(404, "not_found");
        cloud.delete(&path).await.expect_problem(404, "not_found");
        cloud.post(&format!("{path}/restore"), json!({})).await.expect_problem(404, "not_found");
        let clone = json!({"name": "clone", "source": {"snapshot": name}});
        let refused = cloud.post("/v1/projects/other/volumes", clone).await;
        assert_eq!(
            refused.expect_problem(422, "validation_failed")["errors"][0]["pointer"],
            "/source/snapshot"
        );
        let instance = json!({"name": "web", "snapshot": name});
        cloud.post("/v1/projects/other/instances", instance).await.expect_problem(422, "validation_failed");
    }
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn two_at_once_and_beside_other_changes() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    for round in 0..6 {
        cloud.pass(1);
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        let grown = json!({"size_gib": 3 + round});
        let data = format!("{VOLUMES}/data");
        let (one, other, patched, merged) = tokio::join!(
            snapshot(&cloud, &a, json!({"instance": "web"})),
            snapshot(&cloud, &b, json!({"volume": "data"})),
            cloud.call(Method::PATCH, &data, Some(grown)),
            crate::volumes::merge(&cloud.app),
        );
        merged.unwrap();
        assert!([200, 202, 503].contains(&patched.status.as_u16()), "{patched:?}");
        let mut statuses = [one.status.as_u16(), other.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 409], "{one:?} {other:?}");
        follow(&host, &instance, running()).await;
        let won = if one.status == 202 { &a } else { &b };
        assert_eq!(get(&cloud, won).await["state"], "available");
        let path = format!("{SNAPSHOTS}/{won}");
        let (deleted, taken) = tokio::join!(
            cloud.delete(&path),
            cloud.post(
                VOLUMES,
                json!({"name": format!("c{round}"), "source": {"snapshot": won, "volume": "data"}})
            ),
        );
        deleted.expect(204);
        // Gone, or about to be merged.
        assert!([201, 409, 422].contains(&taken.status.as_u16()), "{taken:?}");
        assert_eq!(findings(&cloud).await, Vec::<String>::new());
    }
}

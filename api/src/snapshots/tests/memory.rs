//! Snapshots that hold the memory of a guest.

use axum::http::Method;
use serde_json::{Value, json};

use super::{
    INSTANCES, SNAPSHOTS, VOLUMES, WEB, count, findings, follow, get, operation, running, say, snapshot,
    stop, stopped, web,
};
use crate::snapshots::expire;
use crate::testing::{TestCloud, TestHost};

const RESERVED: &str = "SELECT sum(disk_gib_reserved) FROM hosts";
const MEMORIES: &str = "SELECT count(*) FROM layers WHERE memory_gib > 0 AND kept";

fn with_memory() -> Value {
    json!({"instance": "web", "memory": true})
}

/// What the host of `web` was told last.
async fn told(host: &TestHost<'_>, instance: &Value) -> Value {
    let objects = host.desired(0).await["objects"].as_array().unwrap().clone();
    objects.into_iter().find(|object| object["id"] == instance["id"]).unwrap()
}

async fn disk_used(cloud: &TestCloud) -> i64 {
    count(cloud, "SELECT used FROM project_quotas WHERE resource = 'disk_gib'").await
}

/// Takes one, as the host says.
async fn taken(cloud: &TestCloud, host: &TestHost<'_>, instance: &Value, name: &str) -> Value {
    snapshot(cloud, name, with_memory()).await.expect(202);
    let memory = told(host, instance).await["save_memory"]["file"]["id"].clone();
    say(host, instance, "ready", 0, json!({"state": running(), "saved_memory": memory})).await;
    let row = get(cloud, name).await;
    assert_eq!((&row["state"], &row["memory"]), (&json!("available"), &json!(true)));
    memory
}

#[tokio::test]
async fn it_is_there_with_its_memory_or_not_at_all() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    for (body, pointer) in [
        (json!({"volume": "data", "memory": true}), "/memory"),
        (json!({"instance": "web", "memory": true, "consistency": "filesystem"}), "/consistency"),
    ] {
        let refused = snapshot(&cloud, "one", body).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    let (before, used) = (count(&cloud, RESERVED).await, disk_used(&cloud).await);
    let body = json!({"name": "one", "instance": "web", "memory": true});
    let dry = cloud.post(&format!("{SNAPSHOTS}?dry_run=true"), body).await.expect(200);
    assert_eq!(dry["memory"], true);
    assert_eq!(count(&cloud, RESERVED).await, before);

    let taking = snapshot(&cloud, "one", with_memory()).await.expect(202);
    assert_eq!((&taking["state"], &taking["memory"]), (&json!("creating"), &json!(true)));
    assert_eq!(count(&cloud, RESERVED).await, before + 1);
    assert_eq!(disk_used(&cloud).await, used + 1);
    let spec = told(&host, &instance).await;
    let tops: Vec<_> =
        spec["disks"].as_array().unwrap().iter().map(|disk| disk["volume"]["layers"][1].clone()).collect();
    assert_eq!(spec["save_memory"]["above"], json!(tops));
    let memory = &spec["save_memory"]["file"]["id"];
    // Not with the layers that the guest still lacks.
    say(&host, &instance, "preparing", 0, json!({"state": running(), "saved_memory": memory})).await;
    assert_eq!(get(&cloud, "one").await["state"], "creating");
    say(&host, &instance, "ready", 0, json!({"state": running(), "saved_memory": memory})).await;
    assert_eq!(get(&cloud, "one").await["state"], "available");
    assert_eq!(operation(&cloud, &taking).await["status"], "succeeded");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());

    // The layers without the memory, or with another one; no room; silence; the end of the guest.
    for (name, said, state, why) in [
        ("without", json!({"state": running()}), "ready", "memory of the guest was not saved"),
        ("other", json!({"state": running(), "saved_memory": memory}), "ready", "was not saved"),
        ("full", json!({"state": running(), "not_taken": "no_room"}), "preparing", "too little room"),
        ("ended", json!({"state": {"state": "stopped", "reason": "crashed"}}), "ready", "was not saved"),
    ] {
        let taking = snapshot(&cloud, name, with_memory()).await.expect(202);
        say(&host, &instance, state, 0, said).await;
        expire(&cloud.app).await.unwrap();
        let failed = get(&cloud, name).await;
        assert_eq!(failed["state"], "failed", "{failed}");
        assert!(failed["failure"].as_str().unwrap().contains(why), "{failed}");
        assert_eq!(operation(&cloud, &taking).await["status"], "failed");
        assert_eq!(told(&host, &instance).await.get("save_memory"), None);
        assert_eq!((count(&cloud, MEMORIES).await, disk_used(&cloud).await), (1, used + 1), "{name}");
    }
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    // Of one that does not run there is none.
    snapshot(&cloud, "off", with_memory()).await.expect_problem(409, "wrong_state");
    // The host removes what it may have, and then the room is free again.
    assert_eq!(count(&cloud, RESERVED).await, before + 5);
    cloud.delete(&format!("{SNAPSHOTS}/one")).await.expect(204);
    assert_eq!(disk_used(&cloud).await, used);
    let removals = host.removals().await;
    let removed: Vec<_> = removals.into_iter().map(|order| order["removal_id"].clone()).collect();
    host.report_removed(json!(removed)).await;
    assert_eq!(count(&cloud, RESERVED).await, before);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn one_that_takes_too_long_or_too_much_comes_to_nothing() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    snapshot(&cloud, "slow", with_memory()).await.expect(202);
    cloud.pass(200);
    expire(&cloud.app).await.unwrap();
    assert_eq!(get(&cloud, "slow").await["state"], "creating");
    cloud.pass(300);
    expire(&cloud.app).await.unwrap();
    let failed = get(&cloud, "slow").await;
    assert!(failed["failure"].as_str().unwrap().contains("in time"), "{failed}");
    follow(&host, &instance, running()).await;
    // Deleted while it is taken.
    let dropped = snapshot(&cloud, "dropped", with_memory()).await.expect(202);
    cloud.delete(&format!("{SNAPSHOTS}/dropped")).await.expect(204);
    assert_eq!(operation(&cloud, &dropped).await["status"], "cancelled");
    assert_eq!(told(&host, &instance).await.get("save_memory"), None);
    assert_eq!(count(&cloud, MEMORIES).await, 0);
    follow(&host, &instance, running()).await;
    let quotas = "/v1/projects/demo/quotas";
    let used = disk_used(&cloud).await;
    cloud.call(Method::PATCH, quotas, Some(json!({"disk_gib": used}))).await.expect(200);
    let more = snapshot(&cloud, "more", with_memory()).await.expect_problem(409, "quota_exceeded");
    assert_eq!(more["quota"][0]["resource"], "disk_gib");
    cloud.call(Method::PATCH, quotas, Some(json!({"disk_gib": 1000}))).await.expect(200);
    sqlx::query("UPDATE hosts SET disk_gib_capacity = disk_gib_reserved")
        .execute(&cloud.app.pool)
        .await
        .unwrap();
    snapshot(&cloud, "more", with_memory()).await.expect_problem(409, "insufficient_capacity");
}

#[tokio::test]
async fn a_guest_goes_on_from_it_once() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    let memory = taken(&cloud, &host, &instance, "then").await;
    let path = format!("{SNAPSHOTS}/then");
    let restore = format!("{path}/restore");
    cloud.post(&restore, json!({})).await.expect_problem(409, "wrong_state");
    stop(&cloud, &host, &instance).await;
    for body in [json!({"volume": "data", "memory": true}), json!({"memory": 1})] {
        cloud.post(&restore, body).await.expect_problem(422, "validation_failed");
    }
    let dry = cloud.post(&format!("{restore}?dry_run=true"), json!({})).await;
    dry.expect(200);
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "stopped");

    cloud.post(&restore, json!({})).await.expect(202);
    let spec = told(&host, &instance).await;
    assert_eq!((&spec["power"], &spec["boot"]), (&json!("running"), &json!(2)));
    assert_eq!(spec["load_memory"]["id"], memory);
    let going = cloud.get(WEB).await.expect(200);
    assert_eq!(
        (&going["state"], &going["operation"]["kind"]),
        (&json!("provisioning"), &json!("restore_snapshot"))
    );
    let early = cloud.delete(&path).await.expect_problem(409, "wrong_state");
    assert!(early["detail"].as_str().unwrap().contains("about to go on"), "{early}");
    host.report(&instance["id"], spec["generation"].as_i64().unwrap(), 2, running()).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");
    assert_eq!(operation(&cloud, &going).await["status"], "succeeded");
    // The next boot is one.
    let report = async |state: Value| {
        let (generation, _) = host.disks(&instance["id"]).await.unwrap();
        let boot = told(&host, &instance).await["boot"].as_i64().unwrap();
        host.report(&instance["id"], generation, boot, state).await;
    };
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    report(stopped()).await;
    assert_eq!(told(&host, &instance).await.get("load_memory"), None);
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    assert_eq!(told(&host, &instance).await.get("load_memory"), None);
    report(running()).await;
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    report(stopped()).await;

    // Without its memory it is as any other, whatever has become of the rest.
    cloud.post(&restore, json!({"memory": false})).await.expect(200);
    cloud.post(&restore, json!({"volume": "data"})).await.expect(200);
    report(stopped()).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "stopped");
    // Of the same size, with other devices.
    let sata = "UPDATE instance_types SET hardware = hardware || '{\"disk_bus\": \"sata\"}'";
    let as_before = "UPDATE instance_types t SET hardware = s.hardware -> 'machine' FROM snapshots s
                     WHERE s.hardware IS NOT NULL";
    for (sql, refused) in [(sata, true), (as_before, false)] {
        sqlx::query(sql).execute(&cloud.app.pool).await.unwrap();
        let answer = cloud.post(&format!("{restore}?dry_run=true"), json!({})).await;
        if refused {
            let problem = answer.expect_problem(409, "wrong_state");
            assert!(
                problem["detail"].as_str().unwrap().contains("the hardware of its type changed"),
                "{problem}"
            );
        } else {
            answer.expect(200);
        }
    }
    cloud.call(Method::PATCH, &format!("{VOLUMES}/data"), Some(json!({"size_gib": 3}))).await;
    report(stopped()).await;
    let grown = cloud.post(&restore, json!({})).await.expect_problem(409, "wrong_state");
    let detail = grown["detail"].as_str().unwrap();
    assert!(detail.contains("its volumes or their sizes changed") && detail.contains("false"), "{grown}");
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "stopped");
    cloud.post(&restore, json!({"memory": false})).await.expect(200);
    let copy = json!({"name": "copy", "source": {"snapshot": "then", "volume": "data"}});
    cloud.post(VOLUMES, copy).await.expect(201);
    let twin = json!({"name": "twin", "snapshot": "then", "networks": []});
    cloud.post(INSTANCES, twin).await.expect(202);
    report(stopped()).await;
    cloud.delete(&path).await.expect(204);
    assert_eq!(count(&cloud, MEMORIES).await, 0);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

//! Instances that are stopped go to another host with what is on the disk of theirs.

use axum::http::Method;
use protocol::agent::{DISK_MOVES, Inventory};
use serde_json::{Value, json};

use super::{INSTANCES, VOLUMES, WEB, attach, execute, findings, instance, run};
use crate::instances::migration::look_after;
use crate::testing::{TestCloud, TestHost, inventory};

const MOVE: &str = "/v1/projects/demo/instances/web/move";

fn able(number: u8) -> Inventory {
    Inventory {
        features: vec![DISK_MOVES.to_owned()],
        underlay_address: Some([192, 0, 2, number].into()),
        ..inventory()
    }
}

fn stopped() -> Value {
    json!({"state": "stopped", "reason": "requested"})
}

/// `web` is stopped at its second generation on the first of two hosts, with a further volume of 2 GiB.
async fn two(cloud: &TestCloud) -> (Value, TestHost<'_>, TestHost<'_>) {
    cloud.furnish().await;
    let mut home = cloud.join_host("host-1").await;
    home.open_session_with(able(1)).await;
    let mut body = instance("web");
    body["volumes"] = json!([{"size_gib": 2, "name": "data"}]);
    let web = cloud.post(INSTANCES, body).await.expect(202);
    crate::instances::place_pending(&cloud.app).await.unwrap();
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    cloud.post(MOVE, json!({})).await.expect_problem(409, "wrong_state");
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    cloud.post(MOVE, json!({})).await.expect_problem(409, "wrong_state");
    home.report(&web["id"], 2, 1, stopped()).await;
    let mut away = cloud.join_host("host-2").await;
    // An agent that does not know of it is sent none, and told nothing.
    let refused = cloud.post(MOVE, json!({})).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("agent that takes disks"), "{refused}");
    away.open_session_with(able(2)).await;
    (web["id"].clone(), home, away)
}

pub(super) async fn order(host: &TestHost<'_>, kind: &str) -> Option<Value> {
    let page = host.desired(0).await;
    page["objects"].as_array().unwrap().iter().find(|object| object["kind"] == kind).cloned()
}

pub(super) async fn say(host: &TestHost<'_>, order: &Value, state: Value) {
    let report = json!([{"id": order["id"], "instance_id": order["instance_id"], "state": state}]);
    host.report_migrations(report).await.expect(200);
}

pub(super) fn ready(number: u8, port: u16) -> Value {
    json!({"kind": "ready", "address": format!("192.0.2.{number}:{port}")})
}

/// What is reserved on a host, in vCPUs, MiB and GiB.
pub(super) async fn reserved(cloud: &TestCloud, host: &TestHost<'_>) -> [i64; 3] {
    let host = cloud.get(&format!("/v1/hosts/{}", host.id)).await.expect(200);
    ["vcpus", "memory_mib", "disk_gib"].map(|what| host[what]["reserved"].as_i64().unwrap())
}

pub(super) async fn operation(cloud: &TestCloud, accepted: &Value) -> Value {
    let path = format!("/v1/projects/demo/operations/{}", accepted["operation"]["id"].as_str().unwrap());
    cloud.get(&path).await.expect(200)
}

/// Begins one up to where the source is told, and gives the answer and the orders of both.
async fn begun(cloud: &TestCloud, home: &TestHost<'_>, away: &TestHost<'_>) -> (Value, Value, Value) {
    let accepted = cloud.post(MOVE, json!({})).await.expect(202);
    let take = order(away, "take_disks").await.unwrap();
    assert_eq!(order(home, "give_disks").await, None, "nobody listens yet");
    say(away, &take, ready(2, 40000)).await;
    let give = order(home, "give_disks").await.unwrap();
    (accepted, take, give)
}

/// It is where it was: it starts there, and nothing is left at the other host when that has done what it is told.
async fn is_at_home(cloud: &TestCloud, id: &Value, home: &TestHost<'_>, away: &TestHost<'_>, layers: &Value) {
    assert_eq!((order(away, "take_disks").await, order(home, "give_disks").await), (None, None));
    let removal = order(away, "remove_layers").await.unwrap();
    assert_eq!(sorted(&removal["layers"]), sorted(layers));
    assert_eq!(order(home, "remove_layers").await, None, "its own");
    let generation = home.disks(id).await.unwrap().0;
    home.report(id, generation, 1, stopped()).await;
    let refused = cloud.post(MOVE, json!({})).await.expect_problem(409, "insufficient_capacity");
    assert!(refused.to_string().contains("leaving"), "{refused}");
    away.report_removed(json!([removal["removal_id"]])).await;
    let gone = order(away, "delete_instance").await.unwrap();
    away.report_with(id, gone["generation"].as_i64().unwrap(), 0, json!({"state": "absent"}), json!([]))
        .await;
    assert_eq!((order(away, "remove_layers").await, reserved(cloud, away).await), (None, [0, 0, 0]));
    let started = cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    let generation = home.disks(id).await.unwrap().0;
    home.report(id, generation, 2, json!({"state": "running"})).await;
    assert_eq!(operation(cloud, &started).await["status"], "succeeded");
    assert_eq!(findings(cloud).await, Vec::<String>::new());
}

pub(super) fn sorted(ids: &Value) -> Vec<String> {
    let mut ids: Vec<_> = ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn an_instance_goes_with_its_disks_and_is_in_one_place_at_each_moment() {
    let cloud = TestCloud::start().await;
    let (id, home, away) = two(&cloud).await;
    let dry = cloud.post(&format!("{MOVE}?dry_run=true"), json!({})).await.expect(200);
    assert_eq!(dry["operation"]["kind"], "move_instance");
    assert_eq!((order(&away, "take_disks").await, reserved(&cloud, &away).await), (None, [0, 0, 0]));
    let full = reserved(&cloud, &home).await;

    let accepted = cloud.post(MOVE, json!({})).await.expect(202);
    let take = order(&away, "take_disks").await.unwrap();
    let layers = take["layers"].as_array().unwrap();
    assert_eq!((layers.len(), &take["instance_id"], &take["source"]), (2, &id, &json!(home.id)));
    let with_image: Vec<_> = layers.iter().filter(|layer| layer.get("image").is_some()).collect();
    assert_eq!(with_image.len(), 1, "the other is an empty disk: {take}");
    let sha256 = with_image[0]["image"]["sha256"].as_str().unwrap();
    let blob = away.call(Method::GET, &format!("/agent/v1/blobs/{sha256}"), None).await;
    assert_eq!(blob.status.as_u16(), 200);
    assert!(away.disks(&id).await.is_none(), "nothing is made of it there");
    assert_eq!((reserved(&cloud, &home).await, reserved(&cloud, &away).await), (full, full));

    // Nothing of it changes meanwhile.
    home.report(&id, 3, 1, stopped()).await;
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect_problem(409, "wrong_state");
    cloud.post(VOLUMES, json!({"name": "more", "size_gib": 1})).await.expect(201);
    attach(&cloud, "web", "more").await.expect_problem(409, "wrong_state");
    super::detach(&cloud, "web", "data").await.expect_problem(409, "wrong_state");
    let grow = json!({"size_gib": 3});
    cloud.call(Method::PATCH, super::DATA, Some(grow)).await.expect_problem(409, "wrong_state");
    let snapshot = json!({"name": "now", "instance": "web"});
    cloud.post("/v1/projects/demo/snapshots", snapshot).await.expect_problem(409, "wrong_state");
    cloud.post(MOVE, json!({})).await.expect_problem(409, "wrong_state");

    // What either says that is not its to say is of no account.
    say(&home, &take, ready(1, 40000)).await;
    say(&away, &take, ready(1, 40000)).await;
    say(&away, &take, ready(2, 22)).await;
    say(&away, &take, json!({"kind": "received"})).await;
    assert_eq!(order(&home, "give_disks").await, None);
    say(&away, &take, ready(2, 40000)).await;
    let give = order(&home, "give_disks").await.unwrap();
    assert_eq!((&give["address"], &give["destination"]), (&json!("192.0.2.2:40000"), &json!(away.id)));
    assert_eq!(give["layers"].as_array().unwrap().len(), 2);
    let progress = json!({"kind": "transferring", "done_bytes": 250, "total_bytes": 1000});
    say(&home, &take, progress.clone()).await;
    say(&home, &take, json!({"kind": "received"})).await;
    say(&home, &take, json!({"kind": "handed_over"})).await;
    assert!(operation(&cloud, &accepted).await.get("progress").is_none());
    say(&away, &take, progress).await;
    assert_eq!(operation(&cloud, &accepted).await["progress_percent"], 25);
    assert!(home.disks(&id).await.is_some());

    say(&away, &take, json!({"kind": "received"})).await;
    say(&away, &take, json!({"kind": "received"})).await;
    let (generation, disks) = away.disks(&id).await.unwrap();
    assert_eq!((generation, disks.len(), home.disks(&id).await.is_none()), (4, 2, true));
    assert_eq!((reserved(&cloud, &home).await, reserved(&cloud, &away).await), ([0, 0, 0], full));
    let removal = order(&home, "remove_layers").await.unwrap();
    assert_eq!(sorted(&removal["layers"]), sorted(&give["layers"]));
    assert!(order(&home, "delete_instance").await.is_some() && order(&away, "remove_layers").await.is_none());
    assert_eq!(operation(&cloud, &accepted).await["status"], "running");
    away.report(&id, 4, 0, json!({"state": "stopped", "reason": "never_started"})).await;
    assert_eq!(operation(&cloud, &accepted).await["status"], "succeeded");
    let shown = cloud.get(WEB).await.expect(200);
    assert_eq!((&shown["state"], &shown["host"]["name"]), (&json!("stopped"), &json!("host-2")));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());

    // It does not go back while its first host has files of it, which are removed in their own time.
    let refused = cloud.post(MOVE, json!({})).await.expect_problem(409, "insufficient_capacity");
    assert!(refused.to_string().contains("leaving"), "{refused}");
    let absent = json!({"state": "absent"});
    home.report_with(&id, 4, 1, absent, json!([])).await;
    cloud.post(MOVE, json!({})).await.expect_problem(409, "insufficient_capacity");
    home.report_removed(json!([removal["removal_id"]])).await;
    assert_eq!(order(&home, "remove_layers").await, None);
    cloud.post(MOVE, json!({})).await.expect(202);
    assert!(order(&home, "take_disks").await.is_some());
}

#[tokio::test]
async fn whatever_fails_before_the_end_leaves_it_where_it_was() {
    for how in ["cancelled", "refused", "ended", "late", "changed", "dead", "older"] {
        let cloud = TestCloud::start().await;
        let (id, home, away) = two(&cloud).await;
        let (accepted, take, give) = begun(&cloud, &home, &away).await;
        let operation_path =
            format!("/v1/projects/demo/operations/{}", accepted["operation"]["id"].as_str().unwrap());
        match how {
            "cancelled" => {
                let done = cloud.post(&format!("{operation_path}/cancel"), json!({})).await.expect(200);
                assert_eq!(done["status"], "cancelled");
            }
            "refused" => say(&away, &take, json!({"kind": "refused", "detail": "No room."})).await,
            "ended" => {
                say(&away, &take, json!({"kind": "ended", "detail": "Not mine to say."})).await;
                assert_eq!(operation(&cloud, &accepted).await["status"], "running");
                say(&home, &take, json!({"kind": "ended", "detail": "Unreadable."})).await;
            }
            "late" => execute(&cloud, "UPDATE migrations SET due_at = due_at - interval '1 day'").await,
            "dead" => {
                execute(&cloud, "UPDATE hosts SET declared_dead_at = last_seen_at WHERE name = 'host-2'")
                    .await;
            }
            "older" => {
                execute(&cloud, "UPDATE hosts SET inventory = inventory - 'features' WHERE name = 'host-2'")
                    .await;
            }
            // As if something had changed of the disks in spite of all.
            _ => {
                execute(&cloud, "UPDATE migrations SET layers = layers[1:1]").await;
                say(&away, &take, json!({"kind": "received"})).await;
            }
        }
        look_after(&cloud.app).await.unwrap();
        let ended = operation(&cloud, &accepted).await;
        assert_ne!(ended["status"], "running", "{how}");
        // Its word comes too late.
        say(&away, &take, json!({"kind": "received"})).await;
        assert!(home.disks(&id).await.is_some(), "{how}: {ended}");
        if how == "dead" || how == "older" {
            execute(&cloud, "UPDATE hosts SET declared_dead_at = NULL").await;
            assert_eq!(order(&away, "take_disks").await, None);
            continue;
        }
        let layers = if how == "changed" { json!([give["layers"][0]]) } else { give["layers"].clone() };
        is_at_home(&cloud, &id, &home, &away, &layers).await;
    }
}

#[tokio::test]
async fn what_others_need_of_its_disks_keeps_it() {
    let cloud = TestCloud::start().await;
    let (_, home, away) = two(&cloud).await;
    let why = |refused: Value| refused["detail"].as_str().unwrap().to_owned();
    // A snapshot of its own goes along; a copy does not, as long as it shares the data.
    let snapshot = json!({"name": "before", "volume": "data"});
    cloud.post("/v1/projects/demo/snapshots", snapshot).await.expect(201);
    let (id, generation) = {
        let shown = cloud.get(WEB).await.expect(200);
        let id = shown["id"].clone();
        let generation = home.disks(&id).await.unwrap().0;
        (id, generation)
    };
    home.report(&id, generation, 1, stopped()).await;
    let copy = json!({"name": "copy", "source": {"volume": "data"}});
    cloud.post(VOLUMES, copy).await.expect(201);
    let generation = home.disks(&id).await.unwrap().0;
    home.report(&id, generation, 1, stopped()).await;
    let refused =
        cloud.post(&format!("{MOVE}?dry_run=true"), json!({})).await.expect_problem(409, "wrong_state");
    assert!(why(refused).contains("the volume copy"));
    cloud.delete(&format!("{VOLUMES}/copy")).await;
    if let Some(removal) = order(&home, "remove_layers").await {
        home.report_removed(json!([removal["removal_id"]])).await;
    }
    let accepted = cloud.post(MOVE, json!({})).await.expect(202);
    let take = order(&away, "take_disks").await.unwrap();
    assert!(take["layers"].as_array().unwrap().len() >= 3, "with the snapshot: {take}");
    say(&away, &take, ready(2, 40000)).await;
    say(&away, &take, json!({"kind": "received"})).await;
    let generation = away.disks(&id).await.unwrap().0;
    away.report(&id, generation, 0, json!({"state": "stopped", "reason": "never_started"})).await;
    assert_eq!(operation(&cloud, &accepted).await["status"], "succeeded");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    let restored = cloud.post("/v1/projects/demo/snapshots/before/restore", json!({})).await;
    assert!(restored.status.is_success());
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn who_names_the_host_is_an_operator_and_hears_why_it_does_not_take_it() {
    let cloud = TestCloud::start().await;
    let (_, _, away) = two(&cloud).await;
    run(&cloud, &away, "other").await;
    let errors = |refused: Value| refused["errors"].to_string();
    let none = cloud.post(MOVE, json!({"host": "nowhere"})).await.expect_problem(422, "validation_failed");
    assert!(errors(none).contains("not_found"));
    let itself = cloud.post(MOVE, json!({"host": "host-1"})).await.expect_problem(422, "validation_failed");
    assert!(errors(itself).contains("unfit"));
    execute(&cloud, "UPDATE hosts SET disk_gib_capacity = disk_gib_reserved WHERE name = 'host-2'").await;
    let full = cloud.post(MOVE, json!({"host": "host-2"})).await.expect_problem(422, "validation_failed");
    assert!(errors(full).contains("disk"));
    cloud.post(MOVE, json!({})).await.expect_problem(409, "insufficient_capacity");
    cloud.post(MOVE, json!({"host": "host-2", "no": 1})).await.expect_problem(422, "validation_failed");
    execute(&cloud, "UPDATE hosts SET disk_gib_capacity = 100 WHERE name = 'host-2'").await;
    cloud.post(MOVE, json!({"host": "host-2"})).await.expect(202);
    assert!(order(&away, "take_disks").await.is_some());
}

//! Instances that run go to another host with what is on the disk of theirs.

use axum::http::Method;
use protocol::agent::{DISK_MOVES, Inventory, LIVE_DISKS, LIVE_MIGRATION};
use serde_json::{Value, json};

use super::moving::{operation, order, ready, reserved, say, sorted};
use super::{INSTANCES, VOLUMES, WEB, attach, execute, findings, instance};
use crate::instances::migration::look_after;
use crate::testing::{TestCloud, TestHost, inventory};

const MIGRATE: &str = "/v1/projects/demo/instances/web/migrate";

fn able(number: u8, features: &[&str]) -> Inventory {
    Inventory {
        features: features.iter().map(|feature| (*feature).to_owned()).collect(),
        underlay_address: Some([192, 0, 2, number].into()),
        ..inventory()
    }
}

const ALL: [&str; 3] = [LIVE_MIGRATION, DISK_MOVES, LIVE_DISKS];

/// `web` runs on the first of two hosts, with a further volume of 2 GiB, of which there is a snapshot.
async fn two(cloud: &TestCloud) -> (Value, TestHost<'_>, TestHost<'_>) {
    cloud.furnish().await;
    let mut home = cloud.join_host("host-1").await;
    home.open_session_with(able(1, &ALL)).await;
    let mut body = instance("web");
    body["volumes"] = json!([{"size_gib": 2, "name": "data"}]);
    let web = cloud.post(INSTANCES, body).await.expect(202);
    crate::instances::place_pending(&cloud.app).await.unwrap();
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    let mut away = cloud.join_host("host-2").await;
    // An agent that knows only of either is sent none.
    away.open_session_with(able(2, &[LIVE_MIGRATION, DISK_MOVES])).await;
    cloud.post(MIGRATE, json!({})).await.expect_problem(409, "wrong_state");
    away.open_session_with(able(2, &ALL)).await;
    let snapshot = json!({"name": "before", "volume": "data"});
    cloud.post("/v1/projects/demo/snapshots", snapshot).await.expect(202);
    let generation = home.disks(&web["id"]).await.unwrap().0;
    runs(&home, &web["id"], generation).await;
    (web["id"].clone(), home, away)
}

async fn runs(host: &TestHost<'_>, id: &Value, generation: i64) {
    host.report(id, generation, 1, json!({"state": "running"})).await;
}

/// The host's part in it, as its specification says.
async fn part(host: &TestHost<'_>, id: &Value) -> Option<Value> {
    let page = host.desired(0).await;
    let mut objects = page["objects"].as_array().unwrap().iter();
    let spec = objects.find(|one| one["kind"] == "instance" && one["id"] == *id)?;
    spec.get("migration").cloned()
}

fn ids(layers: &Value, fresh: bool) -> Value {
    let all = layers.as_array().unwrap().iter();
    all.filter(|layer| layer.get("fresh").is_some() == fresh).map(|layer| layer["id"].clone()).collect()
}

/// Begins one up to where the destination has what the guest does not write to: gives the answer, both orders about files,
/// and the destination's part.
async fn copied(cloud: &TestCloud, away: &TestHost<'_>, id: &Value) -> (Value, Value, Value) {
    let accepted = cloud.post(MIGRATE, json!({})).await.expect(202);
    let take = order(away, "take_disks").await.unwrap();
    say(away, &take, ready(2, 40000)).await;
    say(away, &take, json!({"kind": "received"})).await;
    let incoming = part(away, id).await.unwrap();
    (accepted, take, incoming)
}

async fn say_of(host: &TestHost<'_>, migration: &Value, id: &Value, state: Value) {
    say(host, &json!({"id": migration["id"], "instance_id": id}), state).await;
}

#[tokio::test]
async fn a_guest_goes_with_its_disks_and_both_are_in_one_place_at_each_moment() {
    let cloud = TestCloud::start().await;
    let (id, home, away) = two(&cloud).await;
    let dry = cloud.post(&format!("{MIGRATE}?dry_run=true"), json!({})).await.expect(200);
    assert_eq!(dry["operation"]["kind"], "migrate_instance");
    assert_eq!((order(&away, "take_disks").await, reserved(&cloud, &away).await), (None, [0, 0, 0]));
    let full = reserved(&cloud, &home).await;

    let accepted = cloud.post(MIGRATE, json!({})).await.expect(202);
    let take = order(&away, "take_disks").await.unwrap();
    let layers = &take["layers"];
    let (fresh, sealed) = (ids(layers, true), ids(layers, false));
    assert_eq!((fresh.as_array().unwrap().len(), sealed.as_array().unwrap().len()), (2, 1), "{take}");
    let sha256 =
        layers.as_array().unwrap().iter().find_map(|layer| layer.get("image")).unwrap()["sha256"].clone();
    let blob = format!("/agent/v1/blobs/{}", sha256.as_str().unwrap());
    assert_eq!(away.call(Method::GET, &blob, None).await.status.as_u16(), 200);
    assert!(away.disks(&id).await.is_none(), "no guest is expected yet");
    assert_eq!((reserved(&cloud, &home).await, reserved(&cloud, &away).await), (full, full));
    say(&away, &take, ready(2, 40000)).await;
    let give = order(&home, "give_disks").await.unwrap();
    assert_eq!((&give["runs"], sorted(&give["layers"])), (&json!(true), sorted(&sealed)), "what is sealed");
    assert!(part(&home, &id).await.is_none());
    say(&away, &take, json!({"kind": "transferring", "done_bytes": 250, "total_bytes": 1000})).await;
    assert_eq!(operation(&cloud, &accepted).await["progress_percent"], 25);

    // Nothing of it changes meanwhile, and nothing begins to need its disks where they are.
    runs(&home, &id, home.disks(&id).await.unwrap().0).await;
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect_problem(409, "wrong_state");
    cloud.post(VOLUMES, json!({"name": "more", "size_gib": 1})).await.expect(201);
    attach(&cloud, "web", "more").await.expect_problem(409, "wrong_state");
    let copy = json!({"name": "copy", "source": {"snapshot": "before"}});
    cloud.post(VOLUMES, copy).await.expect_problem(409, "wrong_state");
    let image = json!({"name": "made", "source": {"snapshot": "before"}});
    cloud.post("/v1/projects/demo/images", image).await.expect_problem(409, "wrong_state");

    say(&away, &take, json!({"kind": "received"})).await;
    assert_eq!((order(&away, "take_disks").await, order(&home, "give_disks").await), (None, None));
    let incoming = part(&away, &id).await.unwrap();
    assert_eq!((&incoming["part"], part(&home, &id).await), (&json!("incoming"), None));
    // What is said of the files, late, is not of the guest.
    say(&away, &take, ready(2, 40000)).await;
    say(&home, &take, json!({"kind": "ended", "detail": "The connection has broken off."})).await;
    say(&away, &take, json!({"kind": "refused", "detail": "No."})).await;
    assert_eq!(
        (operation(&cloud, &accepted).await["status"].clone(), part(&home, &id).await),
        (json!("running"), None)
    );

    say_of(&away, &incoming, &id, ready(2, 40001)).await;
    let outgoing = part(&home, &id).await.unwrap();
    assert_eq!((&outgoing["part"], &outgoing["address"]), (&json!("outgoing"), &json!("192.0.2.2:40001")));
    say_of(&home, &incoming, &id, json!({"kind": "mirroring", "done_bytes": 30, "total_bytes": 100})).await;
    assert_eq!(operation(&cloud, &accepted).await["progress_percent"], 30);
    say_of(&home, &incoming, &id, json!({"kind": "transferring", "done_bytes": 10, "total_bytes": 100}))
        .await;
    assert_eq!(operation(&cloud, &accepted).await["progress_percent"], 10);
    let generation = home.disks(&id).await.unwrap().0;

    say_of(&home, &incoming, &id, json!({"kind": "handed_over"})).await;
    say_of(&home, &incoming, &id, json!({"kind": "handed_over"})).await;
    let (now, disks) = away.disks(&id).await.unwrap();
    assert_eq!((now, disks.len(), home.disks(&id).await.is_none()), (generation + 1, 2, true));
    assert_eq!((reserved(&cloud, &home).await, reserved(&cloud, &away).await), ([0, 0, 0], full));
    let removal = order(&home, "remove_layers").await.unwrap();
    let mut all = sorted(&fresh);
    all.extend(sorted(&sealed));
    all.sort();
    assert_eq!(sorted(&removal["layers"]), all);
    assert!(order(&home, "delete_instance").await.is_some() && order(&away, "remove_layers").await.is_none());
    runs(&away, &id, now).await;
    let done = operation(&cloud, &accepted).await;
    assert_eq!(done["status"], "succeeded");
    let steps: Vec<_> =
        done["trail"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    let wanted = [
        "authorised",
        "placed",
        "destination_ready",
        "copying",
        "received",
        "mirroring",
        "transferring",
        "handed_over",
    ];
    assert_eq!(steps, wanted);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    let restored = cloud.get("/v1/projects/demo/snapshots/before").await.expect(200);
    assert_eq!(restored["state"], "available");

    // It does not go back while its first host has files of it.
    home.report_with(&id, now, 1, json!({"state": "absent"}), json!([])).await;
    cloud.post(MIGRATE, json!({})).await.expect_problem(409, "insufficient_capacity");
    home.report_removed(json!([removal["removal_id"]])).await;
    cloud.post(MIGRATE, json!({})).await.expect(202);
    assert!(order(&home, "take_disks").await.is_some());
}

/// Where it fails, and how.
const FAULTS: [(&str, &str); 9] = [
    ("copying", "cancelled"),
    ("copying", "refused"),
    ("copying", "ended"),
    ("copying", "late"),
    ("copying", "changed"),
    ("waiting", "cancelled"),
    ("waiting", "refused"),
    ("sending", "cancelled"),
    ("sending", "ended"),
];

#[tokio::test]
async fn whatever_fails_before_it_is_handed_over_leaves_it_where_it_was() {
    for (stage, how) in FAULTS {
        let cloud = TestCloud::start().await;
        let (id, home, away) = two(&cloud).await;
        let (accepted, take, of) = if stage == "copying" {
            let accepted = cloud.post(MIGRATE, json!({})).await.expect(202);
            let take = order(&away, "take_disks").await.unwrap();
            say(&away, &take, ready(2, 40000)).await;
            (accepted, take.clone(), take)
        } else {
            let (accepted, take, incoming) = copied(&cloud, &away, &id).await;
            (accepted, take, json!({"id": incoming["id"], "instance_id": id}))
        };
        if stage == "sending" {
            say(&away, &of, ready(2, 40001)).await;
        }
        let operation_path =
            format!("/v1/projects/demo/operations/{}", accepted["operation"]["id"].as_str().unwrap());
        match how {
            "cancelled" => {
                cloud.post(&format!("{operation_path}/cancel"), json!({})).await.expect(200);
                if stage == "sending" {
                    assert_eq!(operation(&cloud, &accepted).await["status"], "running", "its source decides");
                    say(&home, &of, json!({"kind": "ended", "detail": "It was called off."})).await;
                }
                assert_eq!(operation(&cloud, &accepted).await["status"], "cancelled");
            }
            "refused" => say(&away, &of, json!({"kind": "refused", "detail": "No room."})).await,
            "ended" => say(&home, &of, json!({"kind": "ended", "detail": "The other disk is full."})).await,
            "late" => execute(&cloud, "UPDATE migrations SET due_at = due_at - interval '1 day'").await,
            _ => {
                // As if something had changed of the disks in spite of all.
                execute(&cloud, "UPDATE migrations SET layers = layers[1:2]").await;
                say(&away, &of, json!({"kind": "received"})).await;
            }
        }
        look_after(&cloud.app).await.unwrap();
        let ended = operation(&cloud, &accepted).await;
        assert_ne!(ended["status"], "running", "{stage} {how}");
        // Words that come too late.
        for late in ["received", "handed_over"] {
            say(&away, &of, json!({"kind": late})).await;
            say(&home, &of, json!({"kind": late})).await;
        }
        assert!(home.disks(&id).await.is_some() && away.disks(&id).await.is_none(), "{stage} {how}: {ended}");
        assert!(part(&home, &id).await.is_none(), "{stage} {how}");
        let removal = order(&away, "remove_layers").await.unwrap();
        if how != "changed" {
            let all = [ids(&take["layers"], true), ids(&take["layers"], false)];
            let mut all: Vec<_> = all.iter().flat_map(sorted).collect();
            all.sort();
            assert_eq!(sorted(&removal["layers"]), all, "{stage} {how}");
        }
        assert_eq!(order(&home, "remove_layers").await, None, "its own");
        let generation = home.disks(&id).await.unwrap().0;
        runs(&home, &id, generation).await;
        assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running", "{stage} {how}");
        cloud.post(MIGRATE, json!({})).await.expect_problem(409, "insufficient_capacity");
        away.report_removed(json!([removal["removal_id"]])).await;
        away.report_with(&id, generation, 0, json!({"state": "absent"}), json!([])).await;
        assert_eq!(reserved(&cloud, &away).await, [0, 0, 0]);
        assert_eq!(findings(&cloud).await, Vec::<String>::new(), "{stage} {how}");
        cloud.post(MIGRATE, json!({})).await.expect(202);
    }
}

#[tokio::test]
async fn what_others_need_of_its_disks_keeps_it() {
    let cloud = TestCloud::start().await;
    let (id, home, _) = two(&cloud).await;
    let copy = json!({"name": "copy", "source": {"snapshot": "before"}});
    cloud.post(VOLUMES, copy).await.expect(201);
    runs(&home, &id, home.disks(&id).await.unwrap().0).await;
    let refused =
        cloud.post(&format!("{MIGRATE}?dry_run=true"), json!({})).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("the volume copy"), "{refused}");
}

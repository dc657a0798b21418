//! What leaves, in which way, and what stays.

use axum::http::Method;
use protocol::agent::{DISK_MOVES, Inventory};
use serde_json::{Value, json};

use super::{
    HOST, INSTANCES, cordon, drain, evacuations, execute, findings, home, made, maintenance, obey, outline,
    state, stop, two, work,
};
use crate::instances::{evacuate, place_pending};
use crate::testing::{TestCloud, inventory};

fn rows<const N: usize>(rows: [[&str; 4]; N]) -> Vec<[String; 4]> {
    rows.map(|row| row.map(str::to_owned)).to_vec()
}

#[tokio::test]
async fn what_can_leave_leaves_and_the_rest_says_why_it_stays() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let [first, _] = &hosts;
    made(&cloud, first, "web", true).await;
    made(&cloud, first, "db", true).await;
    made(&cloud, first, "own", false).await;
    stop(&cloud, first, "db").await;
    cordon(&cloud, "host-2", false).await;
    let before = cloud.get(HOST).await.expect(200);
    assert_eq!(before["maintenance"], json!({"state": "none", "instances": 0, "left": 0, "remaining": []}));

    let planned =
        cloud.post(&format!("{HOST}/drain?dry_run=true"), json!({"stop_running": true})).await.expect(200);
    let expected = rows([
        ["db", "waiting", "move", "-"],
        ["own", "stays", "-", "local_volume"],
        ["web", "waiting", "restart_elsewhere", "-"],
    ]);
    assert_eq!(outline(&planned["evacuations"]), expected);
    assert_eq!(cloud.get(HOST).await.expect(200), before, "a dry run leaves nothing");

    let drained = drain(&cloud, false).await;
    assert_eq!((&drained["host"]["cordoned"], &drained["more"]), (&json!(true), &json!(false)));
    work(&cloud, &hosts).await;
    let expected = rows([
        ["db", "left", "move", "-"],
        ["own", "stays", "-", "local_volume"],
        ["web", "stays", "-", "running"],
    ]);
    assert_eq!(evacuations(&cloud).await, expected);
    assert_eq!((home(&cloud, "db").await, state(&cloud, "db").await), (json!("host-2"), json!("stopped")));
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-1"), json!("running")));

    drain(&cloud, true).await;
    work(&cloud, &hosts).await;
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-2"), json!("running")));
    let seen = maintenance(&cloud).await;
    assert_eq!(
        (&seen["state"], &seen["instances"], &seen["left"]),
        (&json!("draining"), &json!(3), &json!(2))
    );
    assert!(
        seen["remaining"][0]["message"].as_str().unwrap().contains("on the disk of this host alone"),
        "{seen}"
    );
    let stays = cloud.get(&format!("{HOST}/evacuations?phase=stays&limit=1")).await.expect(200);
    assert_eq!(outline(&stays["items"]), rows([["own", "stays", "-", "local_volume"]]));

    cloud.delete(&format!("{INSTANCES}/own")).await.expect(202);
    work(&cloud, &hosts).await;
    let seen = maintenance(&cloud).await;
    assert_eq!((&seen["state"], &seen["left"]), (&json!("drained"), &json!(3)));
    assert!(seen["drained_at"].is_string(), "{seen}");

    // It stays empty until that ends.
    let patch = json!({"cordoned": false});
    let refused = cloud.call(Method::PATCH, HOST, Some(patch)).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("end_maintenance"), "{refused}");
    let ended = cloud.post(&format!("{HOST}/end_maintenance"), json!({})).await.expect(200);
    assert_eq!((&ended["maintenance"]["state"], &ended["cordoned"]), (&json!("none"), &json!(false)));
    cloud.post(&format!("{HOST}/end_maintenance"), json!({})).await.expect_problem(409, "wrong_state");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn owners_read_what_was_done_and_of_no_host() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    made(&cloud, &hosts[0], "web", true).await;
    cordon(&cloud, "host-2", false).await;
    drain(&cloud, true).await;
    work(&cloud, &hosts).await;
    let operations = cloud.get("/v1/projects/demo/operations").await.expect(200);
    let of = |kind: &str| {
        operations["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["kind"] == kind)
            .unwrap_or_else(|| panic!("{kind}"))
    };
    for kind in ["stop_for_maintenance", "move_for_maintenance"] {
        let operation = of(kind);
        assert_eq!(operation["status"], "succeeded", "{operation}");
        let trail = operation["trail"].as_array().unwrap();
        assert!(trail.iter().any(|step| step["step"] == "host_maintenance"), "{operation}");
        assert!(!operation.to_string().contains("host-"), "{operation}");
    }
    let records = cloud.get("/v1/audit_records?limit=100").await.expect(200);
    let records: Vec<_> =
        records["items"].as_array().unwrap().iter().filter(|one| one["action"] == "host:DrainHost").collect();
    // The call, and each of the two steps.
    assert_eq!(records.len(), 3, "{records:?}");
    let events = cloud.get("/v1/events?limit=500").await;
    assert!(events.status.is_success());
}

#[tokio::test]
async fn few_leave_at_a_time() {
    let cloud = TestCloud::start().await;
    cloud.lift_quotas().await;
    let hosts = two(&cloud).await;
    for number in 0..6 {
        made(&cloud, &hosts[0], &format!("web-{number}"), true).await;
    }
    cordon(&cloud, "host-2", false).await;
    drain(&cloud, true).await;
    let replica = cloud.replica().await;
    let (one, other) = tokio::join!(evacuate(&cloud.app), evacuate(&replica.app));
    one.unwrap();
    other.unwrap();
    let stopping = async || evacuations(&cloud).await.into_iter().filter(|one| one[1] == "stopping").count();
    evacuate(&cloud.app).await.unwrap();
    assert_eq!(stopping().await, 4);
    // What hangs keeps its place, and no more follow.
    evacuate(&replica.app).await.unwrap();
    assert_eq!(stopping().await, 4);
    work(&cloud, &hosts).await;
    work(&cloud, &hosts).await;
    assert_eq!(maintenance(&cloud).await["state"], "drained");
    for number in 0..6 {
        let name = format!("web-{number}");
        assert_eq!(
            (home(&cloud, &name).await, state(&cloud, &name).await),
            (json!("host-2"), json!("running"))
        );
    }
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_finds_no_room_stays_until_there_is_some() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    made(&cloud, &hosts[0], "web", true).await;
    // The other host is cordoned still.
    let planned = drain(&cloud, true).await;
    assert_eq!(outline(&planned["evacuations"]), rows([["web", "stays", "-", "no_room"]]));
    let message = planned["evacuations"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("none of 2 hosts takes it: 2 cordoned"), "{message}");
    work(&cloud, &hosts).await;
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-1"), json!("running")));
    cordon(&cloud, "host-2", false).await;
    work(&cloud, &hosts).await;
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-2"), json!("running")));
    assert_eq!(maintenance(&cloud).await["state"], "drained");
}

#[tokio::test]
async fn what_was_shut_down_starts_again_when_the_room_is_gone() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    made(&cloud, &hosts[0], "web", true).await;
    cordon(&cloud, "host-2", false).await;
    drain(&cloud, true).await;
    evacuate(&cloud.app).await.unwrap();
    assert_eq!(state(&cloud, "web").await, "stopping");
    execute(
        &cloud,
        "UPDATE hosts SET vcpus_capacity = vcpus_reserved, vcpus_offered = 0 WHERE name = 'host-2'",
    )
    .await;
    obey(&hosts[0]).await;
    evacuate(&cloud.app).await.unwrap();
    obey(&hosts[0]).await;
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-1"), json!("running")));
    assert_eq!(evacuations(&cloud).await, rows([["web", "stays", "-", "no_room"]]));
    // It is not shut down again and again.
    execute(&cloud, "UPDATE hosts SET vcpus_capacity = 16, vcpus_offered = 16 WHERE name = 'host-2'").await;
    work(&cloud, &hosts).await;
    assert_eq!(home(&cloud, "web").await, "host-1");
    cloud.pass(601);
    for host in &hosts {
        host.beat(json!([super::fast()])).await.expect(200);
    }
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    work(&cloud, &hosts).await;
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-2"), json!("running")));
}

#[tokio::test]
async fn a_guest_that_has_ended_by_itself_stays_so_elsewhere() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let web = made(&cloud, &hosts[0], "web", true).await;
    hosts[0].report(&web["id"], 1, 1, json!({"state": "stopped", "reason": "guest_shutdown"})).await;
    cordon(&cloud, "host-2", false).await;
    let planned = drain(&cloud, false).await;
    assert_eq!(outline(&planned["evacuations"]), rows([["web", "waiting", "move", "-"]]));
    work(&cloud, &hosts).await;
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-2"), json!("stopped")));
}

#[tokio::test]
async fn what_is_on_its_disk_is_copied_before_it_leaves() {
    let cloud = TestCloud::start().await;
    let mut hosts = two(&cloud).await;
    for (host, number) in hosts.iter_mut().zip(1..) {
        host.open_session_with(able(number)).await;
        host.beat(json!([super::fast()])).await.expect(200);
    }
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    made(&cloud, &hosts[0], "own", false).await;
    made(&cloud, &hosts[0], "web", false).await;
    stop(&cloud, &hosts[0], "own").await;
    // Nowhere to go: nothing is shut down for that.
    drain(&cloud, true).await;
    work(&cloud, &hosts).await;
    let expected = rows([["own", "stays", "-", "no_room"], ["web", "stays", "-", "no_room"]]);
    assert_eq!(evacuations(&cloud).await, expected);
    assert_eq!(state(&cloud, "web").await, "running");
    cordon(&cloud, "host-2", false).await;
    let planned = cloud.post(&format!("{HOST}/drain?dry_run=true"), json!({})).await.expect(200);
    let expected = rows([["own", "waiting", "move", "-"], ["web", "stays", "-", "running"]]);
    assert_eq!(outline(&planned["evacuations"]), expected);

    drain(&cloud, true).await;
    evacuate(&cloud.app).await.unwrap();
    assert_eq!(
        (home(&cloud, "own").await, evacuations(&cloud).await[0][1].as_str()),
        (json!("host-1"), "moving")
    );
    evacuate(&cloud.app).await.unwrap();
    // The first try fails. It stays for a while, and is tried again.
    execute(&cloud, "SELECT end_migration(id) FROM instances WHERE name = 'own'").await;
    evacuate(&cloud.app).await.unwrap();
    assert_eq!(evacuations(&cloud).await[0][1..], ["stays", "-", "local_volume"]);
    work(&cloud, &hosts).await;
    work(&cloud, &hosts).await;
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-2"), json!("running")));
    assert_eq!(home(&cloud, "own").await, "host-1");
    cloud.pass(601);
    for host in &hosts {
        host.beat(json!([super::fast()])).await.expect(200);
    }
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    work(&cloud, &hosts).await;
    assert_eq!((home(&cloud, "own").await, state(&cloud, "own").await), (json!("host-2"), json!("stopped")));
    assert_eq!(maintenance(&cloud).await["state"], "drained");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

fn able(number: u8) -> Inventory {
    Inventory {
        features: vec![DISK_MOVES.to_owned()],
        underlay_address: Some([192, 0, 2, number].into()),
        ..inventory()
    }
}

#[tokio::test]
async fn of_a_dead_host_everything_in_pools_is_taken() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    made(&cloud, &hosts[0], "web", true).await;
    made(&cloud, &hosts[0], "own", false).await;
    cordon(&cloud, "host-2", false).await;
    drain(&cloud, true).await;
    evacuate(&cloud.app).await.unwrap();
    cloud.pass(30);
    hosts[1].beat(json!([super::fast()])).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    evacuate(&cloud.app).await.unwrap();
    let code = |found: Vec<[String; 4]>| found.into_iter().map(|one| one[3].clone()).collect::<Vec<_>>();
    assert_eq!(code(evacuations(&cloud).await), ["host_silent", "host_silent"]);
    cloud.post(&format!("{HOST}/declare_dead"), json!({"no_guest_runs": true})).await.expect(200);
    for _ in 0..3 {
        evacuate(&cloud.app).await.unwrap();
        place_pending(&cloud.app).await.unwrap();
        obey(&hosts[1]).await;
    }
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-2"), json!("running")));
    let remaining: Value = maintenance(&cloud).await["remaining"].clone();
    assert_eq!(outline(&remaining), rows([["own", "stays", "-", "local_volume"]]));
}

#[tokio::test]
async fn what_is_asked_is_checked() {
    let cloud = TestCloud::start().await;
    two(&cloud).await;
    let wrong = cloud.post(&format!("{HOST}/drain"), json!({"timeout_seconds": 0})).await;
    assert_eq!(wrong.expect_problem(422, "validation_failed")["errors"][0]["pointer"], "/timeout_seconds");
    cloud
        .post(&format!("{HOST}/drain"), json!({"force": true}))
        .await
        .expect_problem(422, "validation_failed");
    cloud.post("/v1/hosts/host-9/drain", json!({})).await.expect_problem(404, "not_found");
    cloud.get(&format!("{HOST}/evacuations?phase=gone")).await.expect_problem(400, "invalid_query");
    let key = [("idempotency-key", "one")];
    let first = cloud.call_with(Method::POST, &format!("{HOST}/drain"), &key, Some(json!({}))).await;
    let again = cloud.call_with(Method::POST, &format!("{HOST}/drain"), &key, Some(json!({}))).await;
    assert_eq!(first.expect(202), again.expect(202));
    // An empty host is drained at the next look, and one that was cordoned before stays so.
    crate::instances::evacuate(&cloud.app).await.unwrap();
    assert_eq!(maintenance(&cloud).await["state"], "drained");
    cordon(&cloud, "host-1", true).await;
    let ended = cloud.post(&format!("{HOST}/end_maintenance"), json!({})).await.expect(200);
    assert_eq!(ended["cordoned"], true);
}

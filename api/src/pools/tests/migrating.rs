//! Running guests that go from one host to another, with hosts that the test plays.

mod guarded;
mod meanwhile;

use protocol::agent::{Inventory, LIVE_MIGRATION};
use serde_json::{Value, json};

use super::{INSTANCES, WEB, directory, fast, findings, instance, made, two_with_the_pool};
use crate::instances::migration::look_after;
use crate::testing::{TestCloud, TestHost, inventory};

const MIGRATE: &str = "/v1/projects/demo/instances/web/migrate";

fn able(number: u8) -> Inventory {
    Inventory {
        features: vec![LIVE_MIGRATION.to_owned()],
        underlay_address: Some([192, 0, 2, number].into()),
        ..inventory()
    }
}

/// Two hosts between which guests go.
async fn two(cloud: &TestCloud) -> [TestHost<'_>; 2] {
    let mut hosts = two_with_the_pool(cloud).await;
    for (host, number) in hosts.iter_mut().zip(1..) {
        host.open_session_with(able(number)).await;
        host.beat(json!([fast(directory(1), 20)])).await.expect(200);
    }
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    hosts
}

/// `web` runs on one of them.
async fn running<'a, 'b>(
    cloud: &TestCloud,
    hosts: &'b [TestHost<'a>; 2],
) -> (Value, &'b TestHost<'a>, &'b TestHost<'a>) {
    let (web, home, away) = made(cloud, hosts, instance("web")).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    (web["id"].clone(), home, away)
}

fn address(hosts: &[TestHost<'_>; 2], of: &TestHost<'_>, port: u16) -> String {
    format!("192.0.2.{}:{port}", if of.id == hosts[0].id { 1 } else { 2 })
}

/// The specification that the host has of it.
async fn spec(host: &TestHost<'_>, id: &Value) -> Option<Value> {
    let page = host.desired(0).await;
    let mut objects = page["objects"].as_array().unwrap().iter();
    objects.find(|one| one["kind"] == "instance" && one["id"] == *id).cloned()
}

/// Whether the host is told to let go of it.
async fn lets_go(host: &TestHost<'_>, id: &Value) -> bool {
    let page = host.desired(0).await;
    page["objects"].as_array().unwrap().iter().any(|one| one["kind"] == "delete_instance" && one["id"] == *id)
}

async fn say(host: &TestHost<'_>, migration: &Value, id: &Value, state: Value) {
    let report = json!([{"id": migration, "instance_id": id, "state": state}]);
    host.report_migrations(report).await.expect(200);
}

async fn absent(host: &TestHost<'_>, id: &Value, generation: i64) {
    host.report_with(id, generation, 1, json!({"state": "absent"}), json!([])).await;
}

/// What is reserved on a host, in vCPUs and MiB.
async fn reserved(cloud: &TestCloud, host: &TestHost<'_>) -> (i64, i64) {
    let host = cloud.get(&format!("/v1/hosts/{}", host.id)).await.expect(200);
    (host["vcpus"]["reserved"].as_i64().unwrap(), host["memory_mib"]["reserved"].as_i64().unwrap())
}

async fn operation(cloud: &TestCloud, accepted: &Value) -> Value {
    let path = format!("/v1/projects/demo/operations/{}", accepted["operation"]["id"].as_str().unwrap());
    cloud.get(&path).await.expect(200)
}

/// Begins one, and gives the answer with the migration's id.
async fn begun(cloud: &TestCloud, away: &TestHost<'_>, id: &Value) -> (Value, Value) {
    let accepted = cloud.post(MIGRATE, json!({})).await.expect(202);
    let told = spec(away, id).await.unwrap();
    assert_eq!(told["migration"]["part"], "incoming", "{told}");
    (accepted, told["migration"]["id"].clone())
}

const FULL: (i64, i64) = (1, 256);
const EMPTY: (i64, i64) = (0, 0);

/// The host says that the guest runs, as a step of this operation.
async fn tell_running(host: &TestHost<'_>, id: &Value, generation: i64, accepted: &Value) {
    let step =
        json!({"operation_id": accepted["operation"]["id"], "step": "running", "at": "2027-01-01T00:00:00Z"});
    let report = json!({"id": id, "generation": generation, "boot": 1, "state": {"state": "running"}, "steps": [step]});
    let batch = json!({"epoch": host.epoch, "reports": [report]});
    host.call(axum::http::Method::POST, "/agent/v1/observed", Some(batch)).await;
}

fn steps(operation: &Value) -> Vec<String> {
    operation["trail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_guest_goes_and_is_on_one_host_at_each_moment() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let (id, home, away) = running(&cloud, &hosts).await;
    let dry = cloud.post(&format!("{MIGRATE}?dry_run=true"), json!({})).await.expect(200);
    assert_eq!(dry["operation"]["kind"], "migrate_instance");
    assert_eq!((spec(away, &id).await, reserved(&cloud, away).await), (None, EMPTY));

    let (accepted, migration) = begun(&cloud, away, &id).await;
    assert!(accepted.to_string().contains("migrate_instance"));
    assert!(spec(home, &id).await.unwrap().get("migration").is_none(), "the destination is not ready");
    assert_eq!((reserved(&cloud, home).await, reserved(&cloud, away).await), (FULL, FULL));
    tell_running(home, &id, 2, &accepted).await;
    home.report(&id, 2, 1, json!({"state": "running"})).await;
    assert_eq!(operation(&cloud, &accepted).await["status"], "running");

    // What either says that is not its to say, or of an address that is not its own, is of no account.
    say(home, &migration, &id, json!({"kind": "ready", "address": address(&hosts, home, 40000)})).await;
    say(away, &migration, &id, json!({"kind": "ready", "address": address(&hosts, home, 40000)})).await;
    say(away, &migration, &id, json!({"kind": "ready", "address": address(&hosts, away, 22)})).await;
    say(home, &migration, &id, json!({"kind": "handed_over"})).await;
    say(home, &json!(uuid::Uuid::nil()), &id, json!({"kind": "handed_over"})).await;
    assert!(spec(home, &id).await.unwrap().get("migration").is_none());
    say(away, &migration, &id, json!({"kind": "ready", "address": address(&hosts, away, 40000)})).await;
    let told = spec(home, &id).await.unwrap()["migration"].clone();
    assert_eq!(
        (&told["part"], &told["address"], &told["max_downtime_ms"]),
        (&json!("outgoing"), &json!(address(&hosts, away, 40000)), &json!(300))
    );
    let progress = json!({"kind": "transferring", "done_bytes": 250, "total_bytes": 1000});
    say(away, &migration, &id, progress.clone()).await;
    assert!(operation(&cloud, &accepted).await.get("progress").is_none());
    say(home, &migration, &id, progress).await;
    assert_eq!(operation(&cloud, &accepted).await["progress_percent"], 25);
    say(away, &migration, &id, json!({"kind": "handed_over"})).await;
    say(away, &migration, &id, json!({"kind": "ended", "detail": "no"})).await;
    assert_eq!(spec(home, &id).await.unwrap()["migration"]["part"], "outgoing");

    say(home, &migration, &id, json!({"kind": "handed_over"})).await;
    say(home, &migration, &id, json!({"kind": "handed_over"})).await;
    let own = spec(away, &id).await.unwrap();
    assert_eq!((own.get("migration"), &own["boot"], &own["generation"]), (None, &json!(1), &json!(3)));
    assert_eq!((spec(home, &id).await, lets_go(home, &id).await), (None, true));
    assert_eq!((reserved(&cloud, home).await, reserved(&cloud, away).await), (EMPTY, FULL));
    assert_eq!(operation(&cloud, &accepted).await["status"], "running");
    cloud.pass(1);
    tell_running(away, &id, 3, &accepted).await;
    away.report(&id, 3, 1, json!({"state": "running"})).await;
    let done = operation(&cloud, &accepted).await;
    assert_eq!(done["status"], "succeeded");
    let steps = steps(&done);
    assert_eq!(
        steps,
        ["authorised", "placed", "destination_ready", "transferring", "handed_over", "running"]
    );
    // It does not go back before its old host has let go of it.
    cloud.post(MIGRATE, json!({})).await.expect_problem(409, "insufficient_capacity");
    absent(home, &id, 3).await;
    assert!(!lets_go(home, &id).await);
    assert_eq!(findings(&cloud).await, [""; 0]);
    let (_, back) = begun(&cloud, home, &id).await;
    assert_ne!(back, migration);
}

#[tokio::test]
async fn it_is_cancelled_at_once_before_the_source_knows_and_by_the_source_after_that() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let (id, home, away) = running(&cloud, &hosts).await;
    let cancel = async |accepted: &Value| {
        let path =
            format!("/v1/projects/demo/operations/{}/cancel", accepted["operation"]["id"].as_str().unwrap());
        cloud.post(&path, json!({})).await
    };
    let (accepted, _) = begun(&cloud, away, &id).await;
    cancel(&accepted).await.expect(200);
    let done = operation(&cloud, &accepted).await;
    assert_eq!((&done["status"], &done["error"]["code"]), (&json!("cancelled"), &json!("cancelled")));
    assert_eq!((spec(away, &id).await, lets_go(away, &id).await), (None, true));
    assert_eq!((reserved(&cloud, home).await, reserved(&cloud, away).await), (FULL, EMPTY));
    absent(away, &id, 2).await;

    for (last_word, status) in [("ended", "cancelled"), ("handed_over", "running")] {
        home.report(
            &id,
            spec(home, &id).await.unwrap()["generation"].as_i64().unwrap(),
            1,
            json!({"state": "running"}),
        )
        .await;
        let (accepted, migration) = begun(&cloud, away, &id).await;
        let ready = json!({"kind": "ready", "address": address(&hosts, away, 40000)});
        say(away, &migration, &id, ready).await;
        cancel(&accepted).await.expect(200);
        assert_eq!(operation(&cloud, &accepted).await["status"], "running", "the source has not answered");
        assert_eq!(spec(home, &id).await.unwrap()["migration"]["cancelled"], true);
        let word = match last_word {
            "ended" => json!({"kind": "ended", "detail": "It was called off."}),
            word => json!({"kind": word}),
        };
        say(home, &migration, &id, word).await;
        assert_eq!(operation(&cloud, &accepted).await["status"], status);
        let generation = spec(home, &id).await.map(|spec| spec["generation"].as_i64().unwrap());
        assert_eq!(generation.is_some(), last_word == "ended");
        if let Some(generation) = generation {
            assert!(spec(home, &id).await.unwrap().get("migration").is_none());
            absent(away, &id, generation).await;
        } else {
            cancel(&accepted).await.expect_problem(409, "wrong_state");
        }
    }
}

#[tokio::test]
async fn what_stands_in_the_way_is_said_and_changes_nothing() {
    let cloud = TestCloud::start().await;
    let mut hosts = two(&cloud).await;
    let (id, home, away) = running(&cloud, &hosts).await;
    let (away_id, home_id) = (away.id, home.id);
    for (body, code) in [
        (json!({"host": "nowhere"}), "not_found"),
        (json!({"host": home_id}), "unfit"),
        (json!({"max_downtime_ms": 1}), "out_of_range"),
        (json!({"hots": "x"}), "invalid"),
    ] {
        let refused = cloud.post(MIGRATE, body).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["code"], code, "{refused}");
    }
    let cordon = |cordoned: bool| json!({"cordoned": cordoned});
    let host = format!("/v1/hosts/{away_id}");
    cloud.call(axum::http::Method::PATCH, &host, Some(cordon(true))).await.expect(200);
    let refused =
        cloud.post(MIGRATE, json!({"host": away_id})).await.expect_problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["code"], "cordoned", "{refused}");
    assert_eq!(refused["errors"][0]["message"], "it is cordoned");
    let kept = |taints: Value| json!({"taints": taints, "cordoned": false});
    cloud.call(axum::http::Method::PATCH, &host, Some(kept(json!(["onlygpu"])))).await.expect(200);
    let refused =
        cloud.post(MIGRATE, json!({"host": away_id})).await.expect_problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["message"], "type tiny does not tolerate onlygpu", "{refused}");
    cloud.call(axum::http::Method::PATCH, &host, Some(kept(json!([])))).await.expect(200);
    cloud.call(axum::http::Method::PATCH, &host, Some(cordon(true))).await.expect(200);
    let nowhere = cloud.post(MIGRATE, json!({})).await.expect_problem(409, "insufficient_capacity");
    assert_eq!(nowhere["placement"]["rejections"][0]["reason"], "cordoned");
    cloud.call(axum::http::Method::PATCH, &host, Some(cordon(false))).await.expect(200);

    // Somebody in the project only.
    let member = cloud.user("member", false).await;
    let headers = [("authorization", member.as_str())];
    let stranger = cloud.call_with(axum::http::Method::POST, MIGRATE, &headers, Some(json!({}))).await;
    assert_ne!(stranger.status, 202);

    let local = json!({"name": "local", "image": "image", "instance_type": "tiny", "networks": []});
    let local = cloud.post(INSTANCES, local).await.expect(202);
    crate::instances::place_pending(&cloud.app).await.unwrap();
    for host in &hosts {
        host.report(&local["id"], 1, 1, json!({"state": "running"})).await;
    }
    let refused = cloud.post("/v1/projects/demo/instances/local/migrate", json!({})).await;
    let refused = refused.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("disks on their host"), "{refused}");

    // Another QEMU on the other side.
    let index = usize::from(hosts[1].id == away_id);
    let newer = Inventory { hypervisor: "newer".to_owned(), ..able(u8::try_from(index).unwrap() + 1) };
    hosts[index].open_session_with(newer).await;
    let refused =
        cloud.post(MIGRATE, json!({"host": away_id})).await.expect_problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["code"], "unfit", "{refused}");
    cloud.post(MIGRATE, json!({})).await.expect_problem(409, "wrong_state");
    let still =
        json!({"id": id, "generation": 1, "boot": 1, "state": {"state": "running"}, "paused": "pool_full"});
    let home = &hosts[1 - index];
    let body = json!({"epoch": home.epoch, "reports": [still]});
    home.call(axum::http::Method::POST, "/agent/v1/observed", Some(body)).await.expect(200);
    cloud.post(MIGRATE, json!({})).await.expect_problem(409, "wrong_state");
    assert_eq!(findings(&cloud).await, ["host_instances_paused"]);
}

#[tokio::test]
async fn meanwhile_it_is_deleted_or_its_power_is_cut_and_nothing_else() {
    for sent in [false, true] {
        let cloud = TestCloud::start().await;
        let hosts = two(&cloud).await;
        let (id, home, away) = running(&cloud, &hosts).await;
        let begin = async || {
            let (_, migration) = begun(&cloud, away, &id).await;
            if sent {
                let ready = json!({"kind": "ready", "address": address(&hosts, away, 40000)});
                say(away, &migration, &id, ready).await;
            }
            migration
        };
        let migration = begin().await;
        for (verb, body) in
            [("stop", json!({})), ("reboot", json!({})), ("pause", json!({})), ("migrate", json!({}))]
        {
            cloud.post(&format!("{WEB}/{verb}"), body).await.expect_problem(409, "wrong_state");
        }
        let renamed = cloud.call(axum::http::Method::PATCH, WEB, Some(json!({"name": "other"}))).await;
        renamed.expect_problem(409, "wrong_state");
        cloud.post(&format!("{WEB}/stop"), json!({"force": true})).await.expect(202);
        assert_eq!((spec(away, &id).await, lets_go(away, &id).await), (None, true));
        let told = spec(home, &id).await.unwrap();
        assert_eq!((told.get("migration"), &told["power"]), (None, &json!("stopped")));
        // Too late: it is not handed over to anybody.
        say(home, &migration, &id, json!({"kind": "handed_over"})).await;
        assert!(spec(home, &id).await.is_some());
        assert_eq!((reserved(&cloud, home).await, reserved(&cloud, away).await), (FULL, EMPTY));
        absent(away, &id, told["generation"].as_i64().unwrap()).await;
        let generation = told["generation"].as_i64().unwrap();
        home.report(&id, generation, 1, json!({"state": "stopped", "reason": "requested"})).await;
        cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
        home.report(&id, generation + 1, 2, json!({"state": "running"})).await;

        begin().await;
        cloud.delete(WEB).await.expect(202);
        assert!(lets_go(home, &id).await && lets_go(away, &id).await);
        assert_eq!(reserved(&cloud, away).await, EMPTY);
        absent(home, &id, generation + 3).await;
        absent(away, &id, generation + 3).await;
        cloud.get(WEB).await.expect_problem(404, "not_found");
        assert_eq!(findings(&cloud).await, [""; 0]);
    }
}

#[tokio::test]
async fn time_and_dead_hosts_end_it() {
    for (dead, sent) in
        [(None, false), (None, true), (Some("home"), true), (Some("away"), false), (Some("away"), true)]
    {
        let cloud = TestCloud::start().await;
        let hosts = two(&cloud).await;
        let (id, home, away) = running(&cloud, &hosts).await;
        let (accepted, migration) = begun(&cloud, away, &id).await;
        if sent {
            say(away, &migration, &id, json!({"kind": "ready", "address": address(&hosts, away, 40000)}))
                .await;
        }
        look_after(&cloud.app).await.unwrap();
        assert_eq!(operation(&cloud, &accepted).await["status"], "running");
        let lost = match dead {
            Some("home") => Some(home),
            Some(_) => Some(away),
            None => None,
        };
        cloud.pass(if lost.is_some() { 30 } else { 601 });
        if let Some(lost) = lost {
            let path = format!("/v1/hosts/{}/declare_dead", lost.id);
            cloud.post(&path, json!({"no_guest_runs": true})).await.expect(200);
        }
        look_after(&cloud.app).await.unwrap();
        look_after(&cloud.app).await.unwrap();
        let by_the_source = sent && dead != Some("home");
        if by_the_source {
            assert_eq!(operation(&cloud, &accepted).await["status"], "running", "{dead:?}");
            assert_eq!(spec(home, &id).await.unwrap()["migration"]["cancelled"], true);
            say(home, &migration, &id, json!({"kind": "ended", "detail": "It was called off."})).await;
        }
        let done = operation(&cloud, &accepted).await;
        let code = if dead.is_none() { "migration_timed_out" } else { "migration_failed" };
        assert_eq!(
            (&done["status"], &done["error"]["code"]),
            (&json!("failed"), &json!(code)),
            "{dead:?} {sent}"
        );
        // It runs where it was, which is no step of its way.
        if dead != Some("home") {
            let generation = spec(home, &id).await.map_or(2, |spec| spec["generation"].as_i64().unwrap());
            tell_running(home, &id, generation, &accepted).await;
        }
        assert!(!steps(&operation(&cloud, &accepted).await).contains(&"running".to_owned()));
        if dead.is_none() {
            let stood = if sent { "was being transferred" } else { "was not ready for the guest" };
            assert!(done["error"]["detail"].as_str().unwrap().contains(stood), "{done}");
        }
        assert_eq!(reserved(&cloud, away).await, EMPTY);
    }
}

#[tokio::test]
async fn of_two_calls_at_once_one_begins_it() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let (_, home, away) = running(&cloud, &hosts).await;
    let (one, other) = tokio::join!(cloud.post(MIGRATE, json!({})), cloud.post(MIGRATE, json!({})));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409]);
    assert_eq!((reserved(&cloud, home).await, reserved(&cloud, away).await), (FULL, FULL));
}

//! What else happens while a guest is on its way, or is about to go.

use axum::http::Method;
use serde_json::{Value, json};

use super::super::merging::{asked, asked_of, report, root};
use super::super::{WEB, execute};
use super::{
    EMPTY, MIGRATE, able, absent, address, begun, fast, findings, lets_go, operation, reserved, running, say,
    spec, two,
};
use crate::hosts::watch_for_silence;
use crate::instances::migration::{look_after, look_after_one};
use crate::instances::store::migrations::{Stuck, stuck};
use crate::instances::{end_leases, evacuate};
use crate::snapshot_schedules;
use crate::testing::{TestCloud, TestHost};
use crate::volumes::merge;

const SCHEDULES: &str = "/v1/projects/demo/snapshot_schedules";

fn up() -> Value {
    json!({"state": "running"})
}

async fn generation(host: &TestHost<'_>, id: &Value) -> i64 {
    spec(host, id).await.unwrap()["generation"].as_i64().unwrap()
}

/// Both are heard of now, and nothing is left of the instance where it is not.
async fn heard(cloud: &TestCloud, hosts: &[TestHost<'_>; 2]) {
    for host in hosts {
        host.beat(json!([fast(super::directory(1), 20)])).await.expect(200);
    }
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
}

async fn seen(cloud: &TestCloud) -> Vec<Stuck> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    stuck(&mut conn, None, cloud.app.clock.now()).await.unwrap()
}

/// A replica that has slept since it saw this goes on.
async fn go_on(cloud: &TestCloud, seen: &[Stuck]) {
    let mut tx = cloud.app.begin().await.unwrap();
    assert_eq!(seen.len(), 1);
    look_after_one(&mut tx, &seen[0], cloud.app.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn what_was_seen_of_an_earlier_migration_ends_no_later_one() {
    for dead in [false, true] {
        let cloud = TestCloud::start().await;
        let mut hosts = two(&cloud).await;
        let (id, home, away) = running(&cloud, &hosts).await;
        let (home_index, home_id) = (usize::from(hosts[1].id == home.id), home.id);
        let (first, _) = begun(&cloud, away, &id).await;
        cloud.pass(if dead { 30 } else { 601 });
        if dead {
            let path = format!("/v1/hosts/{home_id}/declare_dead");
            cloud.post(&path, json!({"no_guest_runs": true})).await.expect(200);
        }
        let seen = seen(&cloud).await;
        look_after(&cloud.app).await.unwrap();
        assert_eq!(operation(&cloud, &first).await["status"], "failed");

        let number = u8::try_from(home_index).unwrap() + 1;
        hosts[home_index].open_session_with(able(number)).await;
        let (home, away) = (&hosts[home_index], &hosts[1 - home_index]);
        heard(&cloud, &hosts).await;
        let now = generation(home, &id).await;
        absent(away, &id, now).await;
        home.report(&id, now, 1, up()).await;
        let (second, migration) = begun(&cloud, away, &id).await;
        say(away, &migration, &id, json!({"kind": "ready", "address": address(&hosts, away, 40000)})).await;
        go_on(&cloud, &seen).await;
        assert_eq!(operation(&cloud, &second).await["status"], "running", "{dead}");
        let told = spec(home, &id).await.unwrap();
        assert_eq!(told["migration"]["part"], "outgoing", "{told}");
        assert_eq!(told["migration"].get("cancelled"), None, "{told}");
        say(home, &migration, &id, json!({"kind": "handed_over"})).await;
        assert!(spec(away, &id).await.unwrap().get("migration").is_none());
        assert_eq!(findings(&cloud).await, [""; 0]);
    }
}

#[tokio::test]
async fn what_is_not_so_any_more_ends_none() {
    let cloud = TestCloud::start().await;
    let mut hosts = two(&cloud).await;
    let (id, home, away) = running(&cloud, &hosts).await;
    let index = usize::from(hosts[1].id == home.id);
    let (accepted, migration) = begun(&cloud, away, &id).await;
    say(away, &migration, &id, json!({"kind": "ready", "address": address(&hosts, away, 40000)})).await;
    cloud.pass(30);
    let path = format!("/v1/hosts/{}/declare_dead", home.id);
    cloud.post(&path, json!({"no_guest_runs": true})).await.expect(200);
    let seen = seen(&cloud).await;
    // It was not dead after all.
    hosts[index].open_session_with(able(u8::try_from(index).unwrap() + 1)).await;
    go_on(&cloud, &seen).await;
    assert_eq!(operation(&cloud, &accepted).await["status"], "running");
    assert_eq!(spec(&hosts[index], &id).await.unwrap()["migration"]["part"], "outgoing");
}

#[tokio::test]
async fn nothing_goes_before_what_was_merged_is_taken_in() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let (web, home, _) = asked(&cloud, &hosts, &["one", "two"]).await;
    let maintenance = format!("/v1/hosts/{}", home.id);
    for merged in [false, true] {
        let (_, disk) = root(home, &web).await;
        let merges = if merged { disk["merges"].clone() } else { json!([]) };
        report(home, &web, up(), merges).await;
        let refused = cloud.post(MIGRATE, json!({})).await.expect_problem(409, "wrong_state");
        assert!(refused["detail"].as_str().unwrap().contains("merging"), "{refused}");
        cloud.post(&format!("{maintenance}/drain"), json!({})).await.expect(202);
        evacuate(&cloud.app).await.unwrap();
        let told = cloud.get(&format!("{maintenance}/evacuations")).await.expect(200);
        assert_eq!(told["items"][0]["code"], "merging", "{told}");
        cloud.post(&format!("{maintenance}/end_maintenance"), json!({})).await.expect(200);
    }
    merge(&cloud.app).await.unwrap();
    report(home, &web, up(), json!([])).await;
    cloud.post(MIGRATE, json!({})).await.expect(202);
}

#[tokio::test]
async fn one_merge_that_cannot_be_taken_in_keeps_no_other_waiting() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let mut merging = Vec::new();
    for (name, snapshots) in [("web", ["one", "two"]), ("other", ["three", "four"])] {
        let (instance, home, _) = asked_of(&cloud, &hosts, name, &snapshots).await;
        merging.push((instance, home));
    }
    for (instance, home) in &merging {
        let (_, disk) = root(home, instance).await;
        report(home, instance, up(), disk["merges"].clone()).await;
    }
    // No call does that any more.
    execute(
        &cloud,
        "INSERT INTO migrations (id, instance_id, operation_id, source_host_id, destination_host_id, vcpus, memory_mib,
                                 max_downtime_ms, due_at, desired_revision)
         SELECT gen_random_uuid(), i.id, i.operation_id, i.host_id, h.id, 1, 256, 300, '2030-01-01', 0
         FROM instances i JOIN hosts h ON h.id <> i.host_id WHERE i.name = 'web'",
    )
    .await;
    let merges = async || {
        let mut left = Vec::new();
        for (instance, home) in &merging {
            left.push(root(home, instance).await.1.get("merges").is_some());
        }
        left
    };
    assert_eq!(merges().await, [true, true]);
    merge(&cloud.app).await.unwrap();
    assert_eq!(merges().await, [true, false]);
    execute(&cloud, "SELECT end_migration(id) FROM instances WHERE name = 'web'").await;
    merge(&cloud.app).await.unwrap();
    assert_eq!(merges().await, [false, false]);
}

#[tokio::test]
async fn a_scheduled_snapshot_waits_until_it_is_there() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let (id, home, away) = running(&cloud, &hosts).await;
    let often = format!("{SCHEDULES}/often");
    let body = json!({"name": "often", "instance": "web", "every_hours": 1, "keep": 1});
    cloud.post(SCHEDULES, body).await.expect(201);
    let due = cloud.get(&often).await.expect(200)["next_at"].clone();
    let (accepted, _) = begun(&cloud, away, &id).await;
    cloud.pass(3600);
    cloud.sign_in_again().await;
    snapshot_schedules::run(&cloud.app).await.unwrap();
    let shown = cloud.get(&often).await.expect(200);
    assert_eq!((shown.get("last_run"), &shown["next_at"]), (None, &due), "{shown}");

    let operation = accepted["operation"]["id"].as_str().unwrap();
    cloud.post(&format!("/v1/projects/demo/operations/{operation}/cancel"), json!({})).await.expect(200);
    home.report(&id, generation(home, &id).await, 1, up()).await;
    snapshot_schedules::run(&cloud.app).await.unwrap();
    let shown = cloud.get(&often).await.expect(200);
    assert_eq!(shown["last_run"]["state"], "creating", "{shown}");
    assert_ne!(shown["next_at"], due);
}

#[tokio::test]
async fn a_time_that_comes_meanwhile_is_named_by_what_it_is_for() {
    for (what, at, words) in
        [("stop_at", "stopped", "its time to be stopped has come"), ("delete_at", "deleted", "")]
    {
        let cloud = TestCloud::start().await;
        let hosts = two(&cloud).await;
        let (id, _, away) = running(&cloud, &hosts).await;
        let lease = json!({"lease": {what: "2026-06-01T13:00:00Z"}});
        cloud.call(Method::PATCH, WEB, Some(lease)).await.expect(200);
        let (_, migration) = begun(&cloud, away, &id).await;
        say(away, &migration, &id, json!({"kind": "ready", "address": address(&hosts, away, 40000)})).await;
        cloud.pass(3600);
        end_leases(&cloud.app).await.unwrap();
        cloud.sign_in_again().await;
        let shown = cloud.get(WEB).await.expect(200);
        if at == "deleted" {
            assert_eq!(shown["state"], "deleting", "that ends its migration");
            continue;
        }
        let detail = shown["lease"]["detail"].as_str().unwrap();
        assert!(detail.contains(words) && detail.contains("on its way"), "{detail}");
    }
}

#[tokio::test]
async fn an_agent_before_migrations_is_sent_no_guest() {
    for sent in [false, true] {
        let cloud = TestCloud::start().await;
        let mut hosts = two(&cloud).await;
        let (id, _, away) = running(&cloud, &hosts).await;
        let index = usize::from(hosts[1].id == away.id);
        let (accepted, migration) = begun(&cloud, away, &id).await;
        if sent {
            say(away, &migration, &id, json!({"kind": "ready", "address": address(&hosts, away, 40000)}))
                .await;
        }
        hosts[index].open_session().await;
        let (home, away) = (&hosts[1 - index], &hosts[index]);
        // To it that would be an instance to be started.
        assert_eq!(spec(away, &id).await, None, "{sent}");
        look_after(&cloud.app).await.unwrap();
        if sent {
            assert_eq!(spec(home, &id).await.unwrap()["migration"]["cancelled"], true);
            say(home, &migration, &id, json!({"kind": "ended", "detail": "It was called off."})).await;
        }
        let told = operation(&cloud, &accepted).await;
        assert_eq!((&told["status"], &told["error"]["code"]), (&json!("failed"), &json!("migration_failed")));
        assert!(told["error"]["detail"].as_str().unwrap().contains("agent"), "{told}");
        assert_eq!((spec(away, &id).await, lets_go(away, &id).await), (None, true));
        assert_eq!(reserved(&cloud, away).await, EMPTY);
    }
}

/// Whoever is cut off from the control plane hears of no guest that it is its own, and lets none go on.
#[tokio::test]
async fn a_guest_is_not_sent_to_a_host_of_which_nothing_is_heard() {
    for (is_sent, source_heard) in [(false, true), (true, false), (true, true)] {
        let cloud = TestCloud::start().await;
        let hosts = two(&cloud).await;
        let (id, home, away) = running(&cloud, &hosts).await;
        let (accepted, migration) = begun(&cloud, away, &id).await;
        if is_sent {
            say(away, &migration, &id, json!({"kind": "ready", "address": address(&hosts, away, 40000)}))
                .await;
        }
        for _ in 0..10 {
            watch_for_silence(&cloud.app).await.unwrap();
            cloud.pass(5);
            if source_heard {
                home.beat(json!([fast(super::directory(1), 20)])).await.expect(200);
                cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
            }
            look_after(&cloud.app).await.unwrap();
        }
        let cancelled = spec(home, &id).await.unwrap()["migration"].get("cancelled").is_some();
        assert_eq!(cancelled, is_sent && source_heard, "{is_sent} {source_heard}");
        assert_eq!(operation(&cloud, &accepted).await["status"], "running");
        if cancelled {
            say(home, &migration, &id, json!({"kind": "ended", "detail": "It was called off."})).await;
            let error = operation(&cloud, &accepted).await["error"].clone();
            assert_eq!(error["code"], "migration_failed");
            assert!(error["detail"].as_str().unwrap().contains("nothing is heard of the host"), "{error}");
            assert!(lets_go(away, &id).await);
        }
    }
}

//! Guests that start elsewhere when their host fails, on their way: whose word ends them, and what a lease proves.

use axum::http::Method;
use protocol::agent::{GUARDED_MIGRATION, Inventory, LIVE_MIGRATION};
use serde_json::{Value, json};

use super::super::restart::{flush, heard, restarting, sees, work};
use super::super::{WEB, directory, fast, findings, made, two_with_the_pool};
use super::{MIGRATE, able, absent, address, begun, lets_go, operation, say, spec};
use crate::backup::restored_in;
use crate::instances::evacuate;
use crate::instances::migration::look_after;
use crate::testing::{TestCloud, TestHost};

fn guarding(number: u8) -> Inventory {
    Inventory { features: [LIVE_MIGRATION, GUARDED_MIGRATION].map(str::to_owned).to_vec(), ..able(number) }
}

/// Two hosts with guards between which guests go.
async fn two(cloud: &TestCloud) -> [TestHost<'_>; 2] {
    let mut hosts = two_with_the_pool(cloud).await;
    for (host, number) in hosts.iter_mut().zip(1..) {
        host.open_session_with(guarding(number)).await;
        heard(cloud, host, 100, json!([])).await;
    }
    hosts
}

/// `web` runs on one of them.
async fn running<'a, 'b>(
    cloud: &TestCloud,
    hosts: &'b [TestHost<'a>; 2],
) -> (Value, &'b TestHost<'a>, &'b TestHost<'a>) {
    let (web, home, away) = made(cloud, hosts, restarting("web")).await;
    home.report(&web["id"], 1, 1, up()).await;
    heard(cloud, home, 110, json!([])).await;
    (web["id"].clone(), home, away)
}

/// It is being sent: the answer, and the migration's id.
async fn sent(
    cloud: &TestCloud,
    hosts: &[TestHost<'_>; 2],
    away: &TestHost<'_>,
    id: &Value,
) -> (Value, Value) {
    let (accepted, migration) = begun(cloud, away, id).await;
    say(away, &migration, id, json!({"kind": "ready", "address": address(hosts, away, 40000)})).await;
    (accepted, migration)
}

fn up() -> Value {
    json!({"state": "running"})
}

fn fenced() -> Value {
    json!({"state": "stopped", "reason": "fenced"})
}

fn handed_over() -> Value {
    json!({"kind": "handed_over"})
}

/// The boot that a host is told of, and whether that is to come from elsewhere.
async fn told(host: &TestHost<'_>, id: &Value) -> Option<(i64, bool)> {
    let spec = spec(host, id).await?;
    Some((spec["boot"].as_i64().unwrap(), spec.get("migration").is_some_and(|one| one["part"] == "incoming")))
}

/// One is silent, and the other sees that it does not renew its lease.
async fn dies(cloud: &TestCloud, host: &TestHost<'_>, witness: &TestHost<'_>) {
    cloud.pass(30);
    heard(cloud, witness, 205, json!([sees(host, 300, 61)])).await;
    work(cloud).await;
}

#[tokio::test]
async fn after_the_change_of_hands_the_word_and_the_lease_of_the_destination_count() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let (id, home, away) = running(&cloud, &hosts).await;
    let (_, migration) = sent(&cloud, &hosts, away, &id).await;
    home.report(&id, 2, 1, up()).await;
    assert_eq!(spec(home, &id).await.unwrap()["migration"]["part"], "outgoing");
    say(home, &migration, &id, handed_over()).await;
    let own = spec(away, &id).await.unwrap();
    assert_eq!((&own["on_host_failure"], &own["generation"]), (&json!("restart"), &json!(3)));
    // What the source says late, or said before, is about nothing.
    home.report(&id, 2, 1, fenced()).await;
    work(&cloud).await;
    assert_eq!((told(home, &id).await, told(away, &id).await), (None, Some((1, false))));
    absent(home, &id, 3).await;
    dies(&cloud, away, home).await;
    assert_eq!(told(away, &id).await, Some((1, false)), "it has not said yet that the guest is guarded");

    away.report(&id, 3, 1, up()).await;
    heard(&cloud, away, 120, json!([])).await;
    assert_eq!(findings(&cloud).await, [""; 0]);
    dies(&cloud, away, home).await;
    assert_eq!((told(home, &id).await, told(away, &id).await), (Some((2, false)), None));
}

#[tokio::test]
async fn a_source_that_dies_ends_it_and_its_guest_starts_only_where_nothing_waits_for_it() {
    for is_sent in [false, true] {
        let cloud = TestCloud::start().await;
        let mut hosts = two(&cloud).await;
        let (id, home, away) = running(&cloud, &hosts).await;
        let (lost, home_id) = (usize::from(hosts[1].id == home.id), home.id);
        let (accepted, migration) =
            if is_sent { sent(&cloud, &hosts, away, &id).await } else { begun(&cloud, away, &id).await };
        dies(&cloud, home, away).await;
        assert_eq!(operation(&cloud, &accepted).await["error"]["code"], "superseded");
        assert_eq!((told(away, &id).await, lets_go(away, &id).await), (None, true));
        let shown = cloud.get(WEB).await.expect(200);
        assert_eq!(
            (&shown["state"], &shown["operation"]["kind"]),
            (&json!("pending"), &json!("restart_elsewhere"))
        );
        let rejections = &shown["placement"]["rejections"];
        assert_eq!(rejections[0]["reason"], "leaving", "both have something of it: {shown}");

        // The source is back, and has handed it over.
        hosts[lost].open_session_with(guarding(u8::try_from(lost).unwrap() + 1)).await;
        let (home, away) = (&hosts[lost], &hosts[1 - lost]);
        assert_eq!(home.id, home_id);
        heard(&cloud, home, 301, json!([])).await;
        say(home, &migration, &id, handed_over()).await;
        home.report(&id, 2, 1, fenced()).await;
        say(away, &migration, &id, json!({"kind": "ready", "address": address(&hosts, away, 40000)})).await;
        work(&cloud).await;
        assert_eq!((told(home, &id).await, told(away, &id).await), (None, None));
        // The boot that was to come is gone there.
        absent(away, &id, 2).await;
        work(&cloud).await;
        assert_eq!((told(home, &id).await, told(away, &id).await), (None, Some((2, false))));
        say(home, &migration, &id, handed_over()).await;
        away.report(&id, 3, 2, up()).await;
        absent(home, &id, 3).await;
        work(&cloud).await;
        assert_eq!(told(away, &id).await, Some((2, false)));
        assert_eq!(findings(&cloud).await, [""; 0]);
    }
}

#[tokio::test]
async fn what_the_destination_says_before_it_is_its_own_ends_nothing() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let (id, home, away) = running(&cloud, &hosts).await;
    let (accepted, migration) = sent(&cloud, &hosts, away, &id).await;
    for state in [fenced(), json!({"state": "absent"})] {
        away.report_with(&id, 2, 1, state, json!([])).await;
        work(&cloud).await;
        assert_eq!((told(home, &id).await, told(away, &id).await), (Some((1, false)), Some((1, true))));
    }
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");
    assert_eq!(operation(&cloud, &accepted).await["status"], "running");
    // Its lease is nothing to the guest that runs at the source, either.
    dies(&cloud, away, home).await;
    assert_eq!(told(home, &id).await, Some((1, false)));
    say(home, &migration, &id, json!({"kind": "ended", "detail": "The other side hung up."})).await;
    assert_eq!(operation(&cloud, &accepted).await["error"]["code"], "migration_failed");
    assert!(lets_go(away, &id).await);
}

#[tokio::test]
async fn a_guest_that_the_guard_of_its_source_ends_starts_again_and_never_goes_on_elsewhere() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let (id, home, away) = running(&cloud, &hosts).await;
    let (_, migration) = sent(&cloud, &hosts, away, &id).await;
    home.report(&id, 2, 1, fenced()).await;
    work(&cloud).await;
    assert_eq!((told(home, &id).await, told(away, &id).await), (Some((2, false)), None));
    assert!(lets_go(away, &id).await);
    say(home, &migration, &id, handed_over()).await;
    assert_eq!((told(home, &id).await, told(away, &id).await), (Some((2, false)), None));
}

/// No agent says both. One that does ends the guest of another host by neither.
#[tokio::test]
async fn an_end_that_the_source_has_told_is_none_of_a_guest_that_it_has_handed_over() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let (id, home, away) = running(&cloud, &hosts).await;
    let (_, migration) = sent(&cloud, &hosts, away, &id).await;
    home.report(&id, 2, 1, fenced()).await;
    say(home, &migration, &id, handed_over()).await;
    cloud.pass(31);
    heard(&cloud, home, 120, json!([])).await;
    let nothing_guarded = json!([fast(directory(1), 20)]);
    away.beat(nothing_guarded).await.expect(200);
    flush(&cloud).await;
    work(&cloud).await;
    assert_eq!((told(home, &id).await, told(away, &id).await), (None, Some((1, false))));
}

#[tokio::test]
async fn a_guest_that_the_guard_of_its_destination_ends_starts_again_there() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let (id, home, away) = running(&cloud, &hosts).await;
    let (accepted, migration) = sent(&cloud, &hosts, away, &id).await;
    say(home, &migration, &id, handed_over()).await;
    away.report(&id, 3, 1, fenced()).await;
    work(&cloud).await;
    assert_eq!(told(away, &id).await, Some((2, false)));
    assert_eq!(operation(&cloud, &accepted).await["error"]["code"], "superseded");
    assert_eq!(cloud.get(WEB).await.expect(200)["operation"]["kind"], "restart_fenced");
}

#[tokio::test]
async fn it_goes_only_where_its_guard_goes_with_it() {
    let cloud = TestCloud::start().await;
    let mut hosts = two(&cloud).await;
    let (id, _, away) = running(&cloud, &hosts).await;
    let (index, away_id) = (usize::from(hosts[1].id == away.id), away.id);
    let named = async || {
        let refused =
            cloud.post(MIGRATE, json!({"host": away_id})).await.expect_problem(422, "validation_failed");
        refused["errors"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect::<Vec<_>>()
    };
    // No guard keeps a lease there.
    hosts[index].beat(json!([fast(directory(1), 20)])).await.expect(200);
    flush(&cloud).await;
    assert_eq!(named().await, ["no_guard"]);
    let refused = cloud.post(MIGRATE, json!({})).await.expect_problem(409, "insufficient_capacity");
    assert_eq!(refused["placement"]["rejections"], json!([{"reason": "no_guard", "hosts": 1}]));

    // An agent before guarded guests went.
    let number = u8::try_from(index).unwrap() + 1;
    hosts[index].open_session_with(able(number)).await;
    heard(&cloud, &hosts[index], 100, json!([])).await;
    assert_eq!(named().await, ["unfit"]);
    let refused = cloud.post(MIGRATE, json!({})).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("start elsewhere"), "{refused}");
    // It still takes others.
    let wait = json!({"on_host_failure": "wait"});
    cloud.call(Method::PATCH, WEB, Some(wait)).await.expect(200);
    let home = &hosts[1 - index];
    home.report(&id, 2, 1, up()).await;
    cloud.post(&format!("{MIGRATE}?dry_run=true"), json!({"host": away_id})).await.expect(200);
}

#[tokio::test]
async fn an_agent_before_guarded_guests_hears_of_none_and_is_not_believed_to_wait_for_it() {
    for is_sent in [false, true] {
        let cloud = TestCloud::start().await;
        let mut hosts = two(&cloud).await;
        let (id, _, away) = running(&cloud, &hosts).await;
        let index = usize::from(hosts[1].id == away.id);
        let (accepted, migration) =
            if is_sent { sent(&cloud, &hosts, away, &id).await } else { begun(&cloud, away, &id).await };
        hosts[index].open_session_with(able(u8::try_from(index).unwrap() + 1)).await;
        let (home, away) = (&hosts[1 - index], &hosts[index]);
        assert_eq!(told(away, &id).await, None, "{is_sent}");
        // It may have kept what an agent of this release was told.
        say(away, &migration, &id, json!({"kind": "ready", "address": address(&hosts, away, 40001)})).await;
        let asked = spec(home, &id).await.unwrap()["migration"]["address"].clone();
        let known = json!(address(&hosts, away, 40000));
        assert_eq!(asked, if is_sent { known } else { Value::Null });
        look_after(&cloud.app).await.unwrap();
        if is_sent {
            assert_eq!(spec(home, &id).await.unwrap()["migration"]["cancelled"], true);
            say(home, &migration, &id, json!({"kind": "ended", "detail": "It was called off."})).await;
        }
        let done = operation(&cloud, &accepted).await;
        assert_eq!(done["error"]["code"], "migration_failed", "{done}");
        assert_eq!((told(home, &id).await, lets_go(away, &id).await), (Some((1, false)), true));
    }
}

#[tokio::test]
async fn a_host_is_emptied_of_it_as_it_runs() {
    let cloud = TestCloud::start().await;
    let hosts = two(&cloud).await;
    let (id, home, away) = running(&cloud, &hosts).await;
    let maintenance = format!("/v1/hosts/{}", home.id);
    cloud.post(&format!("{maintenance}/drain"), json!({"stop_running": true})).await.expect(202);
    evacuate(&cloud.app).await.unwrap();
    let shown = cloud.get(&format!("{maintenance}/evacuations")).await.expect(200);
    assert_eq!(
        (&shown["items"][0]["phase"], &shown["items"][0]["way"]),
        (&json!("moving"), &json!("migrate")),
        "{shown}"
    );
    let migration = spec(away, &id).await.unwrap()["migration"]["id"].clone();
    say(away, &migration, &id, json!({"kind": "ready", "address": address(&hosts, away, 40000)})).await;
    say(home, &migration, &id, handed_over()).await;
    away.report(&id, 3, 1, up()).await;
    absent(home, &id, 3).await;
    evacuate(&cloud.app).await.unwrap();
    assert_eq!(cloud.get(&maintenance).await.expect(200)["maintenance"]["state"], "drained");
    assert_eq!(told(away, &id).await, Some((1, false)), "it was not started anew");
}

#[tokio::test]
async fn after_a_restored_backup_no_lease_speaks_of_a_guest_that_was_on_its_way() {
    let cloud = TestCloud::start().await;
    let mut hosts = two(&cloud).await;
    let (id, home, away) = running(&cloud, &hosts).await;
    let home_index = usize::from(hosts[1].id == home.id);
    sent(&cloud, &hosts, away, &id).await;
    home.report(&id, 2, 1, up()).await;
    // By now it may have gone, and run at the other host for long.
    restored_in(&cloud.app.pool, &cloud.app.clock).await.unwrap();
    for (host, number) in hosts.iter_mut().zip(1..) {
        host.open_session_with(guarding(number)).await;
    }
    let (home, away) = (&hosts[home_index], &hosts[1 - home_index]);
    heard(&cloud, home, 300, json!([])).await;
    dies(&cloud, home, away).await;
    assert_eq!(told(home, &id).await, Some((1, false)), "its host has not said that the guest is there");

    heard(&cloud, home, 300, json!([])).await;
    home.report(&id, 2, 1, up()).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");
    dies(&cloud, home, away).await;
    assert_eq!(told(home, &id).await, None);
    assert_eq!(cloud.get(WEB).await.expect(200)["operation"]["kind"], "restart_elsewhere");
}

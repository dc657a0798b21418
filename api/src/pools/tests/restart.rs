//! Instances that start elsewhere when their host has died, which its lease in the pool proves.

use serde_json::{Value, json};

use super::{INSTANCES, WEB, directory, fast, findings, instance, made, two_with_the_pool};
use crate::instances::{place_pending, recover};
use crate::testing::{TestCloud, TestHost, until_waiting};

/// An instance that starts elsewhere.
pub(super) fn restarting(name: &str) -> Value {
    let mut body = instance(name);
    body["on_host_failure"] = json!("restart");
    body
}

/// What a witness says of another host: its lease, and for how long it has not changed.
pub(super) fn sees(host: &TestHost<'_>, counter: u64, unchanged_seconds: u32) -> Value {
    json!({"pool": "fast", "host": host.id, "counter": counter, "unchanged_seconds": unchanged_seconds})
}

/// The host is heard, its guard keeps a lease at this counter, and it sees these of others.
pub(super) async fn heard(cloud: &TestCloud, host: &TestHost<'_>, counter: u64, seen: Value) {
    let guarded = json!([{"pool": "fast", "counter": counter}]);
    let beat =
        json!({"shared_pools": [fast(directory(1), 20)], "guarded_pools": guarded, "seen_leases": seen});
    host.beat_with(beat).await.expect(200);
    flush(cloud).await;
}

pub(super) async fn flush(cloud: &TestCloud) {
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
}

/// Controllers, as often as they may matter.
pub(super) async fn work(cloud: &TestCloud) {
    recover(&cloud.app).await.unwrap();
    place_pending(&cloud.app).await.unwrap();
}

/// Two guarded hosts, and one of them runs `web`, which starts elsewhere.
pub(super) async fn running<'a, 'b>(
    cloud: &TestCloud,
    hosts: &'b [TestHost<'a>; 2],
) -> (Value, &'b TestHost<'a>, &'b TestHost<'a>) {
    for host in hosts {
        heard(cloud, host, 100, json!([])).await;
    }
    let (web, home, away) = made(cloud, hosts, restarting("web")).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    heard(cloud, home, 110, json!([])).await;
    (web, home, away)
}

/// The specification of it that the host has.
async fn boot(host: &TestHost<'_>, id: &Value) -> Option<i64> {
    let page = host.desired(0).await;
    let objects = page["objects"].as_array().unwrap().clone();
    let mut specs = objects.into_iter().filter(|one| one["kind"] == "instance" && one["id"] == *id);
    specs.next().map(|spec| spec["boot"].as_i64().unwrap())
}

#[tokio::test]
async fn what_proves_nothing_moves_nothing() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = running(&cloud, &hosts).await;
    let third = cloud.join_host("host-3").await;
    let stays = async |why: &str| {
        work(&cloud).await;
        assert_eq!(boot(home, &web["id"]).await, Some(1), "{why}");
    };
    heard(&cloud, away, 100, json!([sees(home, 110, 70)])).await;
    stays("it was just heard").await;
    cloud.pass(21);
    stays("the witness was not heard for a while").await;
    heard(&cloud, away, 101, json!([])).await;
    stays("nobody has seen its lease").await;
    heard(&cloud, away, 101, json!([sees(home, 110, 59)])).await;
    stays("its lease is too young").await;
    heard(&cloud, away, 101, json!([sees(home, 109, 900)])).await;
    stays("the witness reads what is old: its host itself has told of more").await;
    let pools = json!([fast(directory(1), 20)]);
    let unguarded = json!({"shared_pools": pools, "seen_leases": [sees(home, 110, 70)]});
    away.beat_with(unguarded).await.expect(200);
    flush(&cloud).await;
    stays("nothing shows that the witness reaches the pool").await;
    let elsewhere = json!({"shared_pools": [fast(directory(2), 20)], "guarded_pools": [{"pool": "fast", "counter": 9}],
        "seen_leases": [sees(home, 110, 70)]});
    third.beat_with(elsewhere).await.expect(200);
    flush(&cloud).await;
    stays("the witness has another directory under that name").await;
    heard(&cloud, &third, 1, json!([sees(home, 110, 3)])).await;
    heard(&cloud, away, 101, json!([sees(home, 110, 70)])).await;
    stays("another one has seen it change").await;
    let own_word = json!([sees(away, 101, 999)]);
    heard(&cloud, away, 101, own_word).await;
    stays("nobody is a witness of itself").await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state_reason"], "host_unreachable");
    // The one that has seen it change has fallen silent: what it said counts no more.
    cloud.pass(16);
    heard(&cloud, away, 102, json!([sees(home, 110, 75)])).await;
    work(&cloud).await;
    assert_eq!((boot(home, &web["id"]).await, boot(away, &web["id"]).await), (None, Some(2)));
}

#[tokio::test]
async fn a_proven_lapse_moves_it_once_and_the_host_that_comes_back_lets_go() {
    let cloud = TestCloud::start().await;
    let mut hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = running(&cloud, &hosts).await;
    let lost = usize::from(home.id == hosts[1].id);
    // One that waits stays where it is.
    let mut waits = instance("waits");
    waits["labels"] = json!({"kind": "waits"});
    cloud.post(INSTANCES, waits).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    cloud.pass(30);
    heard(&cloud, away, 105, json!([sees(home, 112, 61)])).await;
    let replica = cloud.replica().await;
    replica.pass(30);
    // All replicas at once, and a control plane that was killed between the two steps goes on with the second.
    let (one, other, third) = tokio::join!(recover(&cloud.app), recover(&replica.app), recover(&cloud.app));
    one.and(other).and(third).unwrap();
    let pending = cloud.get(WEB).await.expect(200);
    assert_eq!(
        (&pending["state"], &pending["operation"]["kind"]),
        (&json!("pending"), &json!("restart_elsewhere"))
    );
    work(&replica).await;
    work(&cloud).await;
    assert_eq!((boot(home, &web["id"]).await, boot(away, &web["id"]).await), (None, Some(2)));
    away.report(&web["id"], 2, 2, json!({"state": "running"})).await;
    let there = cloud.get(WEB).await.expect(200);
    assert_eq!((&there["state"], &there["operation"]["status"]), (&json!("running"), &json!("succeeded")));
    let path = format!("/v1/projects/demo/operations/{}", there["operation"]["id"].as_str().unwrap());
    let trail = cloud.get(&path).await.expect(200)["trail"].to_string();
    assert!(trail.contains("1 other host has seen for 61 seconds"), "{trail}");
    let records = cloud.get("/v1/audit_records").await.expect(200)["items"].to_string();
    assert_eq!(records.matches("lapsed_lease").count(), 1, "{records}");

    // It is back: what it says of the instance counts no more, and it is told to let go.
    hosts[lost].open_session().await;
    let (home, away) = (&hosts[lost], &hosts[1 - lost]);
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    heard(&cloud, home, 113, json!([])).await;
    let page = home.desired(0).await;
    let told: Vec<_> = page["objects"].as_array().unwrap().iter().map(|one| &one["kind"]).collect();
    assert!(told.contains(&&json!("delete_instance")), "{page}");
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");
    home.report(&web["id"], 2, 0, json!({"state": "absent"})).await;
    work(&cloud).await;
    assert_eq!(boot(away, &web["id"]).await, Some(2));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_word_of_the_host_in_the_last_moment_keeps_it() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = running(&cloud, &hosts).await;
    cloud.pass(30);
    heard(&cloud, away, 105, json!([sees(home, 112, 61)])).await;
    // Its heartbeat is being written while the controller decides.
    let mut beat = cloud.app.begin().await.unwrap();
    sqlx::query("UPDATE hosts SET last_seen_at = $2 WHERE id = $1")
        .bind(home.id.as_uuid())
        .bind(cloud.app.clock.now())
        .execute(&mut *beat)
        .await
        .unwrap();
    let heartbeat = async {
        until_waiting(&cloud.app.pool, 1).await;
        beat.commit().await.unwrap();
    };
    let (recovered, ()) = tokio::join!(recover(&cloud.app), heartbeat);
    recovered.unwrap();
    place_pending(&cloud.app).await.unwrap();
    assert_eq!((boot(home, &web["id"]).await, boot(away, &web["id"]).await), (Some(1), None));
}

#[tokio::test]
async fn a_guest_that_its_guard_does_not_know_of_stays() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    for host in &hosts {
        heard(&cloud, host, 100, json!([])).await;
    }
    let (web, home, away) = made(&cloud, &hosts, instance("web")).await;
    home.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    // Its host has not heard of the change when it falls silent.
    let patch = Some(json!({"on_host_failure": "restart"}));
    let changed = cloud.call(axum::http::Method::PATCH, WEB, patch).await.expect(200);
    assert_eq!(changed["on_host_failure"], "restart");
    cloud.pass(30);
    heard(&cloud, away, 105, json!([sees(home, 112, 90)])).await;
    work(&cloud).await;
    assert_eq!(boot(home, &web["id"]).await, Some(1));
    // It comes back, reports, and goes for good.
    home.report(&web["id"], 2, 1, json!({"state": "running"})).await;
    work(&cloud).await;
    assert_eq!((boot(home, &web["id"]).await, boot(away, &web["id"]).await), (None, Some(2)));
}

#[tokio::test]
async fn a_new_session_forgets_what_the_last_one_said_of_its_guard() {
    let cloud = TestCloud::start().await;
    let mut hosts = two_with_the_pool(&cloud).await;
    let (web, home, _) = running(&cloud, &hosts).await;
    let lost = usize::from(home.id == hosts[1].id);
    let seen = cloud.get(&format!("/v1/hosts/{}", hosts[lost].id)).await.expect(200);
    assert_eq!(seen["guarded_pools"], json!(["fast"]));
    // An agent without a guard, and then silence.
    hosts[lost].open_session().await;
    hosts[lost].beat(json!([fast(directory(1), 20)])).await.expect(200);
    flush(&cloud).await;
    assert_eq!(findings(&cloud).await, ["instance_unguarded"]);
    cloud.pass(30);
    heard(&cloud, &hosts[1 - lost], 105, json!([sees(&hosts[lost], 112, 90)])).await;
    work(&cloud).await;
    assert_eq!(boot(&hosts[lost], &web["id"]).await, Some(1));
    // The operator knows more.
    let path = format!("/v1/hosts/{}/declare_dead", hosts[lost].id);
    cloud.post(&path, json!({"no_guest_runs": true})).await.expect(200);
    work(&cloud).await;
    assert_eq!(boot(&hosts[1 - lost], &web["id"]).await, Some(2));
}

#[tokio::test]
async fn a_fenced_guest_starts_again_on_its_host_or_on_another() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = running(&cloud, &hosts).await;
    let fenced = json!({"state": "stopped", "reason": "fenced"});
    home.report(&web["id"], 1, 1, fenced.clone()).await;
    let shown = cloud.get(WEB).await.expect(200);
    assert_eq!((&shown["state"], &shown["state_reason"]), (&json!("stopped"), &json!("fenced")));
    work(&cloud).await;
    assert_eq!(boot(home, &web["id"]).await, Some(2), "its guard keeps the lease again");
    let shown = cloud.get(WEB).await.expect(200);
    assert_eq!(shown["operation"]["kind"], "restart_fenced");
    work(&cloud).await;
    assert_eq!(boot(home, &web["id"]).await, Some(2), "once");

    // Again, and this time its host does not reach the pool any more.
    home.report(&web["id"], 2, 2, json!({"state": "running"})).await;
    home.report(&web["id"], 2, 2, fenced).await;
    work(&cloud).await;
    assert_eq!(boot(home, &web["id"]).await, Some(2), "not at once");
    cloud.pass(31);
    let unusable = json!([{"name": "fast", "state": {"state": "unusable", "reason": "stale"}}]);
    home.beat(unusable).await.expect(200);
    heard(&cloud, away, 120, json!([sees(home, 112, 10)])).await;
    work(&cloud).await;
    assert_eq!((boot(home, &web["id"]).await, boot(away, &web["id"]).await), (None, Some(3)));
}

#[tokio::test]
async fn one_that_its_owner_stopped_moves_and_stays_stopped() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = running(&cloud, &hosts).await;
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    home.report(&web["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;
    cloud.pass(30);
    heard(&cloud, away, 105, json!([sees(home, 112, 61)])).await;
    work(&cloud).await;
    assert_eq!(boot(away, &web["id"]).await, Some(1));
    away.report(&web["id"], 3, 1, json!({"state": "stopped", "reason": "never_started"})).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "stopped");
}

//! After a restored backup nothing is concluded from what was known of hosts when it was made.

use serde_json::{Value, json};

use super::restart::{heard, running, sees, work};
use super::{WEB, directory, fast, findings, two_with_the_pool};
use crate::backup::restored_in;
use crate::testing::{TestCloud, TestHost};

async fn is_on(host: &TestHost<'_>, id: &Value) -> bool {
    host.disks(id).await.is_some()
}

#[tokio::test]
async fn no_guest_starts_elsewhere_before_its_host_has_told_of_it_anew() {
    let cloud = TestCloud::start().await;
    let mut hosts = two_with_the_pool(&cloud).await;
    let (web, home, _) = running(&cloud, &hosts).await;
    let (home, away) = if home.id == hosts[0].id { (0, 1) } else { (1, 0) };
    cloud.pass(30);
    heard(&cloud, &hosts[away], 100, json!([])).await;
    // In the backup the host is dead, and its instance about to leave.
    let path = format!("/v1/hosts/{}", hosts[home].id);
    cloud.post(&format!("{path}/declare_dead"), json!({"no_guest_runs": true})).await.expect(200);
    let done = restored_in(&cloud.app.pool, &cloud.app.clock).await.unwrap();
    assert_eq!((done.hosts, done.instances), (2, 1));
    assert_eq!(cloud.get(&path).await.expect(200).get("declared_dead_at"), None);
    for host in &hosts {
        host.beat(json!([fast(directory(1), 20)])).await.expect_problem(409, "stale_epoch");
    }
    work(&cloud).await;
    hosts[away].open_session().await;
    let stays = async |hosts: &[TestHost<'_>; 2], why: &str| {
        work(&cloud).await;
        assert!(is_on(&hosts[home], &web["id"]).await, "{why}");
    };
    heard(&cloud, &hosts[away], 101, json!([sees(&hosts[home], 9000, 900)])).await;
    hosts[home].open_session().await;
    heard(&cloud, &hosts[home], 9001, json!([])).await;
    stays(&hosts, "it is there").await;
    cloud.pass(30);
    heard(&cloud, &hosts[away], 102, json!([sees(&hosts[home], 9001, 70)])).await;
    stays(&hosts, "its host has kept a lease, and not told of this instance").await;
    // It is heard again, and tells.
    heard(&cloud, &hosts[home], 9002, json!([])).await;
    // What it has seen as this generation is another: there its owner had it guarded no more. It says so twice.
    for _ in 0..2 {
        let ignored = hosts[home].report(&web["id"], 2, 1, json!({"state": "running"})).await;
        assert_eq!(ignored["ignored"], json!([web["id"]]));
    }
    cloud.pass(30);
    heard(&cloud, &hosts[away], 103, json!([sees(&hosts[home], 9002, 70)])).await;
    stays(&hosts, "what its host has told may be of another history").await;
    heard(&cloud, &hosts[home], 9003, json!([])).await;
    hosts[home].report(&web["id"], 3, 1, json!({"state": "running"})).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");
    cloud.pass(30);
    heard(&cloud, &hosts[away], 104, json!([sees(&hosts[home], 9003, 70)])).await;
    work(&cloud).await;
    assert!(is_on(&hosts[away], &web["id"]).await, "what a lease proves now holds as ever");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    let records = cloud.get("/v1/audit_records?action=host:DeclareRestored").await.expect(200);
    assert_eq!(records["items"][0]["principal_name"], "cumulo-api restored");
}

/// Since the backup the host may have started the next boot of a guest that its guard had ended, or refuse what would be told of a
/// migration.
#[tokio::test]
async fn of_what_its_host_has_not_told_anew_nothing_starts_or_goes_elsewhere() {
    let cloud = TestCloud::start().await;
    let mut hosts = two_with_the_pool(&cloud).await;
    let (web, home, _) = running(&cloud, &hosts).await;
    let (home, away) = if home.id == hosts[0].id { (0, 1) } else { (1, 0) };
    let fenced = json!({"state": "stopped", "reason": "fenced"});
    hosts[home].report(&web["id"], 1, 1, fenced).await;
    restored_in(&cloud.app.pool, &cloud.app.clock).await.unwrap();
    cloud.pass(60);
    hosts[away].open_session().await;
    heard(&cloud, &hosts[away], 100, json!([])).await;
    hosts[home].open_session().await;
    work(&cloud).await;
    assert!(is_on(&hosts[home], &web["id"]).await, "it has left its host");

    hosts[home].report(&web["id"], 2, 2, json!({"state": "running"})).await;
    hosts[home].report(&web["id"], 3, 2, json!({"state": "running"})).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["state"], "running");
    // And another time, with a guest that runs.
    restored_in(&cloud.app.pool, &cloud.app.clock).await.unwrap();
    for host in &mut hosts {
        host.open_session().await;
        heard(&cloud, host, 200, json!([])).await;
    }
    let refused = cloud.post(&format!("{WEB}/migrate"), json!({})).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("database was restored"), "{refused}");
}

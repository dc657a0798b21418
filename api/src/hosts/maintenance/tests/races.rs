//! What owners and operators do while a host is emptied.

use serde_json::json;

use super::{
    HOST, INSTANCES, cordon, drain, evacuations, findings, home, made, maintenance, obey, state, two, work,
};
use crate::instances::evacuate;
use crate::testing::{Lost, TestCloud, TestHost};

/// A host with a running instance whose guest was just told to shut down.
async fn shutting_down(cloud: &TestCloud) -> [TestHost<'_>; 2] {
    let hosts = two(cloud).await;
    made(cloud, &hosts[0], "web", true).await;
    cordon(cloud, "host-2", false).await;
    drain(cloud, true).await;
    evacuate(&cloud.app).await.unwrap();
    assert_eq!(state(cloud, "web").await, "stopping");
    hosts
}

#[tokio::test]
async fn maintenance_that_ends_in_between_starts_what_it_has_shut_down() {
    for confirmed in [false, true] {
        let cloud = TestCloud::start().await;
        let hosts = shutting_down(&cloud).await;
        if confirmed {
            obey(&hosts[0]).await;
            assert_eq!(state(&cloud, "web").await, "stopped");
        }
        let ended = cloud.post(&format!("{HOST}/end_maintenance"), json!({})).await.expect(200);
        assert_eq!((&ended["maintenance"]["state"], &ended["cordoned"]), (&json!("ending"), &json!(false)));
        // Another replica goes on.
        let replica = cloud.replica().await;
        evacuate(&replica.app).await.unwrap();
        obey(&hosts[0]).await;
        assert_eq!(
            (home(&cloud, "web").await, state(&cloud, "web").await),
            (json!("host-1"), json!("running"))
        );
        assert_eq!(maintenance(&cloud).await["state"], "none");
        assert_eq!(findings(&cloud).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_its_owner_stops_meanwhile_stays_stopped() {
    let cloud = TestCloud::start().await;
    let hosts = shutting_down(&cloud).await;
    cloud.post(&format!("{INSTANCES}/web/stop"), json!({})).await.expect(202);
    work(&cloud, &hosts).await;
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-2"), json!("stopped")));
    assert_eq!(maintenance(&cloud).await["state"], "drained");
}

#[tokio::test]
async fn what_its_owner_changes_meanwhile_is_started_all_the_same() {
    let cloud = TestCloud::start().await;
    let hosts = shutting_down(&cloud).await;
    let volume = json!({"name": "data", "size_gib": 1, "pool": "fast"});
    cloud.post("/v1/projects/demo/volumes", volume).await.expect(201);
    cloud.post(&format!("{INSTANCES}/web/attach_volume"), json!({"volume": "data"})).await.expect(202);
    work(&cloud, &hosts).await;
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-2"), json!("running")));
}

#[tokio::test]
async fn what_its_owner_starts_or_deletes_meanwhile_does_not_get_in_the_way() {
    let cloud = TestCloud::start().await;
    let hosts = shutting_down(&cloud).await;
    cloud.post(&format!("{INSTANCES}/web/start"), json!({})).await.expect(202);
    obey(&hosts[0]).await;
    assert_eq!(state(&cloud, "web").await, "running");
    work(&cloud, &hosts).await;
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-2"), json!("running")));

    let cloud = TestCloud::start().await;
    let hosts = shutting_down(&cloud).await;
    cloud.delete(&format!("{INSTANCES}/web")).await.expect(202);
    work(&cloud, &hosts).await;
    cloud.get(&format!("{INSTANCES}/web")).await.expect_problem(404, "not_found");
    assert_eq!(maintenance(&cloud).await["state"], "drained");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_drain_that_is_asked_for_again_goes_on() {
    let cloud = TestCloud::start().await;
    let hosts = shutting_down(&cloud).await;
    let again = drain(&cloud, true).await;
    assert_eq!(again["evacuations"][0]["phase"], "stopping", "what is on its way stays so");
    cloud.post(&format!("{HOST}/end_maintenance"), json!({})).await.expect(200);
    drain(&cloud, false).await;
    work(&cloud, &hosts).await;
    // It was shut down already, and goes on elsewhere.
    assert_eq!((home(&cloud, "web").await, state(&cloud, "web").await), (json!("host-2"), json!("running")));
    let ended = cloud.post(&format!("{HOST}/end_maintenance"), json!({})).await.expect(200);
    assert_eq!(ended["cordoned"], false, "nobody but the drain had cordoned it");
    assert_eq!(evacuations(&cloud).await, Vec::<[String; 4]>::new());
}

/// Until PostgreSQL has noticed that a connection is gone.
async fn settled(cloud: &TestCloud) {
    let busy = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL";
    while sqlx::query_scalar::<_, i64>(busy).fetch_one(&cloud.app.pool).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_replica_that_dies_anywhere_leaves_nothing_half_done() {
    let (cloud, line) = TestCloud::start_on_a_line().await;
    let hosts = two(&cloud).await;
    made(&cloud, &hosts[0], "web", true).await;
    cordon(&cloud, "host-2", false).await;
    for lost in [Lost::Request, Lost::Reply] {
        // Not each of them: they are many, and some rounds reach others than these.
        for messages in (2..).step_by(9) {
            drain(&cloud, true).await;
            let mut was_cut = false;
            // It is shut down, and then it leaves.
            for _ in 0..2 {
                line.cut_after(messages, lost);
                evacuate(&cloud.app).await.ok();
                was_cut |= line.was_cut();
                settled(&cloud).await;
                obey(&hosts[0]).await;
            }
            work(&cloud, &hosts).await;
            let there = (home(&cloud, "web").await, state(&cloud, "web").await);
            assert_eq!(there, (json!("host-2"), json!("running")), "{lost:?} after {messages}");
            assert_eq!(maintenance(&cloud).await["state"], "drained");
            cloud.post(&format!("{HOST}/end_maintenance"), json!({})).await.expect(200);
            // And back.
            let back = json!({"stop_running": true});
            cloud.post("/v1/hosts/host-2/drain", back).await.expect(202);
            work(&cloud, &hosts).await;
            cloud.post("/v1/hosts/host-2/end_maintenance", json!({})).await.expect(200);
            assert_eq!(home(&cloud, "web").await, "host-1");
            if !was_cut {
                break;
            }
        }
    }
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

//! Layers of a shared pool are merged by one host.

use serde_json::{Value, json};

use super::lost::dies;
use super::{INSTANCES, VOLUMES, WEB, execute, findings, instance, made, two_with_the_pool};
use crate::instances::place_pending;
use crate::testing::{TestCloud, TestHost};
use crate::volumes::merge;

const SNAPSHOTS: &str = "/v1/projects/demo/snapshots";

/// The disk that `web` boots from, as this host is told of it.
pub(super) async fn root(host: &TestHost<'_>, web: &Value) -> (i64, Value) {
    let (generation, mut disks) = host.disks(&web["id"]).await.expect("the instance is elsewhere");
    (generation, disks.remove(0)["volume"].take())
}

/// The host has the newest of `web`, and has merged these layers of its disk.
pub(super) async fn report(host: &TestHost<'_>, web: &Value, state: Value, merged: Value) {
    let (generation, disk) = root(host, web).await;
    let said =
        json!([{"id": disk["id"], "generation": disk["generation"], "state": "ready", "merged": merged}]);
    host.report_with(&web["id"], generation, 1, state, said).await;
}

/// `web` on one of the hosts, which has been told to merge what the first of these snapshots has left.
pub(super) async fn asked<'a, 'b>(
    cloud: &TestCloud,
    hosts: &'b [TestHost<'a>; 2],
    snapshots: &[&str],
) -> (Value, &'b TestHost<'a>, &'b TestHost<'a>) {
    asked_of(cloud, hosts, "web", snapshots).await
}

/// The same of an instance of this name.
pub(super) async fn asked_of<'a, 'b>(
    cloud: &TestCloud,
    hosts: &'b [TestHost<'a>; 2],
    name: &str,
    snapshots: &[&str],
) -> (Value, &'b TestHost<'a>, &'b TestHost<'a>) {
    let (web, home, away) = made(cloud, hosts, instance(name)).await;
    report(home, &web, running(), json!([])).await;
    for name in snapshots {
        let body = json!({"name": name, "volume": web["volumes"][0]["volume"]["id"]});
        cloud.post(SNAPSHOTS, body).await.expect(202);
        report(home, &web, running(), json!([])).await;
    }
    cloud.delete(&format!("{SNAPSHOTS}/{}", snapshots[0])).await.expect(204);
    merge(&cloud.app).await.unwrap();
    let (_, disk) = root(home, &web).await;
    assert_eq!(disk["merges"], json!([disk["layers"][1]]));
    (web, home, away)
}

/// The host has done what it was told.
async fn merged(cloud: &TestCloud, home: &TestHost<'_>, web: &Value, state: Value) {
    let (_, disk) = root(home, web).await;
    report(home, web, state.clone(), disk["merges"].clone()).await;
    merge(&cloud.app).await.unwrap();
    report(home, web, state, json!([])).await;
}

fn running() -> Value {
    json!({"state": "running"})
}

fn stopped() -> Value {
    json!({"state": "stopped", "reason": "requested"})
}

async fn stop(cloud: &TestCloud, home: &TestHost<'_>, web: &Value) {
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    report(home, web, stopped(), json!([])).await;
}

async fn fill(cloud: &TestCloud, host: &TestHost<'_>) {
    let sql = format!("UPDATE hosts SET vcpus_capacity = vcpus_reserved WHERE id = '{}'", host.id);
    execute(cloud, &sql).await;
}

/// The host that has it is told to merge nothing.
async fn merges_nothing(host: &TestHost<'_>, instance: &Value) {
    let (_, disk) = root(host, instance).await;
    assert_eq!(disk.get("merges"), None, "two hosts merge the same layer");
}

#[tokio::test]
async fn a_clone_is_made_when_the_layers_of_its_source_are_merged() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = asked(&cloud, &hosts, &["one", "two"]).await;
    fill(&cloud, home).await;
    let twin = json!({"name": "twin", "networks": [], "source": {"instance": "web"}});
    let before = root(home, &web).await;
    let refused = cloud.post(INSTANCES, twin.clone()).await;
    assert!(refused.headers.contains_key("retry-after"));
    let refused = refused.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("is merging layers"), "{refused}");
    assert_eq!(root(home, &web).await, before);
    // A snapshot is of the same volume, and adds a layer that is its own.
    let three = json!({"name": "three", "volume": web["volumes"][0]["volume"]["id"]});
    cloud.post(SNAPSHOTS, three).await.expect(202);
    assert_eq!(root(home, &web).await.1["merges"], before.1["merges"]);

    merged(&cloud, home, &web, running()).await;
    let twin = cloud.post(INSTANCES, twin).await.expect(202);
    report(home, &web, running(), json!([])).await;
    place_pending(&cloud.app).await.unwrap();
    merge(&cloud.app).await.unwrap();
    merges_nothing(away, &twin).await;
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_begins_with_a_snapshot_below_which_layers_are_merged() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = asked(&cloud, &hosts, &["one", "two", "three"]).await;
    fill(&cloud, home).await;
    let copy = json!({"name": "copy", "source": {"snapshot": "three"}});
    cloud.post(VOLUMES, copy.clone()).await.expect_problem(409, "wrong_state");
    let image = json!({"name": "copied", "source": {"snapshot": "three"}});
    cloud.post("/v1/projects/demo/images", image).await.expect_problem(409, "wrong_state");
    // What is below is not written to.
    cloud.post(VOLUMES, json!({"name": "early", "source": {"snapshot": "two"}})).await.expect(201);

    merged(&cloud, home, &web, running()).await;
    cloud.post(VOLUMES, copy).await.expect(201);
    let twin =
        json!({"name": "twin", "networks": [], "instance_type": "tiny", "root_volume": {"volume": "copy"}});
    let twin = cloud.post(INSTANCES, twin).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    merge(&cloud.app).await.unwrap();
    merges_nothing(away, &twin).await;
    assert_eq!(findings(&cloud).await, Vec::<String>::new());

    // Whatever got there is found, and hears of no merge that is another's.
    execute(
        &cloud,
        "UPDATE layers SET parent_merge = 'asked', merge_of = (SELECT id FROM volumes WHERE name = 'early')
         WHERE id = (SELECT layer_id FROM volumes WHERE name = 'copy')",
    )
    .await;
    merges_nothing(away, &twin).await;
    assert!(findings(&cloud).await.contains(&"merge_shared".to_owned()));
}

#[tokio::test]
async fn a_merge_is_taken_back_when_its_volume_has_left_the_layers() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, _) = asked(&cloud, &hosts, &["one", "two", "three"]).await;
    stop(&cloud, home, &web).await;
    cloud.post(&format!("{WEB}/rebuild"), json!({})).await.expect(202);
    let copy = json!({"name": "copy", "source": {"snapshot": "three"}});
    merge(&cloud.app).await.unwrap();
    // Its host may still be at it.
    cloud.post(VOLUMES, copy.clone()).await.expect_problem(409, "wrong_state");
    report(home, &web, stopped(), json!([])).await;
    merge(&cloud.app).await.unwrap();
    cloud.post(VOLUMES, copy).await.expect(201);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_volume_that_is_in_no_instance_keeps_nobody_from_its_layers() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, _) = asked(&cloud, &hosts, &["one", "two"]).await;
    stop(&cloud, home, &web).await;
    let name = web["volumes"][0]["volume"]["name"].clone();
    cloud.post(&format!("{WEB}/detach_volume"), json!({"volume": name})).await.expect(202);
    let clone = json!({"name": "clone", "source": {"volume": name}});
    let (generation, _) = home.disks(&web["id"]).await.unwrap();
    home.report_with(&web["id"], generation, 1, stopped(), json!([])).await;
    cloud.post(VOLUMES, clone.clone()).await.expect_problem(409, "wrong_state");
    merge(&cloud.app).await.unwrap();
    cloud.post(VOLUMES, clone).await.expect(201);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn from_a_dead_host_it_goes_with_its_merge() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = asked(&cloud, &hosts, &["one", "two"]).await;
    stop(&cloud, home, &web).await;
    let go = async || cloud.post(&format!("{WEB}/move"), json!({})).await;
    let before = root(home, &web).await;
    let refused = go().await;
    assert!(refused.headers.contains_key("retry-after"));
    let refused = refused.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("is still merging layers"), "{refused}");
    assert_eq!(root(home, &web).await, before);
    dies(&cloud, home, away).await;
    go().await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    // The host that has it now merges what the dead one may have left half done, and nobody else does.
    let (_, disk) = root(away, &web).await;
    assert_eq!(disk["merges"], json!([disk["layers"][1]]));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    merged(&cloud, away, &web, stopped()).await;
    merges_nothing(away, &web).await;
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

/// `web`, stopped on its host, which merges layers of it and has no room for the type `small`.
async fn without_room<'a, 'b>(
    cloud: &TestCloud,
    hosts: &'b [TestHost<'a>; 2],
) -> (Value, &'b TestHost<'a>, &'b TestHost<'a>) {
    let small = json!({"name": "small", "vcpus": 2, "memory_mib": 256, "root_disk_gib": 1});
    cloud.post("/v1/instance_types", small).await.expect(201);
    let (web, home, away) = asked(cloud, hosts, &["one", "two"]).await;
    stop(cloud, home, &web).await;
    fill(cloud, home).await;
    (web, home, away)
}

#[tokio::test]
async fn a_size_with_which_it_has_to_move_waits_until_its_layers_are_merged() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = without_room(&cloud, &hosts).await;
    let resize = async |query: &str| {
        cloud.post(&format!("{WEB}/resize{query}"), json!({"instance_type": "small"})).await
    };
    let before = root(home, &web).await;
    for query in ["?dry_run=true", ""] {
        let refused = resize(query).await.expect_problem(409, "insufficient_capacity");
        assert!(refused["detail"].as_str().unwrap().contains("merging layers"), "{refused}");
    }
    assert_eq!(cloud.get(WEB).await.expect(200)["instance_type"]["name"], "tiny");
    assert_eq!(root(home, &web).await, before);
    merged(&cloud, home, &web, stopped()).await;
    resize("").await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    merges_nothing(away, &web).await;
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

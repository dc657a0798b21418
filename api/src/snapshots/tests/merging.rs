//! Layers that nobody names become one with those below.

use serde_json::{Value, json};

use super::{SNAPSHOTS, VOLUMES, WEB, count, findings, follow, get, layers, running, snapshot, stop, web};
use crate::testing::{TestCloud, TestHost};
use crate::volumes::merge;

/// The specification of the second disk of `web`.
pub(super) async fn data(host: &TestHost<'_>, web: &Value) -> (i64, Value) {
    let (generation, mut disks) = host.disks(&web["id"]).await.unwrap();
    (generation, disks.remove(1)["volume"].take())
}

/// Reports the newest of `web`, and that these layers of this disk are merged.
pub(super) async fn report_merged(host: &TestHost<'_>, web: &Value, disk: usize, merged: Value) {
    let (generation, disks) = host.disks(&web["id"]).await.unwrap();
    let volumes: Vec<_> = disks
        .iter()
        .enumerate()
        .map(|(index, one)| {
            let merged = if index == disk { merged.clone() } else { json!([]) };
            let volume = &one["volume"];
            json!({"id": volume["id"], "generation": volume["generation"], "state": "ready", "merged": merged})
        })
        .collect();
    host.report_with(&web["id"], generation, 1, running(), json!(volumes)).await;
}

pub(super) async fn remove_all(host: &TestHost<'_>) {
    let orders: Vec<_> = host.removals().await.iter().map(|one| one["removal_id"].clone()).collect();
    host.report_removed(json!(orders)).await;
}

#[tokio::test]
async fn a_layer_is_merged_by_the_word_of_its_host_alone() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    for name in ["one", "two"] {
        snapshot(&cloud, name, json!({"volume": "data"})).await.expect(202);
        follow(&host, &instance, running()).await;
    }
    merge(&cloud.app).await.unwrap();
    let (generation, before) = data(&host, &instance).await;
    assert_eq!((generation, before.get("merges")), (3, None), "everything has a name");
    let [a, b, c] = [0, 1, 2].map(|n| before["layers"][n].clone());

    cloud.delete(&format!("{SNAPSHOTS}/one")).await.expect(204);
    merge(&cloud.app).await.unwrap();
    merge(&cloud.app).await.unwrap();
    let (generation, asked) = data(&host, &instance).await;
    assert_eq!(generation, 4);
    assert_eq!((&asked["layers"], &asked["merges"]), (&json!([a, b, c]), &json!([b])));
    assert_eq!(asked["generation"].as_i64(), before["generation"].as_i64().map(|before| before + 1));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());

    // Never asked for; of the other disk; of an instance of nobody.
    let root = host.disks(&instance["id"]).await.unwrap().1[0]["volume"]["layers"][0].clone();
    for (disk, lie) in [(1, json!([a, c])), (0, json!([b])), (1, json!([root])), (0, json!([root]))] {
        report_merged(&host, &instance, disk, lie).await;
        merge(&cloud.app).await.unwrap();
        assert_eq!(data(&host, &instance).await.1["layers"], json!([a, b, c]));
    }
    report_merged(&host, &instance, 1, json!([b])).await;
    // Noted; until it is taken in the host reads what it read before.
    assert_eq!(data(&host, &instance).await.1["merges"], json!([b]));
    assert_eq!(host.removals().await, Vec::<Value>::new());
    let (first, second) = tokio::join!(merge(&cloud.app), merge(&cloud.app));
    first.and(second).unwrap();
    let (generation, merged) = data(&host, &instance).await;
    assert_eq!((generation, &merged["layers"], merged.get("merges")), (5, &json!([a, c]), None));
    let orders = host.removals().await;
    assert_eq!((orders.len(), &orders[0]["layers"]), (1, &json!([b])));
    // Said again, since the host has not seen the newest yet.
    report_merged(&host, &instance, 1, json!([b])).await;
    merge(&cloud.app).await.unwrap();
    assert_eq!(data(&host, &instance).await.0, 5);
    remove_all(&host).await;
    // The snapshot is at what both have become.
    let held = format!("SELECT count(*) FROM snapshot_volumes WHERE layer_id = '{}'", a.as_str().unwrap());
    assert_eq!((count(&cloud, &held).await, layers(&cloud).await), (1, 3));
    assert_eq!(get(&cloud, "two").await["state"], "available");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_lies_below_the_top_gets_a_layer_over_it_once() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    snapshot(&cloud, "one", json!({"volume": "data"})).await.expect(202);
    follow(&host, &instance, running()).await;
    let (_, before) = data(&host, &instance).await;
    let [a, b] = [0, 1].map(|n| before["layers"][n].clone());
    cloud.delete(&format!("{SNAPSHOTS}/one")).await.expect(204);
    for _ in 0..3 {
        merge(&cloud.app).await.unwrap();
    }
    let (_, asked) = data(&host, &instance).await;
    let c = asked["layers"][2].clone();
    assert_eq!((&asked["layers"], &asked["merges"]), (&json!([a, b, c]), &json!([b])));
    report_merged(&host, &instance, 1, json!([b])).await;
    for _ in 0..3 {
        merge(&cloud.app).await.unwrap();
    }
    let (_, merged) = data(&host, &instance).await;
    assert_eq!((&merged["layers"], merged.get("merges")), (&json!([a, c]), None), "and never again");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    remove_all(&host).await;
    // The next snapshot takes the layer along.
    snapshot(&cloud, "two", json!({"volume": "data"})).await.expect(202);
    merge(&cloud.app).await.unwrap();
    let (_, asked) = data(&host, &instance).await;
    assert_eq!((asked["layers"].as_array().unwrap().len(), &asked["merges"]), (3, &json!([c])));
    report_merged(&host, &instance, 1, json!([c])).await;
    merge(&cloud.app).await.unwrap();
    let held = format!("SELECT count(*) FROM snapshot_volumes WHERE layer_id = '{}'", a.as_str().unwrap());
    assert_eq!(count(&cloud, &held).await, 1);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_merged_on_which_others_stand_or_that_no_instance_has() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    for name in ["one", "two"] {
        snapshot(&cloud, name, json!({"volume": "data"})).await.expect(202);
        follow(&host, &instance, running()).await;
    }
    // A clone on the upper one: both have it open some day.
    let clone = json!({"name": "clone", "source": {"snapshot": "two"}});
    cloud.post(VOLUMES, clone).await.expect(201);
    cloud.delete(&format!("{SNAPSHOTS}/one")).await.expect(204);
    cloud.delete(&format!("{SNAPSHOTS}/two")).await.expect(204);
    merge(&cloud.app).await.unwrap();
    let (generation, spec) = data(&host, &instance).await;
    assert_eq!((generation, spec.get("merges"), spec["layers"].as_array().unwrap().len()), (3, None, 3));

    // The clone goes while nobody has the volume; its row stands for its file until that is gone.
    stop(&cloud, &host, &instance).await;
    cloud.post(&format!("{WEB}/detach_volume"), json!({"volume": "data"})).await.expect(202);
    follow(&host, &instance, json!({"state": "stopped", "reason": "requested"})).await;
    cloud.delete(&format!("{VOLUMES}/clone")).await.expect(202);
    remove_all(&host).await;
    merge(&cloud.app).await.unwrap();
    assert_eq!(layers(&cloud).await, 4);
    assert_eq!(count(&cloud, "SELECT count(*) FROM layers WHERE parent_merge IS NOT NULL").await, 0);
    cloud.post(&format!("{WEB}/attach_volume"), json!({"volume": "data"})).await.expect(202);
    merge(&cloud.app).await.unwrap();
    let (_, spec) = data(&host, &instance).await;
    assert_eq!(spec["merges"], json!([spec["layers"][1]]));

    // Asked for stays asked for, whoever has the volume when it is done.
    cloud.post(&format!("{WEB}/detach_volume"), json!({"volume": "data"})).await.expect(202);
    follow(&host, &instance, json!({"state": "stopped", "reason": "requested"})).await;
    cloud.post(&format!("{WEB}/attach_volume"), json!({"volume": "data"})).await.expect(202);
    let (_, spec) = data(&host, &instance).await;
    assert_eq!(spec["merges"], json!([spec["layers"][1]]));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    // The volume goes with all of it.
    cloud.post(&format!("{WEB}/detach_volume"), json!({"volume": "data"})).await.expect(202);
    follow(&host, &instance, json!({"state": "stopped", "reason": "requested"})).await;
    cloud.delete(&format!("{VOLUMES}/data")).await.expect(202);
    remove_all(&host).await;
    assert_eq!(layers(&cloud).await, 1);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

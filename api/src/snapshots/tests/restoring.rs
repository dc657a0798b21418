//! Going back, and making new ones.

use axum::http::Method;
use serde_json::{Value, json};

use super::{
    INSTANCES, SNAPSHOTS, VOLUMES, WEB, count, findings, follow, layers, running, snapshot, stop, stopped,
    web,
};
use crate::instances::place_pending;
use crate::testing::{Answer, TestCloud};

async fn restore(cloud: &TestCloud, name: &str, body: Value) -> Answer {
    cloud.post(&format!("{SNAPSHOTS}/{name}/restore"), body).await
}

#[tokio::test]
async fn a_stopped_instance_goes_back_with_all_its_volumes() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    let (_, before) = host.disks(&instance["id"]).await.unwrap();
    snapshot(&cloud, "one", json!({"instance": "web"})).await.expect(202);
    restore(&cloud, "one", json!({})).await.expect_problem(409, "wrong_state");
    follow(&host, &instance, running()).await;
    let refused = restore(&cloud, "one", json!({})).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("stop it first"), "{refused}");
    let (_, written) = host.disks(&instance["id"]).await.unwrap();
    cloud.call(Method::PATCH, &format!("{VOLUMES}/data"), Some(json!({"size_gib": 5}))).await.expect(202);
    follow(&host, &instance, running()).await;

    // Asked to stop is not stopped.
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    let refused = restore(&cloud, "one", json!({})).await.expect_problem(409, "wrong_state");
    assert!(
        refused["detail"].as_str().unwrap().ends_with("it is stopping; try again when it is stopped"),
        "{refused}"
    );
    follow(&host, &instance, stopped()).await;
    let dry = cloud.post(&format!("{SNAPSHOTS}/one/restore?dry_run=true"), json!({})).await;
    dry.expect(200);
    assert_eq!(host.removals().await, Vec::<Value>::new());
    restore(&cloud, "one", json!({"volume": "none"})).await.expect_problem(422, "validation_failed");
    restore(&cloud, "one", json!({})).await.expect(200);
    let (_, after) = host.disks(&instance["id"]).await.unwrap();
    let orders = host.removals().await;
    let mut removed: Vec<_> = orders[0]["layers"].as_array().unwrap().iter().map(Value::to_string).collect();
    let mut tops = Vec::new();
    for index in [0, 1] {
        let (held, top) = (&before[index]["volume"]["layers"][0], &written[index]["volume"]["layers"][1]);
        let chain = after[index]["volume"]["layers"].as_array().unwrap();
        assert_eq!((chain.len(), &chain[0]), (2, held));
        assert_ne!(&chain[1], top);
        tops.push(top.to_string());
    }
    removed.sort_unstable();
    tops.sort_unstable();
    assert_eq!((orders.len(), removed), (1, tops));
    assert_eq!(after[1]["volume"]["size_gib"], 5, "a volume never shrinks");
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    host.report_removed(json!([orders[0]["removal_id"]])).await;
    assert_eq!(layers(&cloud).await, 4);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn one_volume_goes_back_and_forth_between_snapshots() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    // Of an instance that waits for a host.
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny",
        "volumes": [{"size_gib": 1, "name": "data"}]});
    cloud.post(INSTANCES, body).await.expect(202);
    for name in ["one", "two", "three"] {
        snapshot(&cloud, name, json!({"volume": "data"})).await.expect(201);
    }
    cloud.post(&format!("{WEB}/detach_volume"), json!({"volume": "data"})).await.expect(202);
    cloud.delete(WEB).await.expect(202);
    for name in ["one", "three", "two", "two"] {
        restore(&cloud, name, json!({"volume": "data"})).await.expect(200);
        // What each snapshot holds, and what is written to.
        assert_eq!(layers(&cloud).await, 4);
    }
    cloud.delete(&format!("{SNAPSHOTS}/three")).await.expect(204);
    assert_eq!(layers(&cloud).await, 3);
    cloud.delete(&format!("{VOLUMES}/data")).await.expect(204);
    let gone = restore(&cloud, "one", json!({})).await.expect_problem(409, "wrong_state");
    assert!(gone["detail"].as_str().unwrap().contains("make a new one"), "{gone}");
    cloud.delete(&format!("{SNAPSHOTS}/one")).await.expect(204);
    assert_eq!(layers(&cloud).await, 2);
    cloud.delete(&format!("{SNAPSHOTS}/two")).await.expect(204);
    assert_eq!(layers(&cloud).await, 0);
}

#[tokio::test]
async fn snapshots_of_what_nobody_uses_add_no_layers() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post(VOLUMES, json!({"name": "data", "size_gib": 1})).await.expect(201);
    for name in ["one", "two", "three"] {
        snapshot(&cloud, name, json!({"volume": "data"})).await.expect(201);
        assert_eq!(layers(&cloud).await, 2);
    }
    let clone = |name: &str, of: &str| json!({"name": name, "source": {"volume": of}});
    cloud.post(VOLUMES, clone("copy", "data")).await.expect(201);
    cloud.post(VOLUMES, clone("copy-2", "copy")).await.expect(201);
    assert_eq!(layers(&cloud).await, 4);
    // As soon as an instance has had it, what it writes to counts.
    let body =
        json!({"name": "web", "image": "image", "instance_type": "tiny", "volumes": [{"volume": "data"}]});
    cloud.post(INSTANCES, body).await.expect(202);
    cloud.delete(WEB).await.expect(202);
    snapshot(&cloud, "four", json!({"volume": "data"})).await.expect(201);
    snapshot(&cloud, "five", json!({"volume": "data"})).await.expect(201);
    assert_eq!(layers(&cloud).await, 5);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn volumes_are_made_of_snapshots_and_of_volumes_to_which_nobody_writes() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    let make =
        async |name: &str, source: Value| cloud.post(VOLUMES, json!({"name": name, "source": source})).await;
    let live = make("clone", json!({"volume": "data"})).await.expect_problem(409, "wrong_state");
    assert!(live["detail"].as_str().unwrap().contains("take a snapshot"), "{live}");
    snapshot(&cloud, "one", json!({"instance": "web"})).await.expect(202);
    make("clone", json!({"snapshot": "one", "volume": "data"})).await.expect_problem(409, "wrong_state");
    follow(&host, &instance, running()).await;
    for (source, pointer) in [
        (json!({}), "/source"),
        (json!({"image": "image", "snapshot": "one"}), "/source"),
        (json!({"snapshot": "none"}), "/source/snapshot"),
        (json!({"snapshot": "one"}), "/source/volume"),
        (json!({"snapshot": "one", "volume": "none"}), "/source/volume"),
        (json!({"volume": "none"}), "/source/volume"),
    ] {
        let refused = make("clone", source).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    let small = json!({"name": "clone", "size_gib": 1, "source": {"snapshot": "one", "volume": "data"}});
    let small = cloud.post(VOLUMES, small).await.expect_problem(422, "validation_failed");
    assert_eq!(small["errors"][0]["pointer"], "/size_gib");
    let clone = make("clone", json!({"snapshot": "one", "volume": "data"})).await.expect(201);
    assert_eq!((&clone["size_gib"], clone.get("image")), (&json!(2), None));
    let root = instance["volumes"][0]["volume"]["name"].clone();
    let system = make("system", json!({"snapshot": "one", "volume": root})).await.expect(201);
    assert_eq!(system["image"]["name"], "image");
    assert_eq!(count(&cloud, "SELECT sum(disk_gib_reserved) FROM hosts").await, 6);

    // It is where the data is, and goes into an instance there.
    cloud.post(&format!("{WEB}/attach_volume"), json!({"volume": "clone"})).await.expect(202);
    let (_, disks) = host.disks(&instance["id"]).await.unwrap();
    assert_eq!(disks[2]["volume"]["layers"][0], disks[1]["volume"]["layers"][0]);
    follow(&host, &instance, running()).await;
    stop(&cloud, &host, &instance).await;
    let copy = make("copy", json!({"volume": "data"})).await.expect(201);
    assert_eq!(copy["size_gib"], 2);
    let (_, disks) = host.disks(&instance["id"]).await.unwrap();
    assert_eq!(disks[1]["volume"]["layers"].as_array().unwrap().len(), 3);
    make("copy-2", json!({"volume": "copy"})).await.expect(201);
    let full = json!({"name": "full", "size_gib": 95, "source": {"volume": "copy"}});
    cloud.post(VOLUMES, full).await.expect_problem(409, "insufficient_capacity");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());

    // In any order, nothing is left of it.
    cloud.delete(WEB).await.expect(202);
    let (generation, absent) =
        (count(&cloud, "SELECT generation FROM instances").await, json!({"state": "absent"}));
    host.report(&instance["id"], generation, 1, absent).await;
    for path in
        ["snapshots/one", "volumes/data", "volumes/copy-2", "volumes/clone", "volumes/copy", "volumes/system"]
    {
        let deleted = cloud.delete(&format!("/v1/projects/demo/{path}")).await;
        assert!([202, 204].contains(&deleted.status.as_u16()), "{path}: {deleted:?}");
        assert_eq!(findings(&cloud).await, Vec::<String>::new());
    }
    let orders: Vec<_> = host.removals().await.iter().map(|one| one["removal_id"].clone()).collect();
    host.report_removed(json!(orders)).await;
    assert_eq!(layers(&cloud).await, 0);
    assert_eq!(count(&cloud, "SELECT sum(disk_gib_reserved) FROM hosts").await, 0);
}

#[tokio::test]
async fn an_instance_is_made_again_from_its_snapshot() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    stop(&cloud, &host, &instance).await;
    snapshot(&cloud, "one", json!({"instance": "web"})).await.expect(201);
    snapshot(&cloud, "two", json!({"volume": "data"})).await.expect(201);
    let make = async |body: Value| {
        let mut whole = json!({"name": "again", "networks": []});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        cloud.post(INSTANCES, whole).await
    };
    for (body, pointer) in [
        (json!({"snapshot": "none"}), "/snapshot"),
        (json!({"snapshot": "two"}), "/snapshot"),
        (json!({"snapshot": "one", "image": "image"}), "/image"),
        (json!({"snapshot": "one", "volumes": [{"size_gib": 1}]}), "/volumes"),
        (json!({"snapshot": "one", "root_disk_gib": 9}), "/root_disk_gib"),
        (json!({"snapshot": "one", "instance_type": "none"}), "/instance_type"),
        (json!({"image": "image"}), "/instance_type"),
    ] {
        let refused = make(body).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    // What it was made from need not be there any more.
    cloud.delete(WEB).await.expect(202);
    let generation = count(&cloud, "SELECT generation FROM instances").await;
    host.report(&instance["id"], generation, 1, json!({"state": "absent"})).await;
    cloud.delete("/v1/projects/demo/images/image").await.expect(204);
    crate::images::sweep(&cloud.app).await.unwrap();
    cloud.join_host("host-2").await;

    let again = make(json!({"snapshot": "one"})).await.expect(202);
    assert_eq!((&again["instance_type"]["name"], &again["root_disk_gib"]), (&json!("tiny"), &json!(1)));
    assert_eq!((&again["image"]["name"], &again["image"]["gone"]), (&json!("image"), &json!(true)));
    let kept: Vec<_> =
        again["volumes"].as_array().unwrap().iter().map(|one| &one["delete_with_instance"]).collect();
    assert_eq!(kept, [&json!(true), &json!(false)]);
    let called = |disk: usize| again["volumes"][disk]["volume"]["name"].as_str().unwrap();
    assert!(called(0).starts_with("again-root-") && called(1).starts_with("again-disk-1-"), "{again}");
    place_pending(&cloud.app).await.unwrap();
    let (_, disks) = host.disks(&again["id"]).await.expect("it is where the data is");
    let sizes: Vec<_> = disks.iter().map(|disk| disk["volume"]["layers"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [2, 2]);
    assert!(disks[0]["volume"]["image"]["sha256"].is_string());
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn going_back_beside_a_start_is_one_of_both() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let instance = web(&cloud, &host).await;
    stop(&cloud, &host, &instance).await;
    snapshot(&cloud, "one", json!({"instance": "web"})).await.expect(201);
    follow(&host, &instance, stopped()).await;
    for round in 2..7 {
        cloud.pass(1);
        let start = format!("{WEB}/start");
        let (back, started) = tokio::join!(restore(&cloud, "one", json!({})), cloud.post(&start, json!({})));
        started.expect(202);
        match back.status.as_u16() {
            200 => {}
            409 => {
                back.expect_problem(409, "wrong_state");
            }
            other => panic!("{other}"),
        }
        let (generation, disks) = host.disks(&instance["id"]).await.unwrap();
        assert_eq!(disks[0]["volume"]["layers"].as_array().unwrap().len(), 2);
        host.report(&instance["id"], generation, round, running()).await;
        cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
        let (generation, _) = host.disks(&instance["id"]).await.unwrap();
        host.report(&instance["id"], generation, round, stopped()).await;
        assert_eq!(findings(&cloud).await, Vec::<String>::new());
    }
}

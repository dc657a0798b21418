//! Pools through the router, with hosts that the test plays.

mod fencing;
mod force;
mod lost;
mod merging;
mod migrating;
mod moving;
mod policies;
mod removal;
mod restart;
mod restart_refusals;
mod restored;
mod sending;

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::instances::place_pending;
use crate::testing::{TestCloud, TestHost};
use crate::verify;

const POOLS: &str = "/v1/pools";
const FAST: &str = "/v1/pools/fast";
const VOLUMES: &str = "/v1/projects/demo/volumes";
const DATA: &str = "/v1/projects/demo/volumes/data";
const INSTANCES: &str = "/v1/projects/demo/instances";
const WEB: &str = "/v1/projects/demo/instances/web";

fn directory(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// What an agent says of the pool `fast`, in this directory of so many GiB.
fn fast(identity: Uuid, gib: u64) -> Value {
    json!({"name": "fast", "state": {"state": "ready", "identity": identity, "total_bytes": gib << 30,
        "free_bytes": gib << 30}})
}

/// The same with so many GiB free.
fn with_free(mut pool: Value, gib: u64) -> Value {
    pool["state"]["free_bytes"] = json!(gib << 30);
    pool
}

fn instance(name: &str) -> Value {
    json!({"name": name, "image": "image", "instance_type": "tiny", "networks": [],
        "root_volume": {"pool": "fast"}})
}

/// Two hosts with the pool `fast` of 20 GiB.
async fn two_with_the_pool(cloud: &TestCloud) -> [TestHost<'_>; 2] {
    cloud.furnish().await;
    cloud.post(POOLS, json!({"name": "fast"})).await.expect(201);
    let hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    for host in &hosts {
        host.beat(json!([fast(directory(1), 20)])).await.expect(200);
    }
    hosts
}

/// An instance of this name on either host, and which one has it.
async fn made<'a, 'b>(
    cloud: &TestCloud,
    hosts: &'b [TestHost<'a>; 2],
    body: Value,
) -> (Value, &'b TestHost<'a>, &'b TestHost<'a>) {
    let web = cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let [one, other] = hosts;
    match one.disks(&web["id"]).await {
        Some(_) => (web, one, other),
        None => (web, other, one),
    }
}

async fn execute(cloud: &TestCloud, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&cloud.app.pool).await.unwrap();
}

async fn findings(cloud: &TestCloud) -> Vec<String> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let report = verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
    let codes = report.findings.into_iter().map(|finding| finding.code);
    // Nobody tells the hosts of these tests of their networks.
    let of_networks = |code: &String| code.starts_with("network_") || code.starts_with("host_network_");
    codes.filter(|code| !of_networks(code)).collect()
}

#[tokio::test]
async fn from_creation_to_deletion() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let body = json!({"name": "fast", "description": "NVMe"});
    let dry = cloud.post(&format!("{POOLS}?dry_run=true"), body.clone()).await.expect(200);
    assert_eq!(dry["disk_gib"], json!({"total": 0, "reserved": 0}));
    cloud.get(FAST).await.expect_problem(404, "not_found");
    let key = [("idempotency-key", "one")];
    let made = cloud.call_with(Method::POST, POOLS, &key, Some(body.clone())).await.expect(201);
    let again = cloud.call_with(Method::POST, POOLS, &key, Some(body.clone())).await.expect(201);
    assert_eq!(made["id"], again["id"]);
    cloud.post(POOLS, body).await.expect_problem(409, "name_taken");
    for (body, code) in [
        (json!({"name": "slow", "overcommit_percent": 5}), "out_of_range"),
        (json!({"name": "slow", "path": "/srv"}), "invalid"),
        (json!({"name": "slow", "low_percent": 51}), "out_of_range"),
    ] {
        let refused = cloud.post(POOLS, body).await;
        assert_eq!(refused.expect_problem(422, "validation_failed")["errors"][0]["code"], code);
    }
    let stale = json!({"overcommit_percent": 200});
    let stale = cloud.call_with(Method::PATCH, FAST, &[("if-match", "\"7.0\"")], Some(stale)).await;
    stale.expect_problem(412, "precondition_failed");
    let renamed = cloud.call(Method::PATCH, FAST, Some(json!({"name": "other"}))).await;
    renamed.expect_problem(422, "validation_failed");

    // Everybody sees what is offered; only operators change it.
    let member = cloud.user("member", false).await;
    let headers = [("authorization", member.as_str())];
    let listed = cloud.call_with(Method::GET, POOLS, &headers, None).await.expect(200);
    assert_eq!(listed["items"][0]["name"], "fast");
    cloud.call_with(Method::GET, FAST, &headers, None).await.expect(200);
    let patch = Some(json!({"description": "mine"}));
    cloud.call_with(Method::PATCH, FAST, &headers, patch.clone()).await.expect_problem(403, "forbidden");
    cloud.call_with(Method::DELETE, FAST, &headers, None).await.expect_problem(403, "forbidden");
    cloud.call(Method::PATCH, FAST, patch).await.expect(200);
    cloud.delete(FAST).await.expect(204);
    cloud.get(FAST).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_pool_is_what_its_hosts_say_and_gives_away_no_more() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let early = cloud.join_host("host-1").await;
    early.beat(json!([fast(directory(1), 20)])).await.expect(200);
    let unknown = cloud.get("/v1/hosts/host-1").await.expect(200)["shared_pools"][0].clone();
    assert_eq!(
        (&unknown["usable"], &unknown["detail"]),
        (&json!(false), &json!("the cloud has no pool of this name"))
    );
    let made = cloud.post(POOLS, json!({"name": "fast"})).await.expect(201);
    assert_eq!((&made["disk_gib"]["total"], &made["hosts"]), (&json!(20), &json!(1)));

    // Another directory under the same name.
    let other = cloud.join_host("host-2").await;
    other.beat(json!([fast(directory(2), 50)])).await.expect(200);
    let away = json!([{"name": "fast", "state": {"state": "unusable", "reason": "not mounted"}}]);
    cloud.join_host("host-3").await.beat(away).await.expect(200);
    let seen = cloud.get(FAST).await.expect(200);
    assert_eq!((&seen["disk_gib"]["total"], &seen["hosts"]), (&json!(20), &json!(1)));
    assert_eq!(findings(&cloud).await, ["host_pool_differs", "host_pool_unusable"]);
    let told = cloud.get("/v1/hosts/host-3").await.expect(200)["shared_pools"][0].clone();
    assert_eq!((&told["usable"], &told["detail"]), (&json!(false), &json!("not mounted")));

    let data = |size: i32| json!({"name": "data", "size_gib": size, "pool": "fast"});
    let large = cloud.post(VOLUMES, data(21)).await.expect_problem(409, "insufficient_capacity");
    assert!(large["detail"].as_str().unwrap().contains("the pool"), "{large}");
    let wrong = cloud.post(VOLUMES, json!({"name": "data", "size_gib": 1, "pool": "slow"})).await;
    assert_eq!(wrong.expect_problem(422, "validation_failed")["errors"][0]["pointer"], "/pool");
    let volume = cloud.post(VOLUMES, data(15)).await.expect(201);
    assert_eq!(volume["pool"]["name"], "fast");
    assert_eq!(cloud.get(FAST).await.expect(200)["disk_gib"], json!({"total": 20, "reserved": 15}));
    let grown = cloud.call(Method::PATCH, DATA, Some(json!({"size_gib": 21}))).await;
    grown.expect_problem(409, "insufficient_capacity");
    cloud.call(Method::PATCH, FAST, Some(json!({"overcommit_percent": 200}))).await.expect(200);
    cloud.call(Method::PATCH, DATA, Some(json!({"size_gib": 39}))).await.expect(200);
    // A pool that shrinks has given away what it has given away.
    early.beat(json!([fast(directory(1), 10)])).await.expect(200);
    assert_eq!(cloud.get(FAST).await.expect(200)["disk_gib"], json!({"total": 39, "reserved": 39}));
    cloud.delete(FAST).await.expect_problem(409, "in_use");

    early.beat(json!([])).await.expect(200);
    assert_eq!(cloud.get(FAST).await.expect(200)["hosts"], 0);
    let codes = findings(&cloud).await;
    assert!(codes.contains(&"pool_without_host".to_owned()), "{codes:?}");
    execute(&cloud, "UPDATE pools SET disk_gib_reserved = 1").await;
    assert!(findings(&cloud).await.contains(&"pool_reservation_drift".to_owned()));
}

#[tokio::test]
async fn one_that_is_almost_full_takes_no_new_volumes() {
    let cloud = TestCloud::start().await;
    let [one, _] = two_with_the_pool(&cloud).await;
    let data = |name: &str| json!({"name": name, "size_gib": 1, "pool": "fast"});
    let first = cloud.post(VOLUMES, data("data")).await.expect(201);
    let pool = cloud.get(FAST).await.expect(200);
    assert_eq!((&pool["low"], &pool["low_percent"]), (&json!(false), &json!(10)));
    let low = async || cloud.get(FAST).await.expect(200)["low"].clone();

    one.beat(json!([with_free(fast(directory(1), 20), 1)])).await.expect(200);
    assert_eq!(low().await, true);
    assert_eq!(findings(&cloud).await, ["pool_low"]);
    let refused = cloud.post(VOLUMES, data("more")).await.expect_problem(409, "insufficient_capacity");
    assert!(refused["detail"].as_str().unwrap().contains("almost full"), "{refused}");
    let clone = json!({"name": "clone", "source": {"volume": first["id"]}});
    cloud.post(VOLUMES, clone.clone()).await.expect_problem(409, "insufficient_capacity");
    cloud.post(INSTANCES, instance("web")).await.expect_problem(409, "insufficient_capacity");
    // What is there may grow and be used.
    cloud.call(Method::PATCH, DATA, Some(json!({"size_gib": 2}))).await.expect(200);

    // It does not change its mind with every block.
    one.beat(json!([with_free(fast(directory(1), 100), 11)])).await.expect(200);
    assert_eq!(low().await, true);
    let patch = async |percent: i32| {
        cloud.call(Method::PATCH, FAST, Some(json!({"low_percent": percent}))).await.expect(200)["low"]
            .clone()
    };
    assert_eq!((patch(0).await, patch(20).await), (json!(false), json!(true)));
    assert_eq!(patch(5).await, false);
    cloud.post(VOLUMES, clone).await.expect(201);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_clone_is_not_made_on_a_host_whose_disks_are_almost_full() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": []});
    let web = cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    host.report(&web["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;
    let clone = |name: &str| json!({"name": name, "source": {"volume": web["volumes"][0]["volume"]["id"]}});
    cloud.post(VOLUMES, clone("one")).await.expect(201);
    execute(&cloud, "UPDATE hosts SET pool_low = true").await;
    let refused = cloud.post(VOLUMES, clone("two")).await.expect_problem(409, "insufficient_capacity");
    assert!(refused["detail"].as_str().unwrap().contains("almost full"), "{refused}");
}

#[tokio::test]
async fn an_instance_goes_only_to_a_host_that_has_its_pools() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post(POOLS, json!({"name": "fast"})).await.expect(201);
    let bare = cloud.join_host("host-1").await;
    let with = cloud.join_host("host-2").await;
    with.beat(json!([fast(directory(1), 20)])).await.expect(200);
    with.beat(json!([])).await.expect(200);
    let mut body = instance("web");
    body["volumes"] = json!([{"size_gib": 2, "name": "data", "pool": "fast"}]);
    for (field, value, pointer) in [
        ("volumes", json!([{"volume": "data", "pool": "fast"}]), "/volumes/0/pool"),
        ("volumes", json!([{"size_gib": 1, "pool": "slow"}]), "/volumes/0/pool"),
        ("root_volume", json!({"pool": "slow"}), "/root_volume/pool"),
    ] {
        let mut wrong = instance("web");
        wrong[field] = value;
        let problem = cloud.post(INSTANCES, wrong).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let web = cloud.post(INSTANCES, body).await.expect(202);
    assert_eq!(cloud.get(FAST).await.expect(200)["disk_gib"]["reserved"], 3);
    place_pending(&cloud.app).await.unwrap();
    let pending = cloud.get(WEB).await.expect(200);
    assert_eq!(pending["placement"]["rejections"], json!([{"reason": "pool_missing", "hosts": 2}]));
    // A host that gets it does not wait for the next look.
    with.beat(json!([fast(directory(1), 20)])).await.expect(200);
    place_pending(&cloud.app).await.unwrap();
    let (_, disks) = with.disks(&web["id"]).await.expect("it is elsewhere");
    assert_eq!((&disks[0]["volume"]["pool"], &disks[1]["volume"]["pool"]), (&json!("fast"), &json!("fast")));
    let hosts = cloud.get("/v1/hosts").await.expect(200);
    assert_eq!(hosts["items"][1]["disk_gib"]["reserved"], 0, "no host's own disk is taken");
    let digest = disks[0]["volume"]["image"]["sha256"].as_str().unwrap();
    let blob = format!("/agent/v1/blobs/{digest}");
    with.call(Method::GET, &blob, None).await;
    assert_eq!(bare.call(Method::GET, &blob, None).await.status, 404);

    // Another instance is on the other host, which could not give it such a volume.
    execute(&cloud, "UPDATE hosts SET vcpus_capacity = vcpus_reserved WHERE name = 'host-2'").await;
    let local = json!({"name": "far", "image": "image", "instance_type": "tiny", "networks": []});
    let far = cloud.post(INSTANCES, local).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    bare.disks(&far["id"]).await.expect("it is on the host that has room");
    cloud.post(VOLUMES, json!({"name": "more", "size_gib": 1, "pool": "fast"})).await.expect(201);
    let refused = cloud.post(&format!("{INSTANCES}/far/attach_volume"), json!({"volume": "more"})).await;
    let refused = refused.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("does not have the pool fast"), "{refused}");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_volume_goes_from_an_instance_on_one_host_to_one_on_another() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = made(&cloud, &hosts, instance("web")).await;
    let running = json!({"state": "running"});
    home.report(&web["id"], 1, 1, running.clone()).await;
    let sql = format!("UPDATE hosts SET vcpus_capacity = vcpus_reserved WHERE id = '{}'", home.id);
    execute(&cloud, &sql).await;
    let (next, there, _) = made(&cloud, &hosts, instance("next")).await;
    assert_eq!(there.id, away.id);
    away.report(&next["id"], 1, 1, running.clone()).await;
    cloud.post(VOLUMES, json!({"name": "data", "size_gib": 2, "pool": "fast"})).await.expect(201);
    for (name, id, host) in [("web", &web["id"], home), ("next", &next["id"], away)] {
        let path = format!("{INSTANCES}/{name}");
        cloud.post(&format!("{path}/attach_volume"), json!({"volume": "data"})).await.expect(202);
        let (generation, disks) = host.disks(id).await.unwrap();
        assert_eq!(disks.len(), 2);
        host.report(id, generation, 1, running.clone()).await;
        assert_eq!(cloud.get(DATA).await.expect(200)["state"], "attached");
        cloud.post(&format!("{path}/detach_volume"), json!({"volume": "data"})).await.expect(202);
        // Until its host has said so, nobody else gets it.
        let early = cloud.post(&format!("{INSTANCES}/next/attach_volume"), json!({"volume": "data"})).await;
        early.expect_problem(409, "in_use");
        host.report(id, generation + 1, 1, running.clone()).await;
        assert_eq!(cloud.get(DATA).await.expect(200)["state"], "available");
    }
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

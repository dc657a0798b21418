//! Policies that ask for the pool, however it comes to be the pool.

use axum::http::Method;
use serde_json::{Value, json};

use super::{DATA, FAST, INSTANCES, VOLUMES, instance, two_with_the_pool};
use crate::testing::{Answer, TestCloud, TestHost};

const SNAPSHOTS: &str = "/v1/projects/demo/snapshots";

/// A cloud with the volumes `data` in the pool `fast` and `local` in none, and a snapshot of each.
async fn with_volumes(cloud: &TestCloud) -> [TestHost<'_>; 2] {
    let hosts = two_with_the_pool(cloud).await;
    cloud.post(VOLUMES, json!({"name": "data", "size_gib": 1, "pool": "fast"})).await.expect(201);
    cloud.post(VOLUMES, json!({"name": "local", "size_gib": 1})).await.expect(201);
    for volume in ["data", "local"] {
        let body = json!({"name": format!("of-{volume}"), "volume": volume});
        cloud.post(SNAPSHOTS, body).await.expect(201);
    }
    hosts
}

/// Somebody with these statements in project `demo`.
async fn somebody(cloud: &TestCloud, name: &str, statements: Value) -> String {
    let bearer = cloud.user(name, false).await;
    let document = json!({"Version": "2012-10-17", "Statement": statements});
    let rules = format!("rules-of-{name}");
    cloud.post("/v1/projects/demo/policies", json!({"name": rules, "document": document})).await.expect(201);
    let attachment = json!({"policy": rules, "user": name});
    cloud.post("/v1/projects/demo/policy_attachments", attachment).await.expect(201);
    bearer
}

async fn post(cloud: &TestCloud, bearer: &str, path: &str, body: Value) -> Answer {
    cloud.call_with(Method::POST, path, &[("authorization", bearer)], Some(body)).await
}

fn volume(name: &str, with: (&str, Value)) -> Value {
    let mut body = json!({"name": name, "size_gib": 1});
    body[with.0] = with.1;
    body
}

#[tokio::test]
async fn a_denied_pool_is_denied_by_its_id_and_by_what_is_in_it() {
    let cloud = TestCloud::start().await;
    let _hosts = with_volumes(&cloud).await;
    let id = cloud.get(FAST).await.expect(200)["id"].clone();
    let deny = |sid: &str, action: &str, key: &str| {
        let condition = json!({"StringEquals": {key: "fast"}});
        json!({"Sid": sid, "Effect": "Deny", "Action": action, "Resource": "*", "Condition": condition})
    };
    let all = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    let rules = json!([
        all,
        deny("NotFast", "volume:CreateVolume", "volume:Pool"),
        deny("NotFastRoot", "compute:*", "compute:RootPool")
    ]);
    let dev = somebody(&cloud, "dev", rules).await;
    let denied = async |path: &str, body: Value| {
        let problem = post(&cloud, &dev, path, body).await.expect_problem(403, "forbidden");
        let sid = problem["denial"]["statements"][0]["sid"].as_str().unwrap();
        assert!(sid.starts_with("NotFast"), "{problem}");
    };
    for pool in [json!("fast"), id] {
        denied(VOLUMES, volume("new", ("pool", pool.clone()))).await;
        let mut rooted = instance("web");
        rooted["root_volume"]["pool"] = pool.clone();
        denied(INSTANCES, rooted).await;
        let mut further = instance("web");
        further["root_volume"] = json!({});
        further["volumes"] = json!([{"size_gib": 1, "pool": pool}]);
        denied(INSTANCES, further).await;
    }
    let data = cloud.get(DATA).await.expect(200)["id"].clone();
    for of in [json!("data"), data] {
        denied(VOLUMES, volume("new", ("source", json!({"volume": of})))).await;
        denied(VOLUMES, volume("new", ("source", json!({"snapshot": "of-data", "volume": of})))).await;
    }
    denied(VOLUMES, volume("new", ("source", json!({"snapshot": "of-data"})))).await;
    // What is in no pool is not meant, and what does not exist is said to be that.
    post(&cloud, &dev, VOLUMES, volume("one", ("source", json!({"snapshot": "of-local"})))).await.expect(201);
    post(&cloud, &dev, VOLUMES, volume("two", ("source", json!({"volume": "local"})))).await.expect(201);
    let nowhere = post(&cloud, &dev, VOLUMES, volume("new", ("pool", json!("slow")))).await;
    assert_eq!(nowhere.expect_problem(422, "validation_failed")["errors"][0]["pointer"], "/pool");

    // An instance with its system in the pool, as it is and as a snapshot of it.
    cloud.post(INSTANCES, instance("system")).await.expect(202);
    cloud.post(SNAPSHOTS, json!({"name": "of-system", "instance": "system"})).await.expect(201);
    denied(INSTANCES, json!({"name": "web", "snapshot": "of-system"})).await;
    denied(INSTANCES, json!({"name": "web", "source": {"instance": "system"}})).await;
    let elsewhere = json!({"name": "web", "snapshot": "of-system", "root_volume": {"pool": "slow"}});
    let problem = post(&cloud, &dev, INSTANCES, elsewhere).await.expect_problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/root_volume/pool");
}

#[tokio::test]
async fn the_pool_of_a_source_gives_rights_and_tells_nothing() {
    let cloud = TestCloud::start().await;
    let _hosts = with_volumes(&cloud).await;
    let id = cloud.get(FAST).await.expect(200)["id"].clone();
    let only_fast = json!({"StringEquals": {"volume:Pool": "fast"}});
    let create =
        json!({"Effect": "Allow", "Action": "volume:CreateVolume", "Resource": "*", "Condition": only_fast});
    let sources = ["volume:RestoreSnapshot", "volume:SnapshotVolume", "volume:Get*"];
    let sources = json!({"Effect": "Allow", "Action": sources, "Resource": "*"});
    let dev = somebody(&cloud, "dev", json!([create, sources])).await;
    for (name, with) in [
        ("one", ("pool", id)),
        ("two", ("source", json!({"snapshot": "of-data"}))),
        ("three", ("source", json!({"volume": "data"}))),
    ] {
        post(&cloud, &dev, VOLUMES, volume(name, with)).await.expect(201);
    }
    let local = post(&cloud, &dev, VOLUMES, volume("new", ("source", json!({"volume": "local"})))).await;
    local.expect_problem(403, "forbidden");

    // Whoever may not use a source does not hear from the decision whether there is one.
    let deny = json!({"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": only_fast});
    let all = json!({"Effect": "Allow", "Action": "volume:CreateVolume", "Resource": "*"});
    let blind = somebody(&cloud, "blind", json!([all, deny])).await;
    let errors = async |source: Value| {
        let answer = post(&cloud, &blind, VOLUMES, volume("new", ("source", source))).await;
        answer.expect_problem(422, "validation_failed")["errors"].clone()
    };
    assert_eq!(errors(json!({"snapshot": "of-data"})).await, errors(json!({"snapshot": "none"})).await);
    assert_eq!(errors(json!({"volume": "data"})).await, errors(json!({"volume": "none"})).await);
}

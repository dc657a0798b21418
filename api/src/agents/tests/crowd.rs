//! Many agents at once, and the connections to the database.

use axum::http::Method;
use serde_json::json;

use super::create;
use crate::instances::place_pending;
use crate::testing::{TestCloud, inventory, until_waiting};

#[tokio::test]
async fn a_crowd_of_agents_waits_its_turn_and_leaves_connections_to_users() {
    // One of its own listens for nudges, one holds the lock below.
    let cloud = TestCloud::start_sharing(4, 2).await;
    cloud.furnish().await;
    let mut hosts = Vec::new();
    for n in 0..12 {
        hosts.push(cloud.join_host(&format!("host-{n}")).await);
    }
    // In a crowd each waits for locks of the others.
    let mut holder = cloud.app.begin().await.unwrap();
    sqlx::query("SELECT FROM hosts FOR UPDATE").execute(&mut *holder).await.unwrap();
    let session = json!({"protocol_version": 1, "agent_version": "test", "inventory": inventory()});
    let crowd = hosts.iter().map(|host| host.call(Method::POST, "/agent/v1/sessions", Some(session.clone())));
    let meanwhile = async {
        until_waiting(&cloud.app.pool, 2).await;
        cloud.get("/v1/projects/demo").await.expect(200);
        cloud.post("/v1/projects", json!({"name": "another"})).await.expect(201);
        place_pending(&cloud.app).await.unwrap();
        holder.commit().await.unwrap();
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(crowd), meanwhile);
    for answer in answers {
        answer.expect(200);
    }
}

#[tokio::test]
async fn whatever_an_agent_asks_takes_one_connection_at_a_time() {
    let cloud = TestCloud::start_sharing(8, 1).await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let created = create(&cloud).await;
    let id = &created["id"];
    assert_eq!(host.feed(0).await["objects"].as_array().unwrap().len(), 2, "the instance and its network");
    host.report(id, 1, 1, json!({"state": "running"})).await;
    host.report_networks(&json!(1), json!([])).await.expect(200);
    host.beat(json!([])).await.expect(200);
    let insight = json!({"epoch": host.epoch, "samples": [], "guests": []});
    host.call(Method::POST, "/agent/v1/insight", Some(insight)).await.expect(200);
    let image = cloud.get("/v1/projects/demo/images/image").await.expect(200);
    let blob = format!("/agent/v1/blobs/{}", image["sha256"].as_str().unwrap());
    assert_eq!(host.call(Method::GET, &blob, None).await.body, vec![0; 4096]);
    let wrong = json!({"csr_pem": "garbage"});
    host.call(Method::POST, "/agent/v1/renew", Some(wrong)).await.expect_problem(422, "validation_failed");
    // A second one, that waits for news as the first does, is not kept from them.
    let other = cloud.join_host("host-2").await;
    let revision = other.feed(0).await["revision"].clone();
    let path = format!("/agent/v1/desired?epoch={}&after={revision}&wait_seconds=2", other.epoch);
    let (polled, beaten) = tokio::join!(other.call(Method::GET, &path, None), host.beat(json!([])));
    polled.expect(200);
    beaten.expect(200);
    assert_eq!(cloud.get("/v1/projects/demo/instances/web").await.expect(200)["state"], "running");
}

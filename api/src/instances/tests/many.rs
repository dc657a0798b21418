//! One verb for several instances.

use serde_json::{Value, json};

use super::{INSTANCES, all_but, findings};
use crate::instances::place_pending;
use crate::testing::TestCloud;

const ACTIONS: &str = "/v1/projects/demo/instance_actions";

async fn three(cloud: &TestCloud) -> Vec<Value> {
    let mut made = Vec::new();
    for (name, tier) in [("web-1", "web"), ("web-2", "web"), ("db", "db")] {
        let body = json!({"name": name, "image": "image", "instance_type": "tiny", "labels": {"tier": tier}});
        made.push(cloud.post(INSTANCES, body).await.expect(202));
    }
    made
}

#[tokio::test]
async fn a_verb_is_for_all_with_a_label_and_each_answers_for_itself() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let made = three(&cloud).await;
    place_pending(&cloud.app).await.unwrap();
    for one in &made {
        host.report(&one["id"], 1, 1, json!({"state": "running"})).await;
    }
    let stop = json!({"action": "stop", "label_selector": "tier=web", "timeout_seconds": 7});
    let dry = cloud.post(&format!("{ACTIONS}?dry_run=true"), stop.clone()).await.expect(200);
    assert_eq!(dry["items"].as_array().unwrap().len(), 2);
    assert_eq!(cloud.get(&format!("{INSTANCES}/web-1")).await.expect(200)["state"], "running");

    let key = [("idempotency-key", "evening")];
    let post = axum::http::Method::POST;
    let stopped = cloud.call_with(post.clone(), ACTIONS, &key, Some(stop.clone())).await.expect(202);
    let again = cloud.call_with(post, ACTIONS, &key, Some(stop)).await.expect(202);
    assert_eq!(again, stopped);
    let names: Vec<_> =
        stopped["items"].as_array().unwrap().iter().map(|item| &item["instance"]["name"]).collect();
    assert_eq!(names, ["web-1", "web-2"]);
    assert_eq!(stopped["items"][0]["operation"]["kind"], "stop_instance");
    let page = host.desired(0).await;
    let wanted = page["objects"].as_array().unwrap().iter().find(|one| one["id"] == made[0]["id"]).unwrap();
    assert_eq!(wanted["stop"], json!({"mode": "graceful", "timeout_seconds": 7}));
    host.report(&made[0]["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;

    // What one refuses keeps no other from it.
    let reboot = json!({"action": "reboot", "instances": ["db", "web-1"]});
    let rebooted = cloud.post(ACTIONS, reboot).await.expect(202);
    let items = rebooted["items"].as_array().unwrap();
    assert_eq!(
        (&items[0]["instance"]["name"], &items[0]["error"]["code"]),
        (&json!("web-1"), &json!("wrong_state"))
    );
    assert!(items[0]["error"]["detail"].as_str().unwrap().contains("start it instead"));
    assert_eq!(items[1]["operation"]["status"], "running");

    let audit = cloud.get("/v1/projects/demo/audit_records").await.expect(200);
    let stops =
        audit["items"].as_array().unwrap().iter().filter(|one| one["action"] == "compute:StopInstance");
    assert_eq!(stops.count(), 2, "each has a record of its own");
    let deleted =
        cloud.post(ACTIONS, json!({"action": "delete", "label_selector": "tier"})).await.expect(202);
    assert_eq!(deleted["items"].as_array().unwrap().len(), 3);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_selection_that_says_nothing_is_refused() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    three(&cloud).await;
    for wrong in [
        json!({"action": "delete"}),
        json!({"action": "delete", "label_selector": ""}),
        json!({"action": "delete", "label_selector": " , "}),
        json!({"action": "delete", "instances": []}),
        json!({"action": "delete", "label_selector": "tier", "instances": ["db"]}),
        json!({"action": "delete", "label_selector": "tier", "force": true}),
        json!({"action": "delete", "instances": ["db", "nobody"]}),
        json!({"action": "explode", "label_selector": "tier"}),
    ] {
        cloud.post(ACTIONS, wrong).await.expect_problem(422, "validation_failed");
    }
    assert_eq!(cloud.get(INSTANCES).await.expect(200)["items"].as_array().unwrap().len(), 3);
    let none =
        cloud.post(ACTIONS, json!({"action": "delete", "label_selector": "tier=none"})).await.expect(202);
    assert_eq!(none["items"], json!([]));
}

#[tokio::test]
async fn who_may_not_do_it_to_one_does_it_to_none() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    three(&cloud).await;
    let one = "crn:cumulo:compute:demo:instance/web-2";
    let ada = all_but(&cloud, "compute:DeleteInstance", one).await;
    let ada = [("authorization", ada.as_str())];
    let delete = json!({"action": "delete", "label_selector": "tier=web"});
    let post = axum::http::Method::POST;
    cloud.call_with(post.clone(), ACTIONS, &ada, Some(delete)).await.expect_problem(403, "forbidden");
    assert_eq!(cloud.get(INSTANCES).await.expect(200)["items"].as_array().unwrap().len(), 3);
    let delete = json!({"action": "delete", "label_selector": "tier=db"});
    cloud.call_with(post, ACTIONS, &ada, Some(delete)).await.expect(202);
    assert_eq!(cloud.get(INSTANCES).await.expect(200)["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_the_caller_may_not_know_of_is_not_there() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    three(&cloud).await;
    let hidden = "crn:cumulo:compute:demo:instance/web-2";
    let ada = cloud.user("ada", false).await;
    let project = "/v1/projects/demo";
    let document = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": ["compute:GetInstance", "compute:StopInstance"], "Resource": hidden}]});
    let policy = json!({"name": "hides", "document": document});
    cloud.post(&format!("{project}/policies"), policy).await.expect(201);
    let attachment = json!({"policy": "hides", "user": "ada"});
    cloud.post(&format!("{project}/policy_attachments"), attachment).await.expect(201);
    let ada = [("authorization", ada.as_str())];
    let post = axum::http::Method::POST;
    let mut errors = Vec::new();
    for name in ["web-2", "nobody"] {
        let stop = json!({"action": "stop", "instances": [name, "none"]});
        let refused = cloud.call_with(post.clone(), ACTIONS, &ada, Some(stop)).await;
        errors.push(refused.expect_problem(422, "validation_failed")["errors"].clone());
    }
    assert_eq!(errors[0], errors[1]);
    let stop = json!({"action": "stop", "label_selector": "tier"});
    let stopped = cloud.call_with(post, ACTIONS, &ada, Some(stop)).await.expect(202);
    let names: Vec<_> =
        stopped["items"].as_array().unwrap().iter().map(|item| &item["instance"]["name"]).collect();
    assert_eq!(names, ["web-1", "db"]);
}

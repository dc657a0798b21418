//! Cards on their way out of their instances.

use serde_json::{Value, json};

use super::{PORTS, findings, port};
use crate::instances::place_pending;
use crate::ports::release_of_lost_hosts;
use crate::testing::{TestCloud, TestHost};

const INSTANCES: &str = "/v1/projects/demo/instances";
const WEB: &str = "/v1/projects/demo/instances/web";
const DETACH: &str = "/v1/projects/demo/instances/web/detach_port";

fn instance(name: &str, networks: &Value) -> Value {
    json!({"name": name, "image": "image", "instance_type": "tiny", "networks": networks})
}

/// A host, and on it the running instance `web` with a card of its own and the port `mine`.
async fn running(cloud: &TestCloud) -> (TestHost<'_>, Value) {
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    cloud.post(PORTS, port("mine")).await.expect(201);
    let networks = json!([{"network": "default"}, {"port": "mine"}]);
    let made = cloud.post(INSTANCES, instance("web", &networks)).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&made["id"], 1, 1, json!({"state": "running"})).await;
    (host, made)
}

async fn mine(cloud: &TestCloud) -> Value {
    cloud.get(&format!("{PORTS}/mine")).await.expect(200)
}

/// The address that the next port gets; it goes at once.
async fn next_address(cloud: &TestCloud) -> Value {
    let next = cloud.post(PORTS, port("next")).await.expect(201)["addresses"][0]["address"].clone();
    cloud.delete(&format!("{PORTS}/next")).await.expect(204);
    next
}

#[tokio::test]
async fn a_port_is_free_when_its_host_has_reported_without_the_card_and_no_sooner() {
    let cloud = TestCloud::start().await;
    let (host, web) = running(&cloud).await;
    let other = cloud.post(INSTANCES, instance("other", &json!([]))).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&other["id"], 1, 1, json!({"state": "running"})).await;
    let mac = mine(&cloud).await["mac"].clone();

    let detached = cloud.post(DETACH, json!({"port": "mine"})).await.expect(202);
    assert_eq!(detached["nics"][0].get("detaching"), None);
    assert_eq!(detached["nics"][1]["detaching"], true, "{detached}");
    // The host is told at once, and lets nothing pass.
    let page = host.feed(0).await;
    let objects = page["objects"].as_array().unwrap();
    let spec = objects.iter().find(|object| object["id"] == web["id"]).unwrap();
    assert_eq!(spec["nics"].as_array().unwrap().len(), 1);
    assert_eq!(host.network().await["networks"][0]["ports"].as_array().unwrap().len(), 1);

    let taken = async || {
        let shown = mine(&cloud).await;
        assert_eq!((&shown["status"], &shown["instance"]["name"]), (&json!("detaching"), &json!("web")));
        let attach = cloud.post(&format!("{INSTANCES}/other/attach_port"), json!({"port": "mine"})).await;
        let problem = attach.expect_problem(409, "in_use");
        assert!(problem["detail"].as_str().unwrap().contains("the port mine is being detached"), "{problem}");
        let back = cloud.post(&format!("{WEB}/attach_port"), json!({"port": "mine"})).await;
        back.expect_problem(409, "in_use");
        cloud.delete(&format!("{PORTS}/mine")).await.expect_problem(409, "in_use");
    };
    taken().await;
    let again = cloud.post(DETACH, json!({"port": "mine"})).await.expect(202);
    assert_eq!(again["operation"]["id"], detached["operation"]["id"], "asking twice is asking once");
    host.report_leaving(&web["id"], 1, json!([])).await;
    taken().await;
    host.report_leaving(&web["id"], 2, json!([mac])).await;
    taken().await;
    assert_eq!(cloud.get(WEB).await.expect(200)["operation"]["status"], "running");

    host.report_leaving(&web["id"], 2, json!([])).await;
    let shown = cloud.get(WEB).await.expect(200);
    assert_eq!((&shown["operation"]["status"], &shown["nics"][1]), (&json!("succeeded"), &Value::Null));
    assert_eq!(
        (mine(&cloud).await.get("instance"), &mine(&cloud).await["status"]),
        (None, &json!("pending"))
    );
    cloud.post(&format!("{INSTANCES}/other/attach_port"), json!({"port": "mine"})).await.expect(202);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_address_of_a_card_is_nobodys_before_its_guest_has_let_go() {
    let cloud = TestCloud::start().await;
    let (host, web) = running(&cloud).await;
    let own = web["nics"][0].clone();
    let free = next_address(&cloud).await;
    cloud.post(DETACH, json!({"port": own["port"]["id"]})).await.expect(202);
    assert_eq!(next_address(&cloud).await, free);
    let body = json!({"name": "next", "network": "default", "addresses": [{"address": own["addresses"][0]}]});
    cloud.post(PORTS, body).await.expect_problem(409, "address_taken");
    cloud.delete("/v1/projects/demo/networks/default").await.expect_problem(409, "in_use");
    // While the guest keeps it, another change does not free it, and switching the guest off does.
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    host.report_leaving(&web["id"], 3, json!([own["mac"]])).await;
    assert_eq!(next_address(&cloud).await, free);
    let stopped = json!({"state": "stopped", "reason": "requested"});
    host.report(&web["id"], 3, 1, stopped).await;
    assert_eq!(next_address(&cloud).await, own["addresses"][0]);
    assert_eq!(cloud.get(PORTS).await.expect(200)["items"].as_array().unwrap().len(), 1);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_dead_host_has_no_cards() {
    let cloud = TestCloud::start().await;
    let (mut host, web) = running(&cloud).await;
    let own = web["nics"][0].clone();
    cloud.post(DETACH, json!({"port": "mine"})).await.expect(202);
    cloud.pass(60);
    release_of_lost_hosts(&cloud.app).await.unwrap();
    assert_eq!(mine(&cloud).await["status"], "detaching", "silence is no word");
    let dead = json!({"no_guest_runs": true});
    cloud.post(&format!("/v1/hosts/{}/declare_dead", host.id), dead).await.expect(200);
    release_of_lost_hosts(&cloud.app).await.unwrap();
    assert_eq!(mine(&cloud).await.get("instance"), None);
    assert_eq!(cloud.get(WEB).await.expect(200)["operation"]["status"], "succeeded");
    // What is asked of a dead host is so at once.
    cloud.post(DETACH, json!({"port": own["port"]["id"]})).await.expect(202);
    release_of_lost_hosts(&cloud.app).await.unwrap();
    assert_eq!(cloud.get(WEB).await.expect(200)["nics"], json!([]));
    assert_eq!(next_address(&cloud).await, own["addresses"][0]);
    host.open_session().await;
    assert_eq!(host.network().await["networks"], json!([]));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_agent_that_does_not_tell_of_cards_is_believed_to_have_done_as_it_was_told() {
    let cloud = TestCloud::start().await;
    let (host, web) = running(&cloud).await;
    cloud.post(DETACH, json!({"port": "mine"})).await.expect(202);
    host.report_leaving(&web["id"], 1, Value::Null).await;
    assert_eq!(mine(&cloud).await["status"], "detaching");
    host.report_leaving(&web["id"], 2, Value::Null).await;
    assert_eq!(mine(&cloud).await.get("instance"), None);
}

#[tokio::test]
async fn two_guests_that_let_go_at_once_are_heard_in_one_report() {
    let cloud = TestCloud::start().await;
    let (host, web) = running(&cloud).await;
    let db = cloud.post(INSTANCES, instance("db", &json!([{"network": "default"}]))).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&db["id"], 1, 1, json!({"state": "running"})).await;
    cloud.post(DETACH, json!({"port": "mine"})).await.expect(202);
    let detach = format!("{INSTANCES}/db/detach_port");
    cloud.post(&detach, json!({"port": db["nics"][0]["port"]["id"]})).await.expect(202);
    cloud.delete(WEB).await.expect(202);
    let absent = |id: &Value, generation| json!({"id": id, "generation": generation, "boot": 1, "state": {"state": "absent"}});
    let running = json!({"id": db["id"], "generation": 2, "boot": 1, "state": {"state": "running"},
        "leaving_cards": []});
    let body = json!({"epoch": host.epoch, "reports": [absent(&web["id"], 3), running]});
    host.call(axum::http::Method::POST, "/agent/v1/observed", Some(body)).await.expect(200);
    let left = cloud.get(PORTS).await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1, "{left}");
    assert_eq!(mine(&cloud).await.get("instance"), None);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

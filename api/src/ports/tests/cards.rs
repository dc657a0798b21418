//! Cards of instances, and how they fare.

use serde_json::{Value, json};

use super::{PORTS, findings, port};
use crate::instances::place_pending;
use crate::networks::spread;
use crate::testing::TestCloud;

const INSTANCES: &str = "/v1/projects/demo/instances";
const WEB: &str = "/v1/projects/demo/instances/web";

fn web(networks: Value) -> Value {
    let mut body = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    if !networks.is_null() {
        body["networks"] = networks;
    }
    body
}

async fn ports(cloud: &TestCloud) -> Vec<Value> {
    cloud.get(PORTS).await.expect(200)["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn an_instance_gets_the_default_network_what_it_names_or_none() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let plan = cloud.post(&format!("{INSTANCES}?dry_run=true"), web(Value::Null)).await.expect(200);
    assert_eq!(plan["plan"]["quota"][5], json!({"resource": "ports", "limit": 100, "used": 0, "after": 1}));
    let made = cloud.post(INSTANCES, web(Value::Null)).await.expect(202);
    assert_eq!(made["nics"][0]["network"]["name"], "default");
    assert_eq!(made["nics"][0]["addresses"], json!(["10.0.0.3"]));
    // Nobody has placed it: everything goes at once.
    cloud.delete(WEB).await.expect(202);
    assert!(ports(&cloud).await.is_empty());
    assert_eq!(cloud.post(INSTANCES, web(json!([]))).await.expect(202)["nics"], json!([]));
    cloud.delete(WEB).await.expect(202);

    cloud.post(PORTS, port("mine")).await.expect(201);
    let cards = json!([{"port": "mine"}, {"network": "default", "address": "10.0.0.77"}]);
    let made = cloud.post(INSTANCES, web(cards)).await.expect(202);
    assert_eq!(made["nics"][0]["port"]["name"], "mine");
    assert_eq!(made["nics"][1]["addresses"], json!(["10.0.0.77"]));
    let mine = cloud.get(&format!("{PORTS}/mine")).await.expect(200);
    let mut shouted = web(json!([{"port": mine["id"].as_str().unwrap().to_uppercase()}]));
    shouted["name"] = json!("other");
    cloud.post(INSTANCES, shouted).await.expect_problem(409, "in_use");
    assert_eq!((&mine["instance"]["name"], &mine["dns_name"]), (&json!("web"), &json!("web.demo.internal")));
    cloud.delete(&format!("{PORTS}/mine")).await.expect_problem(409, "in_use");
    let of_web = cloud.get(&format!("{PORTS}?instance=web")).await.expect(200);
    assert_eq!(of_web["items"].as_array().unwrap().len(), 2);
    for (cards, pointer) in [
        (json!([{}]), "/networks/0"),
        (json!([{"network": "default", "port": "mine"}]), "/networks/0"),
        (json!([{"network": "none"}]), "/networks/0/network"),
        (json!([{"network": "default"}, {"port": "none"}]), "/networks/1/port"),
        (json!([{"port": "a\0b"}]), "/networks/0/port"),
        (json!([{"network": "default", "address": "10.9.0.1"}]), "/networks/0/address"),
        (json!([{"network": "default", "security_groups": ["none"]}]), "/networks/0/security_groups/0"),
    ] {
        let mut body = web(cards);
        body["name"] = json!("other");
        let problem = cloud.post(INSTANCES, body).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    cloud.delete(WEB).await.expect(202);
    let left = ports(&cloud).await;
    assert_eq!((left.len(), &left[0]["name"]), (1, &json!("mine")));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn addresses_are_free_only_when_the_host_has_let_go() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let made = cloud.post(INSTANCES, web(Value::Null)).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&made["id"], 1, 1, json!({"state": "running"})).await;
    cloud.delete(WEB).await.expect(202);
    assert_eq!(cloud.post(PORTS, port("next")).await.expect(201)["addresses"][0]["address"], "10.0.0.4");
    host.report(&made["id"], 2, 1, json!({"state": "absent"})).await;
    assert_eq!(cloud.post(PORTS, port("last")).await.expect(201)["addresses"][0]["address"], "10.0.0.3");
    spread(&cloud.app).await.unwrap();
    assert_eq!(host.network().await["networks"], json!([]));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn cards_are_plugged_in_and_pulled_out_with_their_networks() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let made = cloud.post(INSTANCES, web(json!([]))).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&made["id"], 1, 1, json!({"state": "running"})).await;
    let seen = host.feed(0).await["revision"].as_i64().unwrap();

    cloud.post(PORTS, port("mine")).await.expect(201);
    let attached = cloud.post(&format!("{WEB}/attach_port"), json!({"port": "mine"})).await.expect(202);
    assert_eq!(attached["operation"]["kind"], "attach_port");
    cloud.post(&format!("{WEB}/attach_port"), json!({"port": "mine"})).await.expect_problem(409, "in_use");
    let page = host.feed(seen).await;
    assert_eq!(page["objects"][0]["kind"], "network");
    assert_eq!(page["objects"][1]["kind"], "instance");
    assert_eq!(page["objects"][0]["revision"], page["objects"][1]["revision"]);
    let local = &page["objects"][0]["networks"][0]["ports"][0];
    assert_eq!(page["objects"][1]["nics"][0]["port_id"], local["id"]);
    cloud.post(&format!("{WEB}/attach_port"), json!({"network": "default"})).await.expect(202);
    host.report(&made["id"], 3, 1, json!({"state": "running"})).await;
    let now = cloud.get(WEB).await.expect(200);
    assert_eq!((&now["state"], &now["operation"]["status"]), (&json!("running"), &json!("succeeded")));
    let own = now["nics"][1]["port"]["name"].clone();

    let detach = format!("{WEB}/detach_port");
    let unknown = cloud.post(&detach, json!({"port": "none"})).await;
    assert_eq!(unknown.expect_problem(422, "validation_failed")["errors"][0]["pointer"], "/port");
    cloud.post(&detach, json!({"port": own})).await.expect(202);
    let left = cloud.post(&detach, json!({"port": "mine"})).await.expect(202);
    assert_eq!(left["nics"].as_array().unwrap().len(), 2);
    assert_eq!(host.network().await["networks"], json!([]));
    host.report(&made["id"], 5, 1, json!({"state": "running"})).await;
    assert_eq!(cloud.get(WEB).await.expect(200)["nics"], json!([]));
    let left = ports(&cloud).await;
    assert_eq!((left.len(), &left[0]["name"], left[0].get("instance")), (1, &json!("mine"), None));
    assert_eq!(host.network().await["networks"], json!([]));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_instance_has_no_two_cards_with_one_address() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/projects/demo/networks", json!({"name": "other"})).await.expect(201);
    for network in ["default", "other"] {
        let body = json!({"name": network, "network": network, "mac": "52:54:00:00:00:01"});
        cloud.post(PORTS, body).await.expect(201);
    }
    let both = web(json!([{"port": "default"}, {"port": "other"}]));
    let problem = cloud.post(INSTANCES, both).await.expect_problem(409, "address_taken");
    assert!(problem["detail"].as_str().unwrap().contains("the port default;"), "{problem}");
    cloud.post(INSTANCES, web(json!([{"port": "default"}]))).await.expect(202);
    let attach = cloud.post(&format!("{WEB}/attach_port"), json!({"port": "other"})).await;
    attach.expect_problem(409, "address_taken");
    cloud.post(&format!("{WEB}/detach_port"), json!({"port": "default"})).await.expect(202);
    cloud.post(&format!("{WEB}/attach_port"), json!({"port": "other"})).await.expect(202);
}

#[tokio::test]
async fn a_port_is_what_its_host_says() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let stranger = cloud.join_host("host-2").await;
    cloud.post(PORTS, port("mine")).await.expect(201);
    cloud.post(INSTANCES, web(json!([{"port": "mine"}]))).await.expect(202);
    let status = async || {
        let mine = cloud.get(&format!("{PORTS}/mine")).await.expect(200);
        (mine["status"].as_str().unwrap().to_owned(), mine["status_detail"].clone())
    };
    assert_eq!(status().await, ("pending".to_owned(), json!("its instance has no host yet")));
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(status().await, ("pending".to_owned(), json!("its host has not made it yet")));
    // Whichever of the two took it.
    let mut both = [host, stranger];
    if both[0].network().await["networks"] == json!([]) {
        both.swap(0, 1);
    }
    let [host, stranger] = both;
    let document = host.network().await;
    let id = &document["networks"][0]["ports"][0]["id"];
    let revision = &document["revision"];
    host.report_networks(&json!(999), json!([])).await.expect(200);
    assert_eq!(status().await.0, "pending");
    host.report_networks(revision, json!([])).await.expect(200);
    assert_eq!(status().await, ("active".to_owned(), Value::Null));
    let fault = |subject: Value| json!([{"subject": subject, "detail": "its tap is\nmissing"}]);
    let of_port = fault(json!({"kind": "port", "id": id}));
    stranger.report_networks(&json!(1), of_port.clone()).await.expect(200);
    assert_eq!(status().await.0, "active");
    host.report_networks(revision, of_port).await.expect(200);
    assert_eq!(
        status().await,
        ("fault".to_owned(), json!("its host cannot make it; an operator can see why"))
    );
    host.report_networks(&json!(1), json!([])).await.expect(200);
    assert_eq!(status().await.0, "fault");
    host.report_networks(revision, fault(json!({"kind": "host"}))).await.expect(200);
    let (shown, detail) = status().await;
    assert!(shown == "fault" && !detail.as_str().unwrap().contains("tap"), "{detail}");
    let hosts = cloud.get("/v1/hosts").await.expect(200);
    let faults: Vec<_> =
        hosts["items"].as_array().unwrap().iter().filter_map(|host| host.get("network_faults")).collect();
    assert_eq!(faults, [&json!([{"subject": {"kind": "host"}, "detail": "its tap ismissing"}])]);
    let many: Vec<_> = (0..501).map(|_| json!({"subject": {"kind": "host"}, "detail": ""})).collect();
    host.report_networks(revision, json!(many)).await.expect_problem(422, "validation_failed");
}

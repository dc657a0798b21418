//! Networks through the router, and what hosts hear of them.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::spread;
use super::store::{NewNetwork, insert_with_vni};
use crate::http::Labels;
use crate::instances::place_pending;
use crate::nudge::Topic;
use crate::testing::{TestCloud, TestHost, inventory};
use crate::verify;

mod together;

const NETWORKS: &str = "/v1/projects/demo/networks";
const INSTANCES: &str = "/v1/projects/demo/instances";

async fn execute(cloud: &TestCloud, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&cloud.app.pool).await.unwrap();
}

async fn number(cloud: &TestCloud, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&cloud.app.pool).await.unwrap()
}

/// The host's agent comes again and says where the host is reached.
async fn reached_at(host: &mut TestHost<'_>, address: &str) {
    let mut inventory = inventory();
    inventory.underlay_address = Some(address.parse().unwrap());
    let body = json!({"protocol_version": 1, "agent_version": "test", "inventory": inventory});
    let opened = host.call(Method::POST, "/agent/v1/sessions", Some(body)).await.expect(200);
    host.epoch = opened["epoch"].as_i64().unwrap();
}

async fn instance(cloud: &TestCloud, name: &str, network: &str) -> Value {
    let body = json!({"name": name, "image": "image", "instance_type": "tiny",
        "networks": [{"network": network}]});
    let made = cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    made
}

#[tokio::test]
async fn a_change_wakes_who_tells_the_hosts() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let rules = "/v1/projects/demo/security_groups/default/rules";
    let rule =
        json!({"direction": "ingress", "protocol": "tcp", "port_first": 80, "remote_cidr": "0.0.0.0/0"});
    let mut waiter = cloud.app.nudges.subscribe(Topic::Networks);
    let mut woken = async |seconds| {
        let hour = Duration::from_secs(3600);
        tokio::time::timeout(Duration::from_secs(seconds), waiter.nudged(hour)).await.is_ok()
    };
    // What went before, and whoever begins to listen wakes everybody.
    while woken(1).await {}
    cloud.post(rules, rule).await.expect(201);
    assert!(woken(20).await, "a new rule wakes nobody");
}

#[tokio::test]
async fn from_creation_to_deletion() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let default = cloud.get(&format!("{NETWORKS}/default")).await.expect(200);
    assert_eq!((&default["is_default"], &default["mtu"]), (&json!(true), &json!(1450)));
    let body = json!({"name": "back", "mtu": 8950, "labels": {"tier": "db"}});
    let dry = cloud.post(&format!("{NETWORKS}?dry_run=true"), body.clone()).await.expect(200);
    assert!(dry["vni"].as_i64().unwrap() > 0);
    let key = [("idempotency-key", "once")];
    let made = cloud.call_with(Method::POST, NETWORKS, &key, Some(body.clone())).await.expect(201);
    let again = cloud.call_with(Method::POST, NETWORKS, &key, Some(body.clone())).await.expect(201);
    assert_eq!((&made, &made["is_default"]), (&again, &json!(false)));
    let other = json!({"name": "other"});
    let misused = cloud.call_with(Method::POST, NETWORKS, &key, Some(other)).await;
    misused.expect_problem(422, "idempotency_key_reused");
    cloud.post(NETWORKS, body).await.expect_problem(409, "name_taken");
    for (wrong, pointer) in [
        (json!({"name": "w", "mtu": 1279}), "/mtu"),
        (json!({"name": "w", "vni": 7}), "/vni"),
        (json!({"name": "w", "description": "x".repeat(1001)}), "/description"),
    ] {
        let problem = cloud.post(NETWORKS, wrong).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    let path = format!("{NETWORKS}/back");
    let patch = json!({"name": "rear", "description": "behind"});
    let stale = cloud.call_with(Method::PATCH, &path, &[("if-match", "\"9.0\"")], Some(patch.clone())).await;
    stale.expect_problem(412, "precondition_failed");
    let patched = cloud.call(Method::PATCH, &path, Some(patch)).await.expect(200);
    assert_eq!((&patched["name"], &patched["vni"]), (&json!("rear"), &made["vni"]));
    let listed = cloud.get(&format!("{NETWORKS}?label_selector=tier%3Ddb")).await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    cloud.delete(&format!("{NETWORKS}/rear")).await.expect(204);
    cloud.get(&format!("{NETWORKS}/rear")).await.expect_problem(404, "not_found");
    let quotas = cloud.get("/v1/projects/demo/quotas").await.expect(200);
    let quotas = quotas["items"].as_array().unwrap();
    assert_eq!(quotas.iter().find(|quota| quota["resource"] == "networks").unwrap()["used"], 1);
}

#[tokio::test]
async fn a_taken_vni_is_tried_again_and_not_for_ever() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    execute(&cloud, "UPDATE networks SET vni = 7").await;
    let project: uuid::Uuid =
        sqlx::query_scalar("SELECT id FROM projects").fetch_one(&cloud.app.pool).await.unwrap();
    let labels = Labels::new();
    let new = NewNetwork {
        id: cloud.app.clock.new_id(),
        project: project.into(),
        name: "new",
        description: "",
        labels: &labels,
        mtu: 1450,
        is_default: false,
        now: cloud.app.clock.now(),
    };
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    assert!(insert_with_vni(&mut conn, &new, || 7).await.is_err());
    let mut next = 6;
    let made = insert_with_vni(&mut conn, &new, || {
        next += 1;
        next
    });
    assert_eq!(made.await.unwrap().vni, 8);
}

#[tokio::test]
async fn hosts_know_their_networks_and_where_the_other_ports_are() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let mut hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    reached_at(&mut hosts[0], "192.0.2.1").await;
    reached_at(&mut hosts[1], "192.0.2.2").await;
    for name in ["a", "b"] {
        instance(&cloud, name, "default").await;
        // The next one goes to the other host.
        execute(&cloud, "UPDATE hosts SET hypervisor_degraded = 'full' WHERE vcpus_reserved > 0").await;
    }
    spread(&cloud.app).await.unwrap();
    assert_eq!(number(&cloud, "SELECT count(*) FROM pending_network_changes").await, 0);
    let documents = [hosts[0].network().await, hosts[1].network().await];
    for (mine, others) in [(0, 1), (1, 0)] {
        let (document, other) = (&documents[mine]["networks"][0], &documents[others]["networks"][0]);
        assert_eq!(documents[mine]["peers"], json!([format!("192.0.2.{}", others + 1)]));
        let (local, remote) = (&document["ports"][0], &document["remote_ports"][0]);
        assert_eq!(remote["mac"], other["ports"][0]["mac"]);
        assert_eq!(remote["host"], format!("192.0.2.{}", others + 1));
        assert_eq!(remote["addresses"], json!([other["ports"][0]["addresses"][0]["address"]]));
        assert_eq!(
            local["metadata"],
            json!({"instance_type": "tiny", "project": "demo", "public_ipv4": null})
        );
        assert_eq!((&document["dns_domain"], &document["mtu"]), (&json!("demo.internal"), &json!(1450)));
        assert_eq!(document["subnets"][0]["routed"], true);
    }
    // A change reaches both, and an address of the underlay every host.
    let before = hosts[0].network().await["revision"].as_i64().unwrap();
    let subnet = "/v1/projects/demo/subnets/default";
    cloud.call(Method::PATCH, subnet, Some(json!({"labels": {"a": "b"}}))).await.expect(200);
    spread(&cloud.app).await.unwrap();
    assert_eq!(hosts[0].network().await["revision"].as_i64().unwrap(), before);
    cloud.call(Method::PATCH, subnet, Some(json!({"dns_servers": ["192.0.2.53"]}))).await.expect(200);
    spread(&cloud.app).await.unwrap();
    let after = hosts[0].feed(before).await;
    assert_eq!(after["objects"][0]["networks"][0]["subnets"][0]["dns_servers"], json!(["192.0.2.53"]));
    reached_at(&mut hosts[1], "192.0.2.9").await;
    spread(&cloud.app).await.unwrap();
    assert_eq!(hosts[0].network().await["peers"], json!(["192.0.2.9"]));
    assert_eq!(hosts[0].network().await["networks"][0]["remote_ports"][0]["host"], "192.0.2.9");
}

#[tokio::test]
async fn routers_lead_to_networks_without_a_local_port() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    for (name, cidr) in [("two", "10.0.2.0/24"), ("far", "10.0.3.0/24")] {
        cloud.post(NETWORKS, json!({"name": name})).await.expect(201);
        let subnet = json!({"name": name, "network": name, "cidr": cidr});
        cloud.post("/v1/projects/demo/subnets", subnet).await.expect(201);
    }
    let interface = json!({"subnet": "two"});
    cloud.post("/v1/projects/demo/routers/default/add_interface", interface).await.expect(200);
    instance(&cloud, "web", "default").await;
    let fixed =
        "INSERT INTO address_pools (id, name, cidr, first_address, last_address, created_at, updated_at)
         VALUES ('00000000-0000-7000-8000-000000000003', 'public', '203.0.113.0/24', '203.0.113.1',
                 '203.0.113.9', now(), now());
         INSERT INTO floating_ips (id, project_id, name, labels, address_pool_id, address, port_id,
                                   fixed_address, created_at, updated_at)
         SELECT p.id, p.project_id, 'f', '{}', '00000000-0000-7000-8000-000000000003', '203.0.113.5', p.id,
                a.address, now(), now()
         FROM ports p JOIN subnet_addresses a ON a.port_id = p.id";
    execute(&cloud, fixed).await;
    let document = host.network().await;
    let networks: Vec<_> = document["networks"].as_array().unwrap().iter().collect();
    assert_eq!(networks.len(), 2);
    assert!(networks.iter().all(|network| network["subnets"][0]["routed"] == true));
    let router = &document["routers"][0];
    let addresses: Vec<_> =
        router["interfaces"].as_array().unwrap().iter().map(|interface| &interface["address"]).collect();
    assert_eq!(addresses, ["10.0.0.1/24", "10.0.2.1/24"]);
    assert_eq!(router["floating_ips"][0]["address"], "203.0.113.5");
    assert_eq!(networks[0]["ports"][0]["metadata"]["public_ipv4"], "203.0.113.5");
    let remote = &document["security_groups"][0]["rules"][0]["remote"];
    assert_eq!((&remote["kind"], &remote["addresses"]), (&json!("group"), &json!(["10.0.0.3"])));
    serde_json::from_value::<protocol::agent::HostNetwork>(document).unwrap();
}

#[tokio::test]
async fn a_project_goes_with_its_networks_but_not_with_ports() {
    let cloud = TestCloud::start().await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    let port = json!({"name": "p", "network": "default"});
    cloud.post("/v1/projects/demo/ports", port).await.expect(201);
    let refused = cloud.delete("/v1/projects/demo").await.expect_problem(409, "in_use");
    assert!(refused["detail"].as_str().unwrap().contains("1 port;"), "{refused}");
    cloud.delete("/v1/projects/demo/ports/p").await.expect(204);
    cloud.delete("/v1/projects/demo").await.expect(204);
    assert_eq!(number(&cloud, "SELECT count(*) FROM networks").await, 0);
}

#[tokio::test]
async fn what_keeps_a_network_from_being_deleted_is_named() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for name in ["a", "b", "c"] {
        let port = json!({"name": name, "network": "default"});
        cloud.post("/v1/projects/demo/ports", port).await.expect(201);
    }
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny",
        "networks": [{"port": "b"}, {"network": "default"}]});
    cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    let refused = cloud.delete("/v1/projects/demo/networks/default").await.expect_problem(409, "in_use");
    let named = "still in it: 4 ports (a, b of the instance web, c, …) and 1 router (default);";
    assert!(refused["detail"].as_str().unwrap().starts_with(named), "{refused}");
}

/// The codes that `verify` finds, and the details.
async fn findings(cloud: &TestCloud) -> Vec<(String, String)> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let report = verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
    report.findings.into_iter().map(|finding| (finding.code, finding.detail)).collect()
}

#[tokio::test]
async fn verify_finds_hosts_that_are_not_what_they_were_told() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let mut host = cloud.join_host("host-1").await;
    instance(&cloud, "web", "default").await;
    let codes = async || findings(&cloud).await.into_iter().map(|(code, _)| code).collect::<Vec<_>>();
    assert_eq!(codes().await, ["network_changes_untold", "host_network_behind"]);
    spread(&cloud.app).await.unwrap();
    assert_eq!(codes().await, ["host_network_behind"]);
    let revision = host.network().await["revision"].clone();
    host.report_networks(&revision, json!([])).await.expect(200);
    assert_eq!(codes().await, ["host_check_old"]);

    let checked = |at: OffsetDateTime, differences: u32| {
        let at = at.format(&Rfc3339).unwrap();
        json!({"checked_at": at, "revision": revision, "differences": differences, "first": "set\ncsv7 up"})
    };
    let report = async |host: &TestHost<'_>, faults: Value, check: Value| {
        let network = json!({"revision": revision, "faults": faults, "check": check});
        let body = json!({"epoch": host.epoch, "reports": [], "network": network});
        host.call(Method::POST, "/agent/v1/observed", Some(body)).await.expect(200);
    };
    let now = cloud.app.clock.now();
    report(&host, json!([]), checked(now, 0)).await;
    assert_eq!(findings(&cloud).await, []);
    let fault = json!([{"subject": {"kind": "host"}, "detail": "no device"}]);
    report(&host, fault, checked(now, 2)).await;
    let found = findings(&cloud).await;
    assert_eq!(found[0].0, "host_network_fault");
    assert_eq!(found[1].0, "host_differs");
    assert!(found[1].1.contains("in 2 things") && found[1].1.contains("setcsv7 up"), "{found:?}");

    // One that is heard of compares itself; a silent one says nothing, and nothing is known.
    report(&host, json!([]), checked(now + Duration::from_secs(3600), 0)).await;
    cloud.pass(301);
    assert_eq!(findings(&cloud).await, []);
    host.open_session().await;
    assert_eq!(findings(&cloud).await, [], "it is heard again, and has had no time");
    for _ in 0..21 {
        cloud.pass(15);
        host.beat(json!([])).await.expect(200);
        cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    }
    assert_eq!(codes().await[0], "host_check_old", "a fast clock does not help");
}

/// Of what has no card no document tells.
#[tokio::test]
async fn an_instance_without_cards_concerns_its_host_alone() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.join_host("host-1").await;
    instance(&cloud, "web", "default").await;
    spread(&cloud.app).await.unwrap();
    let told = async || number(&cloud, "SELECT network_revision FROM hosts WHERE name = 'host-1'").await;
    let before = told().await;
    execute(&cloud, "UPDATE hosts SET cordoned = true").await;
    cloud.join_host("host-2").await;
    let bare = json!({"name": "bare", "image": "image", "instance_type": "tiny", "networks": []});
    cloud.post(INSTANCES, bare).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    spread(&cloud.app).await.unwrap();
    assert_eq!(told().await, before, "another host has it");
    cloud.post("/v1/projects/demo/ports", json!({"name": "late", "network": "default"})).await.expect(201);
    cloud.post(&format!("{INSTANCES}/bare/attach_port"), json!({"port": "late"})).await.expect(202);
    spread(&cloud.app).await.unwrap();
    assert!(told().await > before, "it has a card now");
}

#[tokio::test]
async fn verify_finds_what_is_left_of_instances() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    instance(&cloud, "web", "default").await;
    execute(&cloud, "DELETE FROM pending_network_changes").await;
    assert_eq!(findings(&cloud).await, []);
    execute(&cloud, "UPDATE instances SET deletion_requested_at = now(), observed_state = 'absent'").await;
    let codes = async || findings(&cloud).await.into_iter().map(|(code, _)| code).collect::<Vec<_>>();
    assert_eq!(codes().await, ["instance_lingers"]);
    execute(
        &cloud,
        "SELECT release_ports(array_agg(id), '{}', now()) FROM instances; DELETE FROM volumes; DELETE FROM layers; DELETE FROM instances",
    )
    .await;
    execute(&cloud, "DELETE FROM pending_network_changes").await;
    assert_eq!(codes().await, ["operation_lingers"]);
}

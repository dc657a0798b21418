//! Guests that the cloud does not know: what hosts say of them, well and badly, and what is kept for them.

use std::net::Ipv4Addr;

use axum::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::look_after;
use super::store::MOST_ADDRESSES;
use crate::testing::{Answer, TestCloud, TestHost, inventory};
use crate::verify;

const PORTS: &str = "/v1/projects/demo/ports";
const MAC: &str = "52:54:00:00:00:99";

/// A network, a subnet of it, and what guests have there.
struct Place {
    network: Value,
    subnet: Value,
}

impl Place {
    async fn of(cloud: &TestCloud) -> Self {
        let subnet = cloud.get("/v1/projects/demo/subnets/default").await.expect(200);
        Self { network: subnet["network"]["id"].clone(), subnet: subnet["id"].clone() }
    }

    fn card(&self, addresses: &[&str]) -> Value {
        let addresses: Vec<_> =
            addresses.iter().map(|one| json!({"subnet_id": self.subnet, "address": one})).collect();
        json!({"network_id": self.network, "mac": MAC, "addresses": addresses})
    }

    fn guest(&self, id: u128, addresses: &[&str]) -> Value {
        let mut guest = guest(id);
        guest["spec"]["cards"] = json!([self.card(addresses)]);
        guest
    }
}

/// One with nothing.
fn guest(id: u128) -> Value {
    json!({"id": Uuid::from_u128(id), "runs": true, "spec": {"generation": 3, "hostname": "web", "vcpus": 2,
        "memory_mib": 1024, "volumes": [], "cards": []}})
}

async fn tell(host: &TestHost<'_>, guests: Value) -> Answer {
    let body = json!({"epoch": host.epoch, "reports": [], "unknown_guests": guests});
    host.call(Method::POST, "/agent/v1/observed", Some(body)).await
}

async fn list(cloud: &TestCloud, host: &str) -> Vec<Value> {
    let page = cloud.get(&format!("/v1/hosts/{host}/unknown_guests?limit=500")).await.expect(200);
    page["items"].as_array().unwrap().clone()
}

/// Whether each address of the first guest is kept.
async fn kept(cloud: &TestCloud) -> Vec<bool> {
    let guests = list(cloud, "host-1").await;
    let addresses = guests[0]["cards"][0]["addresses"].as_array().unwrap().clone();
    addresses.iter().map(|one| one["kept"].as_bool().unwrap()).collect()
}

/// A port with an address that nobody chose.
async fn some_port(cloud: &TestCloud, name: &str) -> Value {
    let made = cloud.post(PORTS, json!({"name": name, "network": "default"})).await.expect(201);
    made["addresses"][0]["address"].clone()
}

async fn findings(cloud: &TestCloud) -> Vec<(String, String)> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let report = verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
    let of_addresses = |code: &str| code.contains("address");
    report
        .findings
        .into_iter()
        .filter(|one| of_addresses(&one.code))
        .map(|one| (one.code, one.detail))
        .collect()
}

#[tokio::test]
async fn they_are_listed_with_what_their_host_was_told_of_them() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    cloud.join_host("host-2").await;
    let place = Place::of(&cloud).await;
    let project = cloud.get("/v1/projects/demo").await.expect(200)["id"].clone();
    let (forgotten, unheard_of) = (Uuid::from_u128(77), Uuid::from_u128(78));
    let mut full = place.guest(1, &["10.0.0.50"]);
    full["spec"]["volumes"] = json!([{"id": Uuid::from_u128(8), "size_gib": 10},
        {"id": Uuid::from_u128(9), "size_gib": 20, "pool": "fast"}]);
    let mut lost = guest(2);
    lost["spec"]["project_id"] = json!(forgotten);
    lost["spec"]["cards"] = json!([{"network_id": unheard_of, "mac": MAC,
        "addresses": [{"subnet_id": unheard_of, "address": "fd00::5"}]}]);
    let bare = json!({"id": Uuid::from_u128(3), "runs": false});
    let all = json!([full, lost, bare]);
    tell(&host, all.clone()).await.expect(200);
    let first_seen = cloud.app.clock.now();
    let guests = list(&cloud, "host-1").await;
    let since = guests[0]["since"].clone();
    assert_eq!(
        guests[0],
        json!({"id": Uuid::from_u128(1), "runs": true, "hostname": "web", "vcpus": 2, "memory_mib": 1024,
            // Its host did not say, and its network is of that project.
            "project": {"id": project, "name": "demo"},
            "volumes": [{"id": Uuid::from_u128(8), "size_gib": 10, "boot": true},
                        {"id": Uuid::from_u128(9), "size_gib": 20, "boot": false, "pool": "fast"}],
            "cards": [{"network": {"id": place.network, "name": "default"}, "mac": MAC,
                       "addresses": [{"subnet": {"id": place.subnet, "name": "default"}, "address": "10.0.0.50",
                                      "kept": true}]}],
            "since": since})
    );
    assert_eq!(guests[1]["project"], json!({"id": forgotten}));
    assert_eq!(guests[1]["cards"][0]["network"], json!({"id": unheard_of}));
    assert_eq!(guests[1]["cards"][0]["addresses"][0]["kept"], false, "nobody gives it away");
    assert_eq!(
        guests[2],
        json!({"id": bare["id"], "runs": false, "volumes": [], "cards": [], "since": since})
    );
    assert_eq!(list(&cloud, "host-2").await, Vec::<Value>::new());
    let page = cloud.get("/v1/hosts/host-1/unknown_guests?limit=2").await.expect(200);
    let rest = format!("/v1/hosts/host-1/unknown_guests?cursor={}", page["next_cursor"].as_str().unwrap());
    assert_eq!(cloud.get(&rest).await.expect(200)["items"], json!([guests[2]]));

    // What is said again changes nothing, what its host has lost since is kept, and what is gone is gone.
    cloud.pass(100);
    full["spec"] = Value::Null;
    full["runs"] = json!(false);
    tell(&host, json!([bare, full, bare])).await.expect(200);
    let later = list(&cloud, "host-1").await;
    assert_eq!((later.len(), &later[0]["runs"], &later[0]["cards"]), (2, &json!(false), &guests[0]["cards"]));
    assert_eq!(later[1], guests[2]);
    assert!(cloud.app.clock.now() > first_seen && later[0]["since"] == since);
    // A report of something else says nothing of them.
    let other = json!({"epoch": host.epoch, "reports": []});
    host.call(Method::POST, "/agent/v1/observed", Some(other)).await.expect(200);
    assert_eq!(list(&cloud, "host-1").await, later);
    tell(&host, json!([])).await.expect(200);
    assert_eq!(list(&cloud, "host-1").await, Vec::<Value>::new());

    cloud.get("/v1/hosts/nowhere/unknown_guests").await.expect_problem(404, "not_found");
    let member = cloud.user("member", false).await;
    let headers = [("authorization", member.as_str())];
    let refused = cloud.call_with(Method::GET, "/v1/hosts/host-1/unknown_guests", &headers, None).await;
    refused.expect_problem(404, "not_found");
}

#[tokio::test]
async fn one_that_is_wanted_elsewhere_is_told_by_its_name() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    crate::instances::place_pending(&cloud.app).await.unwrap();
    let web = cloud.get("/v1/projects/demo/instances/web").await.expect(200)["id"].clone();
    let guest = json!([{"id": web, "runs": true}]);
    for host in &hosts {
        tell(host, guest.clone()).await.expect(200);
    }
    for host in ["host-1", "host-2"] {
        assert_eq!(list(&cloud, host).await[0]["instance"], json!({"id": web, "name": "web"}));
    }
}

#[tokio::test]
async fn their_addresses_are_nobody_elses_while_they_are_there() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let place = Place::of(&cloud).await;
    let guests = json!([place.guest(1, &["10.0.0.3", "10.0.0.5"])]);
    tell(&host, guests.clone()).await.expect(200);
    assert_eq!(kept(&cloud).await, [true, true]);
    assert_eq!(some_port(&cloud, "a").await, "10.0.0.4");
    assert_eq!(some_port(&cloud, "b").await, "10.0.0.6");
    for (field, value) in [("addresses", json!([{"address": "10.0.0.3"}])), ("mac", json!(MAC))] {
        let mut wanted = json!({"name": "c", "network": "default"});
        wanted[field] = value;
        let refused = cloud.post(PORTS, wanted).await.expect_problem(409, "address_taken");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("a running guest that the cloud does not know any more"), "{detail}");
    }
    assert_eq!(findings(&cloud).await, []);
    // It has one of them no longer, and then none.
    tell(&host, json!([place.guest(1, &["10.0.0.5"])])).await.expect(200);
    assert_eq!(some_port(&cloud, "c").await, "10.0.0.3");
    tell(&host, json!([])).await.expect(200);
    assert_eq!(some_port(&cloud, "d").await, "10.0.0.5");
    let with_mac = json!({"name": "e", "network": "default", "mac": MAC});
    cloud.post(PORTS, with_mac).await.expect(201);

    // Somebody had one before anybody knew; it is the guest's as soon as it is free.
    tell(&host, guests).await.expect(200);
    assert_eq!(kept(&cloud).await, [false, false]);
    let found = findings(&cloud).await;
    assert_eq!(found.iter().map(|one| one.0.as_str()).collect::<Vec<_>>(), ["address_shared"; 2]);
    assert!(found[0].1.contains("so has a guest on host-1 that the cloud does not know"), "{found:?}");
    cloud.delete(&format!("{PORTS}/c")).await.expect(204);
    look_after(&cloud.app).await.unwrap();
    assert_eq!(kept(&cloud).await, [true, false]);
    cloud.delete(&format!("{PORTS}/d")).await.expect(204);
    look_after(&cloud.app).await.unwrap();
    assert_eq!((kept(&cloud).await, findings(&cloud).await), (vec![true, true], vec![]));

    // On a dead host nothing runs.
    cloud.pass(30);
    cloud.post("/v1/hosts/host-1/declare_dead", json!({"no_guest_runs": true})).await.expect(200);
    look_after(&cloud.app).await.unwrap();
    assert_eq!(list(&cloud, "host-1").await, Vec::<Value>::new());
    assert_eq!(some_port(&cloud, "f").await, "10.0.0.3");
    assert_eq!(findings(&cloud).await, []);
}

#[tokio::test]
async fn an_agent_that_was_put_back_to_the_release_before_tells_of_none() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let place = Place::of(&cloud).await;
    tell(&host, json!([place.guest(1, &["10.0.0.3"])])).await.expect(200);
    look_after(&cloud.app).await.unwrap();
    assert_eq!(kept(&cloud).await, [true]);
    let body = json!({"protocol_version": 1, "agent_version": "before", "inventory": inventory()});
    host.call(Method::POST, "/agent/v1/sessions", Some(body)).await.expect(200);
    look_after(&cloud.app).await.unwrap();
    assert_eq!(list(&cloud, "host-1").await, Vec::<Value>::new());
    assert_eq!(some_port(&cloud, "a").await, "10.0.0.3");
}

#[tokio::test]
async fn their_subnet_and_their_host_go_without_them() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let subnet = cloud.insert_subnet("lab", "10.9.0.0/24", None).await;
    let shown = cloud.get("/v1/projects/demo/subnets/lab").await.expect(200);
    let place = Place { network: shown["network"]["id"].clone(), subnet: json!(subnet) };
    let guests = json!([place.guest(1, &["10.9.0.7"])]);
    tell(&host, guests.clone()).await.expect(200);
    assert_eq!(kept(&cloud).await, [true]);
    cloud.delete("/v1/projects/demo/subnets/lab").await.expect(204);
    tell(&host, guests).await.expect(200);
    assert_eq!(kept(&cloud).await, [false]);
    cloud.pass(30);
    cloud.post("/v1/hosts/host-1/declare_dead", json!({"no_guest_runs": true})).await.expect(200);
    cloud.delete("/v1/hosts/host-1").await.expect(204);
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM unknown_guests").fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_host_keeps_no_more_than_some_addresses_and_none_of_others() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let place = Place::of(&cloud).await;
    let taken = some_port(&cloud, "a").await;
    let strange = cloud.insert_subnet("strange", "10.9.0.0/16", None).await;
    let mut guest = place.guest(1, &[taken.as_str().unwrap(), "10.0.0.2", "10.0.1.5", "fd00::1", "10.0.0.7"]);
    let addresses = guest["spec"]["cards"][0]["addresses"].as_array_mut().unwrap();
    // Of another network than the card.
    addresses.push(json!({"subnet_id": strange, "address": "10.9.0.9"}));
    tell(&host, json!([guest])).await.expect(200);
    assert_eq!(kept(&cloud).await, [false, false, false, false, true, false]);

    let network = cloud.get("/v1/projects/demo/subnets/strange").await.expect(200)["network"]["id"].clone();
    let place = Place { network, subnet: json!(strange) };
    let many = (0..33_u32).map(|guest| {
        let address = |number| Ipv4Addr::from(0x0a09_0100 + guest * 32 + number).to_string();
        let addresses: Vec<_> = (0..32).map(address).collect();
        place.guest(guest.into(), &addresses.iter().map(String::as_str).collect::<Vec<_>>())
    });
    tell(&host, many.collect()).await.expect(200);
    let count = "SELECT count(*) FROM subnet_addresses WHERE unknown_guest_id IS NOT NULL";
    let held: i64 = sqlx::query_scalar(count).fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(held, MOST_ADDRESSES);
    look_after(&cloud.app).await.unwrap();
    let held: i64 = sqlx::query_scalar(count).fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(held, MOST_ADDRESSES);
}

#[tokio::test]
async fn too_much_and_nonsense_is_refused_whole() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let place = Place::of(&cloud).await;
    let with = |field: &str, value: Value| {
        let mut guest = guest(1);
        guest["spec"][field] = value;
        json!([guest])
    };
    let many_addresses = vec!["10.0.0.9"; 33];
    for too_many in [
        (0..201).map(guest).collect::<Value>(),
        with("volumes", (0..33).map(|id| json!({"id": Uuid::from_u128(id), "size_gib": 1})).collect()),
        with("cards", (0..33).map(|_| place.card(&[])).collect()),
        with("cards", json!([place.card(&many_addresses)])),
    ] {
        let refused = tell(&host, too_many).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], "/unknown_guests");
    }
    for wrong in [
        json!([{"id": "' OR 1=1", "runs": true}]),
        json!([{"id": Uuid::from_u128(1)}]),
        json!([{"id": Uuid::from_u128(1), "runs": true, "spec": null, "owner": "me"}]),
        with("hostname", json!("\u{0}<script>")),
        with("hostname", json!("a".repeat(1000))),
        with("vcpus", json!(-1)),
        with("password", json!("x")),
        with("cards", json!([{"network_id": place.network, "mac": "x", "addresses": []}])),
        with(
            "cards",
            json!([{"network_id": place.network, "mac": MAC, "addresses": [{"address": "10.0.0.9"}]}]),
        ),
        json!({}),
    ] {
        let refused = tell(&host, wrong.clone()).await;
        assert!(refused.status.is_client_error(), "{wrong}: {}", refused.status);
    }
    let stale = json!({"epoch": host.epoch - 1, "reports": [], "unknown_guests": [guest(1)]});
    host.call(Method::POST, "/agent/v1/observed", Some(stale)).await.expect_problem(409, "stale_epoch");
    assert_eq!(list(&cloud, "host-1").await, Vec::<Value>::new());
    // As much as it may, and the largest numbers.
    let mut large = with("vcpus", json!(u32::MAX));
    large[0]["spec"]["memory_mib"] = json!(u32::MAX);
    let most: Vec<_> = (2..201).map(guest).chain([large[0].clone()]).collect();
    tell(&host, json!(most)).await.expect(200);
    let listed = list(&cloud, "host-1").await;
    assert_eq!((listed.len(), &listed[0]["vcpus"]), (200, &json!(u32::MAX)));
}

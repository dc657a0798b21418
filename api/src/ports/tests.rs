//! Ports through the router, and their addresses under a crowd.

mod cards;
mod leaving;
mod races;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::database::testing::TestDatabase;
use crate::testing::TestCloud;
use crate::verify;

const PORTS: &str = "/v1/projects/demo/ports";

fn port(name: &str) -> Value {
    json!({"name": name, "network": "default"})
}

async fn execute(cloud: &TestCloud, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&cloud.app.pool).await.unwrap();
}

async fn findings(cloud: &TestCloud) -> Vec<String> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let report = verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
    // Hosts of these tests do not say what they did.
    let of_hosts = |code: &String| code.starts_with("host_") || code == "network_changes_untold";
    report.findings.into_iter().map(|finding| finding.code).filter(|code| !of_hosts(code)).collect()
}

#[tokio::test]
async fn from_creation_to_deletion() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let made = cloud.post(PORTS, port("a")).await.expect(201);
    assert_eq!(made["addresses"][0]["address"], "10.0.0.3");
    assert!(made["mac"].as_str().unwrap().starts_with("52:54:00:"), "{made}");
    assert_eq!(
        (&made["status"], &made["status_detail"]),
        (&json!("pending"), &json!("it is attached to no instance"))
    );
    let mut chosen = port("b");
    chosen["mac"] = json!("52:54:00:00:00:01");
    chosen["addresses"] = json!([{"address": "10.0.0.200"}]);
    chosen["allowed_address_pairs"] =
        json!([{"cidr": "10.9.0.0/16"}, {"cidr": "10.9.0.1/32", "mac": "52:54:00:00:00:02"}]);
    let dry = cloud.post(&format!("{PORTS}?dry_run=true"), chosen.clone()).await.expect(200);
    assert_eq!(dry["addresses"][0]["address"], "10.0.0.200");
    let made = cloud.post(PORTS, chosen.clone()).await.expect(201);
    assert_eq!(made["allowed_address_pairs"], chosen["allowed_address_pairs"]);
    chosen["name"] = json!("c");
    cloud.post(PORTS, chosen.clone()).await.expect_problem(409, "address_taken");
    chosen["mac"] = json!("52:54:00:00:00:03");
    cloud.post(PORTS, chosen.clone()).await.expect_problem(409, "address_taken");
    cloud.post(PORTS, port("a")).await.expect_problem(409, "name_taken");

    let path = format!("{PORTS}/b");
    let patch = json!({"name": "bee", "allowed_address_pairs": [], "labels": {"x": "y"}});
    let stale = cloud.call_with(Method::PATCH, &path, &[("if-match", "\"7.0\"")], Some(patch.clone())).await;
    stale.expect_problem(412, "precondition_failed");
    let patched = cloud.call(Method::PATCH, &path, Some(patch)).await.expect(200);
    assert_eq!((&patched["name"], &patched["allowed_address_pairs"]), (&json!("bee"), &json!([])));
    let listed = cloud.get(&format!("{PORTS}?network=default&label_selector=x")).await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);

    for blocked in ["networks/default", "subnets/default"] {
        let refused = cloud.delete(&format!("/v1/projects/demo/{blocked}")).await;
        let problem = refused.expect_problem(409, "in_use");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("2 ports") && detail.contains("1 router"), "{problem}");
    }
    cloud.delete(&format!("{PORTS}/a")).await.expect(204);
    cloud.delete(&format!("{PORTS}/bee")).await.expect(204);
    // The address is free again.
    assert_eq!(cloud.post(PORTS, port("d")).await.expect(201)["addresses"][0]["address"], "10.0.0.3");
    cloud.delete(&format!("{PORTS}/d")).await.expect(204);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    let interface = json!({"subnet": "default"});
    cloud.post("/v1/projects/demo/routers/default/remove_interface", interface).await.expect(200);
    cloud.delete("/v1/projects/demo/networks/default").await.expect(204);
    cloud.get("/v1/projects/demo/subnets/default").await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn wrong_wishes_are_refused_at_the_field() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for (field, value, pointer) in [
        ("network", json!("nowhere"), "/network"),
        ("mac", json!("53:54:00:00:00:01"), "/mac"),
        ("mac", json!("02:63:00:00:00:01"), "/mac"),
        ("mac", json!("02:72:00:00:00:01"), "/mac"),
        ("mac", json!("fe:54:00:00:00:01"), "/mac"),
        ("addresses", json!([{}]), "/addresses/0"),
        ("addresses", json!([{"address": "10.9.0.1"}]), "/addresses/0/address"),
        ("addresses", json!([{"address": "10.0.0.255"}]), "/addresses/0/address"),
        ("addresses", json!([{"subnet": "none"}]), "/addresses/0/subnet"),
        ("addresses", json!([{"subnet": "default"}, {"address": "10.0.0.9"}]), "/addresses/1"),
        ("security_groups", json!(["none"]), "/security_groups/0"),
        ("security_groups", json!(["default", "a\0b"]), "/security_groups/1"),
        ("allowed_address_pairs", json!([{"cidr": "10.0.0.1/24"}]), "/allowed_address_pairs/0/cidr"),
        (
            "allowed_address_pairs",
            json!([{"cidr": "10.0.0.2/32", "mac": "02:63:00:00:00:01"}]),
            "/allowed_address_pairs/0/mac",
        ),
        ("surprise", json!(1), "/surprise"),
    ] {
        let mut wrong = port("wrong");
        wrong[field] = value;
        let problem = cloud.post(PORTS, wrong).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    // Gateway and services keep theirs.
    let mut gateway = port("gateway");
    gateway["addresses"] = json!([{"address": "10.0.0.1"}]);
    cloud.post(PORTS, gateway).await.expect_problem(409, "address_taken");
}

/// Small, with everything that a crowd may take.
const CROWD: &str = "
    INSERT INTO projects VALUES ('00000000-0000-7000-8000-000000000001', 'p', '', '{}', 1, now(), now());
    UPDATE quota_defaults SET limit_value = NULL;
    INSERT INTO networks (id, project_id, name, labels, vni, mtu, created_at, updated_at)
    SELECT id, id, 'n', '{}', 1, 1450, now(), now() FROM projects;
    INSERT INTO subnets (id, project_id, network_id, name, labels, cidr, gateway, service_address, dhcp,
                         created_at, updated_at)
    SELECT id, id, id, 's', '{}', '10.0.0.0/22', '10.0.0.1', '10.0.0.2', true, now(), now() FROM projects;
    INSERT INTO subnet_allocation_ranges SELECT id, '10.0.0.3', '10.0.3.254' FROM projects;
    INSERT INTO ports (id, project_id, network_id, name, labels, mac, created_at, updated_at)
    SELECT uuid_in(md5(n::text)::cstring), id, id, 'p' || n, '{}', ('525400' || lpad(to_hex(n), 6, '0'))::macaddr,
           now(), now()
    FROM projects, generate_series(1, 1100) n";

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_gets_distinct_addresses_and_exactly_as_many_as_there_are() {
    const CAPACITY: usize = 1020;
    let database = TestDatabase::create().await;
    let pool = PgPoolOptions::new()
        .max_connections(16)
        .acquire_timeout(std::time::Duration::from_secs(120))
        .connect_lazy_with(database.options());
    sqlx::raw_sql(CROWD).execute(&pool).await.unwrap();
    let ports: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM ports").fetch_all(&pool).await.unwrap();
    let subnet: Uuid = sqlx::query_scalar("SELECT id FROM subnets").fetch_one(&pool).await.unwrap();
    let pool = Arc::new(pool);
    let tasks: Vec<_> = ports
        .into_iter()
        .map(|port| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move {
                let sql = "SELECT host(allocate_address($1, $2))";
                sqlx::query_scalar::<_, Option<String>>(sql)
                    .bind(subnet)
                    .bind(port)
                    .fetch_one(&*pool)
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut given = Vec::new();
    for task in tasks {
        given.extend(task.await.unwrap());
    }
    assert_eq!(given.len(), CAPACITY);
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), CAPACITY);
    let free = "SELECT coalesce(sum(last_address - first_address + 1), 0)::bigint FROM subnet_free_ranges";
    assert_eq!(sqlx::query_scalar::<_, i64>(free).fetch_one(&*pool).await.unwrap(), 0);

    // Given back in any order, the ranges grow together again.
    let back = "DELETE FROM subnet_addresses WHERE address IN
                (SELECT address FROM subnet_addresses WHERE port_id IS NOT NULL ORDER BY md5(address::text) LIMIT $1)";
    sqlx::query(back).bind(500_i64).execute(&*pool).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(free).fetch_one(&*pool).await.unwrap(), 500);
    sqlx::query(back).bind(2000_i64).execute(&*pool).await.unwrap();
    let whole = "SELECT array_agg(host(first_address) || '-' || host(last_address)) FROM subnet_free_ranges";
    let whole: Vec<String> = sqlx::query_scalar(whole).fetch_one(&*pool).await.unwrap();
    assert_eq!(whole, ["10.0.0.3-10.0.3.254"]);
}

#[tokio::test]
async fn a_full_subnet_says_so_and_the_next_one_takes_over() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/projects/demo/networks", json!({"name": "small"})).await.expect(201);
    let subnet = |name: &str, cidr: &str| json!({"name": name, "network": "small", "cidr": cidr});
    cloud.post("/v1/projects/demo/subnets", subnet("one", "10.0.0.0/29")).await.expect(201);
    let port = |name: &str| json!({"name": name, "network": "small"});
    let racing = (0..5).map(|number| {
        let name = format!("p{number}");
        let (cloud, body) = (&cloud, port(&name));
        async move { cloud.post(PORTS, body).await.status.as_u16() }
    });
    let mut racing = futures_util::future::join_all(racing).await;
    racing.sort_unstable();
    assert_eq!(racing, [201, 201, 201, 201, 409]);
    let problem = cloud.post(PORTS, port("late")).await.expect_problem(409, "subnet_exhausted");
    assert!(problem["detail"].as_str().unwrap().starts_with("one has no free address"), "{problem}");
    cloud.post("/v1/projects/demo/subnets", subnet("two", "10.0.1.0/29")).await.expect(201);
    cloud.post("/v1/projects/demo/subnets", subnet("six", "fd00::/64")).await.expect(201);
    let both = cloud.post(PORTS, port("late")).await.expect(201);
    let addresses: Vec<_> = both["addresses"].as_array().unwrap().iter().map(|one| &one["address"]).collect();
    assert_eq!(addresses, ["10.0.1.3", "fd00::3"]);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn verify_finds_what_must_never_be() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post(PORTS, port("a")).await.expect(201);
    cloud.post(PORTS, port("b")).await.expect(201);
    cloud.post("/v1/projects/demo/networks", json!({"name": "other"})).await.expect(201);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    execute(
        &cloud,
        "ALTER TABLE ports DROP CONSTRAINT ports_mac_unique; UPDATE ports SET mac = '52:54:00:00:00:01'",
    )
    .await;
    assert_eq!(findings(&cloud).await, ["mac_shared"]);
    execute(&cloud, "UPDATE ports SET mac = '52:54:00:00:00:02' WHERE name = 'a'").await;
    execute(&cloud, "ALTER TABLE networks DROP CONSTRAINT networks_vni_unique; UPDATE networks SET vni = 7")
        .await;
    assert_eq!(findings(&cloud).await, ["vni_shared"]);
    execute(&cloud, "UPDATE networks SET vni = 8 WHERE name = 'other'").await;
    execute(&cloud, "UPDATE subnet_addresses SET address = '10.9.9.9' WHERE address = '10.0.0.3'").await;
    assert_eq!(findings(&cloud).await, ["address_astray", "free_addresses_drift"]);
    execute(&cloud, "UPDATE subnet_addresses SET address = '10.0.0.3' WHERE address = '10.9.9.9'").await;
    execute(
        &cloud,
        "UPDATE ports SET network_id = (SELECT id FROM networks WHERE name = 'other') WHERE name = 'a'",
    )
    .await;
    assert_eq!(findings(&cloud).await, ["address_astray"]);
}

//! Documents that are read together.

use axum::http::Method;
use protocol::HostId;
use protocol::agent::HostNetwork;
use serde_json::json;

use super::{NETWORKS, execute, reached_at};
use crate::instances::place_pending;
use crate::networks::host::Rows;
use crate::networks::spread;
use crate::testing::{TestCloud, TestHost};

/// Reads for all of these at once.
async fn read(cloud: &TestCloud, hosts: &[HostId]) -> Vec<HostNetwork> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let rows = Rows::read(&mut conn, hosts).await.unwrap();
    hosts.iter().map(|host| rows.document(*host).unwrap()).collect()
}

/// Makes an instance on this host.
async fn instance(
    cloud: &TestCloud,
    host: &TestHost<'_>,
    project: &str,
    name: &str,
    cards: serde_json::Value,
) {
    let only = format!(
        "UPDATE hosts SET hypervisor_degraded = CASE WHEN id = '{}' THEN NULL ELSE 'not this one' END",
        host.id.as_uuid()
    );
    execute(cloud, &only).await;
    let body = json!({"name": name, "image": "image", "instance_type": "tiny", "networks": cards});
    cloud.post(&format!("/v1/projects/{project}/instances"), body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
}

/// Hosts with ports of one project, of two, and without any; groups that name one another, routers, pairs, floating IPs.
async fn mixed(cloud: &TestCloud) -> [TestHost<'_>; 3] {
    cloud.furnish().await;
    let mut hosts = ["one", "two", "three"].map(|_| None);
    for (number, host) in (1..).zip(&mut hosts) {
        let mut joined = cloud.join_host(&format!("host-{number}")).await;
        reached_at(&mut joined, &format!("192.0.2.{}", 3 * number + 4)).await;
        *host = Some(joined);
    }
    let hosts = hosts.map(Option::unwrap);
    for (name, cidr) in [("two", "10.0.2.0/24"), ("far", "10.0.3.0/24"), ("alone", "10.0.4.0/24")] {
        cloud.post(NETWORKS, json!({"name": name})).await.expect(201);
        let subnet = json!({"name": name, "network": name, "cidr": cidr});
        cloud.post("/v1/projects/demo/subnets", subnet).await.expect(201);
    }
    for subnet in ["two", "far"] {
        let interface = json!({"subnet": subnet});
        cloud.post("/v1/projects/demo/routers/default/add_interface", interface).await.expect(200);
    }
    let rule = |protocol: &str, group: &str| json!({"direction": "ingress", "protocol": protocol, "remote_group": group});
    let groups = "/v1/projects/demo/security_groups";
    for name in ["web", "db"] {
        cloud.post(groups, json!({"name": name})).await.expect(201);
    }
    for (group, rule) in [
        ("db", rule("tcp", "web")),
        ("web", rule("any", "db")),
        ("web", rule("udp", "web")),
        ("db", rule("icmp", "web")),
        ("db", rule("any", "default")),
    ] {
        cloud.post(&format!("{groups}/{group}/rules"), rule).await.expect(201);
    }
    let card = |network: &str, groups: &[&str]| json!({"network": network, "security_groups": groups});
    instance(cloud, &hosts[0], "demo", "a", json!([card("default", &["web"]), card("two", &["db", "web"])]))
        .await;
    instance(cloud, &hosts[1], "demo", "b", json!([card("two", &["db"])])).await;
    instance(cloud, &hosts[1], "demo", "c", json!([card("alone", &["default"])])).await;
    instance(cloud, &hosts[0], "demo", "d", json!([card("alone", &["web"]), card("default", &["default"])]))
        .await;
    execute(
        cloud,
        "INSERT INTO address_pools (id, name, cidr, first_address, last_address, created_at, updated_at)
         VALUES ('00000000-0000-7000-8000-000000000003', 'public', '203.0.113.0/24', '203.0.113.1',
                 '203.0.113.99', now(), now());
         INSERT INTO floating_ips (id, project_id, name, labels, address_pool_id, address, port_id,
                                   fixed_address, created_at, updated_at)
         SELECT p.id, p.project_id, 'f' || row_number() OVER (), '{}', '00000000-0000-7000-8000-000000000003',
                '203.0.113.0'::inet + row_number() OVER (ORDER BY p.id), p.id, a.address, now(), now()
         FROM ports p JOIN subnet_addresses a ON a.port_id = p.id JOIN networks n ON n.id = p.network_id
         WHERE n.name <> 'alone';
         INSERT INTO port_allowed_address_pairs (port_id, cidr, mac)
         SELECT id, '10.9.0.0/16'::inet, NULL::macaddr FROM ports
         UNION ALL SELECT id, '10.8.0.1/32', 'fa:16:3e:00:00:99' FROM ports",
    )
    .await;
    hosts
}

#[tokio::test]
async fn a_host_is_told_the_same_whoever_else_is_read_for() {
    let cloud = TestCloud::start().await;
    let hosts = mixed(&cloud).await.map(|host| host.id);
    let together = read(&cloud, &hosts).await;
    for (host, document) in hosts.into_iter().zip(&together) {
        let alone = read(&cloud, &[host]).await;
        assert_eq!(serde_json::to_vec(&alone[0]).unwrap(), serde_json::to_vec(document).unwrap());
    }
    let count = |of: fn(&HostNetwork) -> usize| together.iter().map(of).collect::<Vec<_>>();
    assert_eq!(count(|document| document.networks.len()), [4, 4, 0]);
    let ports = |document: &HostNetwork| document.networks.iter().map(|network| network.ports.len()).sum();
    assert_eq!(count(ports), [4, 2, 0]);
    let floating = |document: &HostNetwork| document.routers.iter().map(|it| it.floating_ips.len()).sum();
    assert_eq!(count(floating), [3, 1, 0]);
    assert_eq!(count(|document| document.security_groups.len()), [3, 2, 0]);
    assert_eq!(count(|document| document.peers.len()), [2, 2, 2]);
}

#[tokio::test]
async fn a_rule_is_told_to_the_hosts_with_ports_in_its_group() {
    let cloud = TestCloud::start().await;
    let hosts = mixed(&cloud).await;
    spread(&cloud.app).await.unwrap();
    let revisions = async || {
        let query = "SELECT network_revision FROM hosts ORDER BY name";
        sqlx::query_scalar::<_, i64>(query).fetch_all(&cloud.app.pool).await.unwrap()
    };
    let before = revisions().await;
    let web = "/v1/projects/demo/security_groups/web/rules";
    let rule = json!({"direction": "ingress", "protocol": "tcp", "remote_cidr": "0.0.0.0/0"});
    let made = cloud.post(web, rule).await.expect(201);
    spread(&cloud.app).await.unwrap();
    let after = revisions().await;
    assert_eq!(after, [before[0] + 1, before[1], before[2]]);
    let told = hosts[0].feed(before[0]).await;
    let rules = |groups: &serde_json::Value| {
        groups.as_array().unwrap().iter().map(|group| group["rules"].as_array().unwrap().len()).sum::<usize>()
    };
    let with = rules(&told["objects"][0]["security_groups"]);
    cloud.call(Method::DELETE, &format!("{web}/{}", made["id"].as_str().unwrap()), None).await.expect(204);
    spread(&cloud.app).await.unwrap();
    assert_eq!(revisions().await, [before[0] + 2, before[1], before[2]]);
    assert_eq!(rules(&hosts[0].network().await["security_groups"]), with - 1);
}

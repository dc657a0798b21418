//! What hosts are told, and what a project begins with.

use protocol::ProjectId;
use protocol::agent::{Direction, PortRange, Remote, RuleProtocol, SecurityGroup, SecurityGroupRule};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{GROUPS, https, start};
use crate::security_groups::store::{defaults, hosts};
use crate::testing::TestCloud;

/// What a host with these ports alone is told.
async fn told(conn: &mut PgConnection, ports: &[Uuid]) -> Vec<SecurityGroup> {
    let groups = hosts::of_ports(conn, ports).await.unwrap();
    groups.told(&ports.iter().copied().collect()).unwrap()
}

#[tokio::test]
async fn a_host_learns_the_groups_of_its_ports_and_the_members_they_name() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for name in ["one", "two"] {
        let instance = json!({"name": name, "image": "image", "instance_type": "tiny", "networks": []});
        cloud.post("/v1/projects/demo/instances", instance).await.expect(202);
    }
    let web = cloud.post(GROUPS, json!({"name": "web", "rules": [https()]})).await.expect(201);
    let from_web = json!({"direction": "ingress", "protocol": "icmp", "remote_group": "web"});
    let alone = json!({"direction": "egress", "protocol": 47, "remote_group": "db"});
    let db = json!({"name": "db", "rules": [from_web, alone]});
    let db = cloud.post(GROUPS, db).await.expect(201);
    let subnet = cloud.insert_subnet("net", "10.7.0.0/24", None).await;
    let twin = cloud.insert_subnet("twin", "10.7.0.0/24", None).await;
    let mut webs = Vec::new();
    for (name, subnet, address) in
        [("a", subnet, "10.7.0.20"), ("b", subnet, "10.7.0.5"), ("c", twin, "10.7.0.5")]
    {
        let port = cloud.insert_port(name, &[(subnet, address)]).await;
        cloud.join_security_group(port, "web").await;
        webs.push(port);
        cloud.plug_ports("one", &[port]).await;
    }
    // Whoever may make ports has not thereby a card with the address.
    let nobodys = cloud.insert_port("nobodys", &[(subnet, "10.7.0.77")]).await;
    cloud.join_security_group(nobodys, "web").await;
    let store = cloud.insert_port("store", &[(subnet, "10.7.0.9")]).await;
    cloud.join_security_group(store, "db").await;
    cloud.plug_ports("two", &[store]).await;
    let mut conn = cloud.app.pool.acquire().await.unwrap();

    let groups = told(&mut conn, &[store]).await;
    let id = |group: &serde_json::Value| group["id"].as_str().unwrap().parse::<Uuid>().unwrap();
    assert_eq!(groups.iter().map(|group| group.id.as_uuid()).collect::<Vec<_>>(), [id(&db)]);
    let members = |group: &serde_json::Value, addresses: &[&str]| Remote::Group {
        group_id: id(group).into(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    let expected = [
        SecurityGroupRule {
            direction: Direction::Ingress,
            protocol: RuleProtocol::Icmp { icmp_type: None, icmp_code: None },
            remote: members(&web, &["10.7.0.5", "10.7.0.20"]),
        },
        SecurityGroupRule {
            direction: Direction::Egress,
            protocol: RuleProtocol::Number { number: 47 },
            remote: members(&db, &["10.7.0.9"]),
        },
    ];
    assert_eq!(groups[0].rules, expected);

    // Each group once, in one order, however many ports are in it.
    webs.push(store);
    let groups = told(&mut conn, &webs).await;
    assert_eq!(groups.iter().map(|group| group.id.as_uuid()).collect::<Vec<_>>(), [id(&web), id(&db)]);
    let ports = PortRange { first: 443, last: 443 };
    assert_eq!(groups[0].rules[0].protocol, RuleProtocol::Tcp { ports });
    assert_eq!(groups[0].rules[0].remote, Remote::Cidr { cidr: "0.0.0.0/0".parse().unwrap() });
    assert!(told(&mut conn, &[]).await.is_empty());

    // What is read for several hosts is told to each as if it were alone.
    let both = hosts::of_ports(&mut conn, &webs).await.unwrap();
    for port in webs {
        assert_eq!(both.told(&[port].into()).unwrap(), told(&mut conn, &[port]).await);
    }
}

#[tokio::test]
async fn the_default_group_lets_its_members_meet_and_go_out() {
    let cloud = start().await;
    let project: Uuid = sqlx::query_scalar("SELECT id FROM projects WHERE name = 'demo'")
        .fetch_one(&cloud.app.pool)
        .await
        .unwrap();
    sqlx::query("DELETE FROM security_groups").execute(&cloud.app.pool).await.unwrap();
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let now = cloud.app.clock.now();
    let id = defaults::make(&mut conn, &cloud.app.clock, ProjectId::from(project), now).await.unwrap();
    let group = cloud.get(&format!("{GROUPS}/default")).await.expect(200);
    assert_eq!((&group["id"], &group["is_default"]), (&json!(id), &json!(true)));
    let told: Vec<_> = group["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| {
            json!([rule["direction"], rule["protocol"], rule["remote_cidr"], rule["remote_group_id"]])
        })
        .collect();
    let expected = [
        json!(["ingress", "any", null, id]),
        json!(["egress", "any", "0.0.0.0/0", null]),
        json!(["egress", "any", "::/0", null]),
    ];
    assert_eq!(told, expected);
}

//! What is rendered, for the eye: a golden file per namespace.

use protocol::agent::*;
use serde_json::json;

use super::host::Zones;
use super::ruleset::Family;
use super::*;

/// Two networks, of which one is routed, and a group of each kind of rule.
fn document() -> HostNetwork {
    let id = |number: u32| format!("01890000-0000-7000-8000-{number:012x}");
    let subnet = json!({"id": id(1), "cidr": "10.0.0.0/24", "gateway": "10.0.0.1", "routed": true,
        "service_address": "10.0.0.2", "dhcp": true, "dns_servers": []});
    let port = |number: u32, addresses: &[&str], groups: &[u32]| {
        json!({"id": id(number), "instance_id": id(number), "mac": format!("fa:16:3e:00:00:{number:02x}"),
            "addresses": addresses.iter().map(|it| json!({"subnet_id": id(1), "address": it})).collect::<Vec<_>>(),
            "allowed_address_pairs": [{"cidr": "10.0.0.128/25", "mac": null}],
            "security_groups": groups.iter().map(|group| id(*group)).collect::<Vec<_>>(),
            "hostname": "guest",
            "metadata": {"instance_type": "small", "project": "p", "public_ipv4": null}})
    };
    let network = |vni: u32, ports: serde_json::Value| {
        json!({"id": id(vni), "vni": vni, "mtu": 1400, "dns_domain": "example.internal", "subnets": [subnet],
            "ports": ports, "remote_ports": []})
    };
    let rule = |direction: &str, mut protocol: serde_json::Value, remote: serde_json::Value| {
        protocol["direction"] = direction.into();
        json!({"direction": direction, "protocol": protocol, "remote": remote})
    };
    let net = |cidr: &str| json!({"kind": "cidr", "cidr": cidr});
    let members = json!({"kind": "group", "group_id": id(12), "addresses": ["10.0.0.11", "fd00::11"]});
    let tcp = json!({"protocol": "tcp", "ports": {"first": 80, "last": 443}});
    let echo = json!({"protocol": "icmp", "icmp_type": 8, "icmp_code": null});
    let document = json!({
        "peers": ["192.0.2.2"],
        "networks": [
            network(7, json!([port(1, &["10.0.0.11", "fd00::11"], &[11, 12])])),
            network(8, json!([port(2, &["10.0.0.12"], &[])]))],
        "routers": [{"id": id(5), "number": 5, "external": true, "routes": [],
            "interfaces": [{"id": id(6), "network_id": id(7), "subnet_id": id(1), "address": "10.0.0.1/24",
                "mac": "fa:16:3e:00:00:f0"}],
            "floating_ips": [{"id": id(9), "address": "203.0.113.9", "port_id": id(1),
                "fixed_address": "10.0.0.11"}]}],
        "security_groups": [
            {"id": id(11), "rules": [
                rule("ingress", tcp.clone(), net("10.0.0.0/8")),
                rule("ingress", echo, net("0.0.0.0/0")),
                rule("ingress", tcp, members.clone()),
                rule("ingress", json!({"protocol": "any"}), members),
                rule("ingress", json!({"protocol": "number", "number": 50}), net("fd00::/8"))]},
            {"id": id(12), "rules": [rule("egress", json!({"protocol": "any"}), net("::/0"))]}],
    });
    serde_json::from_value(document).unwrap()
}

fn packets() -> Packets {
    let protected = vec!["192.0.2.0/24".parse().unwrap()];
    let external = Some("eth1".to_owned());
    Packets::new(Surroundings { underlay: Some("192.0.2.1".parse().unwrap()), protected, external })
}

fn lines(tables: &[Table]) -> String {
    let commands = tables.iter().flat_map(|table| plan::plan(table, None));
    commands.map(|command| command.to_string() + "\n").collect()
}

#[test]
fn the_hosts_tables() {
    let (tables, faults) =
        packets().render(&document(), &Zones::new(), &["eth1".to_owned()].into(), &LeftOut::default());
    assert_eq!(faults, []);
    insta::assert_snapshot!(lines(&tables));
}

#[test]
fn a_routers_table() {
    let want = document();
    let (table, faults) = router::table(&want.routers[0], &packets().protected(&want));
    assert_eq!(faults, []);
    insta::assert_snapshot!(lines(&[table]));
}

#[test]
fn rules_name_no_counter_chain_or_set_that_is_not_there() {
    let want = document();
    let packets = packets();
    let (host, _) = packets.render(&want, &Zones::new(), &["eth1".to_owned()].into(), &LeftOut::default());
    let (router, _) = router::table(&want.routers[0], &packets.protected(&want));
    for table in host.iter().chain([&router]) {
        assert!(table.family == Family::Bridge || table.family == Family::Inet);
        for (name, chain) in &table.chains {
            for statement in chain.rules.iter().flatten() {
                let text = statement.to_string();
                if let Some(counter) = statement["counter"].as_str() {
                    assert!(table.counters.contains(counter), "{name}: {text}");
                }
                let target = statement["jump"]["target"].as_str().or(statement["goto"]["target"].as_str());
                assert!(target.is_none_or(|target| table.chains.contains_key(target)), "{name}: {text}");
                for set in text.split("\"@").skip(1).filter_map(|rest| rest.split('"').next()) {
                    assert!(table.sets.contains_key(set), "{name}: {text}");
                }
            }
        }
    }
}

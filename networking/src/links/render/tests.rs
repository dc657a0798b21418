use std::collections::BTreeSet;

use protocol::agent::{AddressPair, Network, StaticRoute};

use super::*;
use crate::links::desired::{Device, Kind, Unit};
use crate::links::tests::world::{add_ipv6, document, id, mac, network, port, remote, router};

const UNDERLAY: Underlay = Underlay { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), mtu: Some(1500) };

fn names(desired: &Desired) -> Vec<Vec<&str>> {
    desired
        .units
        .iter()
        .map(|unit| unit.devices.iter().map(|device| device.name.as_str()).collect())
        .collect()
}

fn device<'a>(unit: &'a Unit, name: &str) -> &'a Device {
    unit.devices.iter().find(|device| device.name == name).unwrap()
}

fn inner<'a>(unit: &'a Unit, name: &str) -> &'a Device {
    let Kind::Veth { inner } = &device(unit, name).kind else { panic!("{name} is no link") };
    inner
}

#[test]
fn what_the_document_names_is_there_and_a_router_where_it_leads() {
    let [mut near, far, further, apart] = [7, 8, 9, 10].map(|number| network(number, true));
    near.ports.push(port(&near, 11));
    let routers = [router(1, &[&far, &further]), router(2, &[&near, &far]), router(3, &[&apart])];
    let want = document(&[&near, &far, &further], &[&routers[0], &routers[1], &routers[2]]);
    assert_eq!(
        names(&render(&want, Some(UNDERLAY))),
        [
            vec!["cbr7", "cvx7", "ct00000000000b", "csv7"],
            vec!["cbr8", "cvx8"],
            vec!["cbr9", "cvx9"],
            vec!["cri000000000108", "cri000000000109"],
            vec!["cri000000000207", "cri000000000208"],
        ]
    );
}

/// The card of a guest that comes from another host needs its bridge before the port is this host's.
#[test]
fn a_network_without_a_port_has_its_bridge_and_no_services() {
    let mut awaited = network(7, true);
    awaited.remote_ports.push(remote(&port(&awaited, 11), "192.0.2.2"));
    let desired = render(&document(&[&awaited], &[]), Some(UNDERLAY));
    assert_eq!(names(&desired), [vec!["cbr7", "cvx7"]]);
    assert!(desired.units[0].namespace.is_none() && desired.units[0].faults.is_empty());
}

#[test]
fn every_remote_port_has_its_entries() {
    let mut network = network(7, false);
    add_ipv6(&mut network);
    network.ports.push(port(&network, 11));
    network.remote_ports =
        vec![remote(&port(&network, 12), "192.0.2.2"), remote(&port(&network, 13), "192.0.2.3")];
    network.remote_ports[1].host = None;
    let desired = render(&document(&[&network], &[]), Some(UNDERLAY));
    let unit = &desired.units[0];
    let known: Vec<_> =
        device(unit, "cbr7").neighbours.iter().map(|(a, mac)| (a.to_string(), *mac)).collect();
    let address = |text: &str| (text.to_owned(), mac(12));
    assert_eq!(known, [address("10.0.7.12"), address("fd00:0:0:7::12"), address("fe80::5054:ff:fe00:c")]);
    let vxlan = device(unit, "cvx7");
    assert_eq!(vxlan.tunnels, BTreeMap::from([(mac(12), "192.0.2.2".parse().unwrap())]));
    assert_eq!(vxlan.stations, BTreeSet::from([mac(12)]), "one that is nowhere has none");
}

#[test]
fn what_the_underlay_cannot_carry_is_a_fault_of_the_network() {
    let mut network = network(7, false);
    network.ports.push(port(&network, 11));
    network.remote_ports.push(remote(&port(&network, 12), "192.0.2.2"));
    let faults =
        |network: &Network, underlay| render(&document(&[network], &[]), underlay).units.remove(0).faults;
    assert_eq!(faults(&network, Some(UNDERLAY)), [""; 0]);
    assert!(faults(&network, None)[0].contains("no underlay address"));
    network.mtu = 1450;
    assert_eq!(faults(&network, Some(UNDERLAY)), [""; 0]);
    network.mtu = 1451;
    assert!(faults(&network, Some(UNDERLAY))[0].contains("raise that to 1501"));
    network.mtu = 1400;
    network.remote_ports[0].host = Some("2001:db8::2".parse().unwrap());
    assert!(faults(&network, Some(UNDERLAY))[0].contains("addresses of one family"));
}

#[test]
fn a_shared_card_address_is_learned_and_no_other() {
    let mut network = network(7, false);
    network.ports = vec![port(&network, 11), port(&network, 12)];
    let pair = |mac| vec![AddressPair { cidr: "10.0.7.50/32".parse().unwrap(), mac }];
    network.ports[0].allowed_address_pairs = pair(Some(mac(11)));
    network.ports[1].allowed_address_pairs = pair(Some(mac(99)));
    let desired = render(&document(&[&network], &[]), None);
    let learning = |name: &str| device(&desired.units[0], name).port.as_ref().unwrap().learning;
    assert!(!learning("ct00000000000b"));
    assert!(learning("ct00000000000c"));
    assert!(!learning("csv7"));
}

#[test]
fn static_routes_leave_by_the_interface_of_their_next_hop() {
    let mut network = network(7, true);
    network.ports.push(port(&network, 11));
    let mut router = router(1, &[&network]);
    router.external = true;
    let route =
        |to: &str, by: &str| StaticRoute { destination: to.parse().unwrap(), next_hop: by.parse().unwrap() };
    router.routes = vec![
        route("198.51.100.0/24", "10.0.7.5"),
        route("0.0.0.0/0", "10.0.7.6"),
        route("198.51.100.0/24", "10.0.99.5"),
    ];
    let desired = render(&document(&[&network], &[&router]), None);
    let unit = &desired.units[1];
    let hops =
        |device: &Device| device.routes.iter().map(|route| route.gateway.to_string()).collect::<Vec<_>>();
    assert_eq!(hops(inner(unit, "cri000000000107")), ["10.0.7.6", "10.0.7.5"]);
    assert!(inner(unit, "cre000000000001").routes.is_empty(), "its own default route is preferred");
    assert_eq!(unit.faults.len(), 1);
    assert!(unit.faults[0].contains("by 10.0.99.5 leads nowhere"));
}

#[test]
fn services_leave_by_the_router_of_each_subnet() {
    let mut network = network(7, true);
    for _ in 0..2 {
        add_ipv6(&mut network);
    }
    for (position, subnet) in network.subnets.iter_mut().enumerate().skip(1) {
        subnet.cidr = format!("fd00:0:0:{position}::/64").parse().unwrap();
        subnet.gateway = Some(format!("fd00:0:0:{position}::1").parse().unwrap());
        subnet.routed = true;
    }
    network.ports.push(port(&network, 11));
    let desired = render(&document(&[&network], &[]), None);
    let routes: Vec<_> = inner(&desired.units[0], "csv7").routes.iter().cloned().collect();
    let sources: Vec<_> = routes.iter().map(|route| (route.gateway.to_string(), route.source)).collect();
    assert_eq!(
        sources,
        [
            ("10.0.7.1".to_owned(), None),
            ("fd00:0:0:1::1".to_owned(), None),
            ("fd00:0:0:2::1".to_owned(), Some("fd00:0:0:2::/64".parse().unwrap())),
        ]
    );
}

#[test]
fn a_router_must_be_whole_where_ports_are() {
    let (mut near, missing) = (network(7, true), network(8, true));
    let router = router(1, &[&near, &missing]);
    near.ports.push(port(&near, 11));
    let desired = render(&document(&[&near], &[&router]), None);
    let missing: protocol::NetworkId = id(8);
    assert!(desired.units[1].faults[0].contains(&missing.to_string()), "{:?}", desired.units[1].faults);
}

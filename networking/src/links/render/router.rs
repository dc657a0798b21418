//! One router: a link into each of its networks, and the way out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use protocol::NetworkId;
use protocol::agent::{Network, NetworkSubject, Router, RouterInterface};

use crate::links::desired::{BridgePort, Device, Kind, Namespace, Route, Unit};
use crate::links::settings;
use crate::names;

/// Of the link between a router and its host, in bytes: what the world outside is expected to take.
const TRANSIT_MTU: u32 = 1500;

pub(super) fn render(router: &Router, networks: &BTreeMap<NetworkId, &Network>) -> Unit {
    let name = names::router_namespace(router.id);
    let mut unit = Unit {
        subject: NetworkSubject::Router(router.id),
        namespace: Some(Namespace { name, settings: settings::namespace(true) }),
        devices: Vec::new(),
        faults: Vec::new(),
    };
    let has_port = |interface: &RouterInterface| {
        networks.get(&interface.network_id).is_some_and(|network| !network.ports.is_empty())
    };
    let near = router.interfaces.iter().any(has_port);
    for interface in &router.interfaces {
        match networks.get(&interface.network_id) {
            Some(network) => unit.devices.push(link(interface, network, router)),
            // A router that others only lead through need not be whole.
            None if near => unit.faults.push(format!(
                "its interface {} is in network {}, which this host was not told of",
                interface.address, interface.network_id
            )),
            None => (),
        }
    }
    let reached =
        |next_hop: IpAddr| router.interfaces.iter().any(|interface| interface.address.contains(&next_hop));
    for route in router.routes.iter().filter(|route| !reached(route.next_hop)) {
        unit.faults.push(format!(
            "the route to {} by {} leads nowhere: no interface is in the subnet of {}",
            route.destination, route.next_hop, route.next_hop
        ));
    }
    if router.external {
        unit.devices.push(uplink(router, &mut unit.faults));
    }
    unit
}

fn link(interface: &RouterInterface, network: &Network, router: &Router) -> Device {
    let mtu = network.mtu.into();
    let mut inner = Device::new(names::router_interface(interface.id), Kind::Inner, mtu);
    inner.mac = Some(interface.mac);
    inner.settings = settings::inner(&inner.name);
    inner.addresses = BTreeSet::from([interface.address]);
    let routes = router.routes.iter().filter(|route| interface.address.contains(&route.next_hop));
    inner.routes = routes
        .map(|route| Route { destination: route.destination.trunc(), gateway: route.next_hop, source: None })
        .collect();
    let kind = Kind::Veth { inner: Box::new(inner) };
    let mut link = Device::new(names::router_link(interface.id), kind, mtu);
    link.port = Some(BridgePort::of(names::bridge(network.vni)));
    link.settings = settings::port(&link.name);
    link.stations = BTreeSet::from([interface.mac]);
    link
}

/// The link to the host, which routes the router's floating addresses into it.
fn uplink(router: &Router, faults: &mut Vec<String>) -> Device {
    let (host_end, router_end) = router.transit();
    let transit = |address| IpNet::new_assert(IpAddr::V4(address), 31);
    let mut inner = Device::new(names::ROUTER_EXTERNAL.to_owned(), Kind::Inner, TRANSIT_MTU);
    inner.settings = settings::inner(&inner.name);
    inner.addresses = BTreeSet::from([transit(router_end)]);
    let everything = super::everything_like(host_end.into());
    // A default route of the project's own is preferred.
    if !router.routes.iter().any(|route| route.destination == everything) {
        inner.routes.insert(Route { destination: everything, gateway: host_end.into(), source: None });
    }
    let kind = Kind::Veth { inner: Box::new(inner) };
    let mut uplink = Device::new(names::router_uplink(router.id), kind, TRANSIT_MTU);
    uplink.settings = settings::uplink(&uplink.name);
    uplink.addresses = BTreeSet::from([transit(host_end)]);
    for floating in &router.floating_ips {
        if floating.address.is_ipv6() {
            faults.push(format!(
                "the floating IP {} is an IPv6 address: only IPv4 ones are routed",
                floating.address
            ));
            continue;
        }
        uplink.routes.insert(Route {
            destination: floating.address.into(),
            gateway: router_end.into(),
            source: None,
        });
    }
    uplink
}

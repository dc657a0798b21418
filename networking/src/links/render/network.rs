//! One network: its bridge, its tunnel to other hosts, the taps of its ports and the link to its services.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use protocol::MacAddress;
use protocol::agent::{Network, NetworkSubject, Port, RemotePort, Subnet};

use super::Underlay;
use crate::links::desired::{BridgePort, Device, Kind, Namespace, Route, Unit};
use crate::links::settings;
use crate::{names, services};

pub(super) fn render(network: &Network, underlay: Option<Underlay>) -> Unit {
    let mut unit = Unit {
        subject: NetworkSubject::Network(network.id),
        namespace: None,
        devices: vec![bridge(network)],
        faults: Vec::new(),
    };
    tunnel(network, underlay, &mut unit);
    unit.devices.extend(network.ports.iter().map(|port| tap(network, port)));
    if services::are_here(network) {
        let name = names::services_namespace(network.vni);
        unit.namespace = Some(Namespace { name, settings: settings::namespace(false) });
        unit.devices.push(services_link(network));
    }
    unit
}

fn device(network: &Network, name: String, kind: Kind) -> Device {
    Device::new(name, kind, network.mtu.into())
}

fn bridge(network: &Network) -> Device {
    let name = names::bridge(network.vni);
    let mut bridge = device(network, name.clone(), Kind::Bridge);
    bridge.mac = Some(names::bridge_mac(network.vni));
    bridge.settings = settings::bridge(&name);
    bridge
}

fn port(network: &Network, name: String, kind: Kind) -> Device {
    let mut port = device(network, name, kind);
    port.port = Some(BridgePort::of(names::bridge(network.vni)));
    port
}

/// The VXLAN device with an entry for every port on another host, for which the bridge answers ARP and ND.
/// Nothing is ever flooded into the tunnel.
fn tunnel(network: &Network, underlay: Option<Underlay>, unit: &mut Unit) {
    let placed = || network.remote_ports.iter().filter_map(|port| Some((port, port.host?)));
    let Some(underlay) = underlay else {
        if placed().next().is_some() {
            unit.faults
                .push("this host has no underlay address, so it does not reach other hosts".to_owned());
        }
        return;
    };
    let kind = Kind::Vxlan { vni: network.vni, local: underlay.address };
    let mut vxlan = port(network, names::vxlan(network.vni), kind);
    vxlan.settings = settings::port(&vxlan.name);
    vxlan.port = vxlan.port.map(|port| BridgePort { multicast: false, answered_for: true, ..port });
    let with_ipv6 = network.subnets.iter().any(|subnet| matches!(subnet.cidr, IpNet::V6(_)));
    for (remote, host) in placed() {
        if host.is_ipv4() != underlay.address.is_ipv4() {
            unit.faults.push(format!(
                "{} is on host {host}, which this host with the underlay address {} does not reach: give all hosts \
                 addresses of one family",
                remote.hostname, underlay.address
            ));
            continue;
        }
        vxlan.stations.insert(remote.mac);
        vxlan.tunnels.insert(remote.mac, host);
        for address in addresses(remote, with_ipv6) {
            unit.devices[0].neighbours.insert(address, remote.mac);
        }
    }
    // Outer Ethernet header aside: IP, UDP, VXLAN and the inner Ethernet header.
    let overhead = if underlay.address.is_ipv4() { 50 } else { 70 };
    let needed = u32::from(network.mtu) + overhead;
    if let Some(mtu) = underlay.mtu.filter(|mtu| *mtu < needed) {
        unit.faults.push(format!(
            "its packets of {} bytes do not fit the underlay, whose MTU is {mtu}: raise that to {needed}, or use \
             networks with a smaller MTU",
            network.mtu
        ));
    }
    unit.devices.push(vxlan);
}

fn addresses(remote: &RemotePort, with_ipv6: bool) -> impl Iterator<Item = IpAddr> {
    let link_local = with_ipv6.then(|| IpAddr::V6(link_local(remote.mac)));
    remote.addresses.iter().copied().chain(link_local)
}

/// The address that a network card gives itself, RFC 4291 appendix A.
fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes();
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// A guest that shares an address of another card with others is found by what it sends.
fn tap(network: &Network, guest: &Port) -> Device {
    let mut tap = port(network, names::tap(guest.id), Kind::Tap);
    let shares = guest.allowed_address_pairs.iter().any(|pair| pair.mac.is_some_and(|mac| mac != guest.mac));
    tap.port = tap.port.map(|port| BridgePort { learning: shares, unknown_unicast: shares, ..port });
    tap.stations = BTreeSet::from([guest.mac]);
    tap
}

fn services_link(network: &Network) -> Device {
    let mac = names::services_mac(network.vni);
    let mut inner = device(network, names::SERVICES_INTERFACE.to_owned(), Kind::Inner);
    inner.mac = Some(mac);
    inner.settings = settings::inner(&inner.name);
    inner.addresses = network
        .subnets
        .iter()
        .filter_map(|s| IpNet::new(s.service_address, s.cidr.prefix_len()).ok())
        .collect();
    inner.addresses.insert(IpAddr::from(services::METADATA_ADDRESS).into());
    inner.routes = ways_out(&network.subnets);
    let name = names::services_link(network.vni);
    let mut link = port(network, name, Kind::Veth { inner: Box::new(inner) });
    link.settings = settings::port(&link.name);
    link.stations = BTreeSet::from([mac]);
    link
}

/// To the first router of each family; from further IPv6 subnets, which may have other routers, to their own.
fn ways_out(subnets: &[Subnet]) -> BTreeSet<Route> {
    let mut routes = BTreeSet::new();
    let routed = || subnets.iter().filter(|subnet| subnet.routed);
    let mut ipv4 = routed().filter(|subnet| matches!(subnet.cidr, IpNet::V4(_)));
    if let Some(gateway) = ipv4.next().and_then(|subnet| subnet.gateway) {
        routes.insert(Route { destination: super::everything_like(gateway), gateway, source: None });
    }
    let ipv6 = routed().filter(|subnet| matches!(subnet.cidr, IpNet::V6(_)));
    for (position, (subnet, gateway)) in ipv6.filter_map(|s| Some((s, s.gateway?))).enumerate() {
        let source = (position > 0).then_some(subnet.cidr);
        routes.insert(Route { destination: super::everything_like(gateway), gateway, source });
    }
    routes
}

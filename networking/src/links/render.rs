//! From the document to the wanted devices. Pure.

mod network;
mod router;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use protocol::NetworkId;
use protocol::agent::{HostNetwork, Network, Router};

use super::desired::Desired;

/// The underlay as this host sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Underlay {
    pub address: IpAddr,
    /// The largest packet of the device that has the address, in bytes; absent if no device has it.
    pub mtu: Option<u32>,
}

pub(super) fn render(want: &HostNetwork, underlay: Option<Underlay>) -> Desired {
    let networks: BTreeMap<_, _> = want.networks.iter().map(|network| (network.id, network)).collect();
    let (near, routers) = needed(want, &networks);
    let mut desired = Desired::default();
    for network in want.networks.iter().filter(|network| near.contains(&network.id)) {
        desired.units.push(network::render(network, underlay));
    }
    for router in routers {
        desired.units.push(router::render(router, &networks));
        if router.external {
            desired.forwarding = true;
            desired.proxies.extend(router.floating_ips.iter().map(|ip| ip.address).filter(IpAddr::is_ipv4));
        }
    }
    desired
}

/// The networks with a port here, whatever routers lead to from there, and these routers.
fn needed<'a>(
    want: &'a HostNetwork,
    networks: &BTreeMap<NetworkId, &Network>,
) -> (BTreeSet<NetworkId>, Vec<&'a Router>) {
    let mut near: BTreeSet<NetworkId> =
        want.networks.iter().filter(|network| !network.ports.is_empty()).map(|network| network.id).collect();
    let mut far: Vec<&Router> = want.routers.iter().collect();
    let mut routers = Vec::new();
    loop {
        let (reached, rest): (Vec<_>, Vec<_>) = far.into_iter().partition(|router| {
            router.interfaces.iter().any(|interface| near.contains(&interface.network_id))
        });
        if reached.is_empty() {
            return (near, routers);
        }
        let there =
            reached.iter().flat_map(|router| &router.interfaces).map(|interface| interface.network_id);
        near.extend(there.filter(|id| networks.contains_key(id)));
        routers.extend(reached);
        far = rest;
    }
}

/// The default route's destination in the family of an address.
fn everything_like(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

#[cfg(test)]
mod tests;

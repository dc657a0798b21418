//! From the document to the wanted devices. Pure.

mod network;
mod router;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use protocol::agent::{HostNetwork, Router};

use super::desired::Desired;

/// The underlay as this host sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Underlay {
    pub address: IpAddr,
    /// The largest packet of the device that has the address, in bytes; absent if no device has it.
    pub mtu: Option<u32>,
}

/// All that the document names, also where no port is (yet): the card of a guest that comes finds its bridge.
pub(super) fn render(want: &HostNetwork, underlay: Option<Underlay>) -> Desired {
    let networks: BTreeMap<_, _> = want.networks.iter().map(|network| (network.id, network)).collect();
    let mut desired = Desired::default();
    for network in &want.networks {
        desired.units.push(network::render(network, underlay));
    }
    let is_near = |router: &&Router| {
        router.interfaces.iter().any(|interface| networks.contains_key(&interface.network_id))
    };
    for router in want.routers.iter().filter(is_near) {
        desired.units.push(router::render(router, &networks));
        if router.external {
            desired.forwarding = true;
            desired.proxies.extend(router.floating_ips.iter().map(|ip| ip.address).filter(IpAddr::is_ipv4));
        }
    }
    desired
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

//! The local ports that rules are made for, and what rules call them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use protocol::agent::{HostNetwork, NetworkFault, NetworkSubject, Port};
use protocol::{MacAddress, PortId, SecurityGroupId};

use crate::names;

/// On a frame whose connection a security group has allowed. No guest's mark.
pub(super) const ALLOWED: u32 = 0x4375_6d75;

const MARKED: u32 = 0x8000_0000;

/// A local port.
#[derive(Debug)]
pub(super) struct Guest<'a> {
    pub(super) port: &'a Port,
    pub(super) tap: String,
    /// The link to the services of its network.
    pub(super) services: String,
    /// Marks frames from and to its tap while they are judged; 31 bits of the port's id and the highest one.
    pub(super) mark: u32,
}

impl Guest<'_> {
    /// Names what belongs to this port alone, as its tap does.
    pub(super) fn tail(&self) -> &str {
        &self.tap[2..]
    }

    /// What it may speak for: hardware address and net.
    pub(super) fn sources(&self) -> BTreeSet<(MacAddress, IpNet)> {
        let mac = self.port.mac;
        let own = self.port.addresses.iter().map(|at| (mac, IpNet::from(at.address)));
        let pairs = self.port.allowed_address_pairs.iter();
        let pairs = pairs.map(|pair| (pair.mac.unwrap_or(mac), pair.cidr.trunc()));
        let mut sources: BTreeSet<_> = own.chain(pairs).collect();
        let local: Vec<_> =
            self.macs().into_iter().map(|mac| (mac, IpAddr::from(link_local(mac)).into())).collect();
        sources.extend(local);
        sources
    }

    pub(super) fn macs(&self) -> BTreeSet<MacAddress> {
        let pairs = self.port.allowed_address_pairs.iter().filter_map(|pair| pair.mac);
        pairs.chain([self.port.mac]).collect()
    }
}

/// The address that a guest makes itself (EUI-64).
pub(super) fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes();
    let [ab, c_ff, fe_d, ef] = [[a ^ 2, b], [c, 0xff], [0xfe, d], [e, f]].map(u16::from_be_bytes);
    Ipv6Addr::new(0xfe80, 0, 0, 0, ab, c_ff, fe_d, ef)
}

/// The ports whose rules can be made, given why groups and some of themselves cannot; the others are as if they were unknown, and a
/// fault each.
pub(super) fn guests<'a>(
    want: &'a HostNetwork,
    refused: &BTreeMap<SecurityGroupId, String>,
    refused_ports: &BTreeMap<PortId, String>,
) -> (Vec<Guest<'a>>, Vec<NetworkFault>) {
    let known: BTreeSet<_> = want.security_groups.iter().map(|group| group.id).collect();
    let mut faults = Vec::new();
    let mut guests: Vec<Guest<'_>> = Vec::new();
    let mut taps = BTreeSet::new();
    for network in &want.networks {
        for port in &network.ports {
            let bad = port.security_groups.iter().find(|id| !known.contains(id) || refused.contains_key(id));
            let tap = names::tap(port.id);
            if let Some(why) = refused_ports.get(&port.id) {
                let detail = format!("passes nothing: {why}");
                faults.push(NetworkFault { subject: NetworkSubject::Port(port.id), detail });
            } else if let Some(group) = bad {
                let detail = format!("passes nothing: the rules of security group {group} cannot be made");
                faults.push(NetworkFault { subject: NetworkSubject::Port(port.id), detail });
            } else if !taps.insert(tap.clone()) {
                let detail = format!("passes nothing: another port has its device name {tap}");
                faults.push(NetworkFault { subject: NetworkSubject::Port(port.id), detail });
            } else {
                guests.push(Guest { port, tap, services: names::services_link(network.vni), mark: 0 });
            }
        }
    }
    guests.sort_by_key(|guest| guest.port.id);
    let mut used = BTreeSet::new();
    for guest in &mut guests {
        let mut mark = preferred_mark(guest.port.id);
        while !used.insert(mark) {
            mark = mark.wrapping_add(1) | MARKED;
        }
        guest.mark = mark;
    }
    (guests, faults)
}

fn preferred_mark(port: PortId) -> u32 {
    let [.., a, b, c, d] = *port.as_uuid().as_bytes();
    u32::from_be_bytes([a, b, c, d]) | MARKED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_makes_its_link_local_address_from_its_hardware_address() {
        let mac = "fa:16:3e:01:02:03".parse().unwrap();
        assert_eq!(link_local(mac).to_string(), "fe80::f816:3eff:fe01:203");
    }
}

//! B14: guests on two hosts over the product's overlay, beside a VXLAN made by hand.
//!
//! Ours is measured with the product's packet rules on both hosts (`b14`) and without (`b14-links`); the one by hand
//! has none. Hosts are namespaces, the cable between them is a veth.

use anyhow::Result;
use networking::{links, packets};
use protocol::agent::{HostNetwork, RemotePort};

use crate::documents::{MTU, group_of_a_thousand, network, port};
use crate::traffic::{Pair, compare};
use crate::world::{Host, two_hosts};

const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

pub(crate) fn run(rounds: usize) -> Result<()> {
    let (ruled, plain, by_hand) = (two_hosts()?, two_hosts()?, two_hosts()?);
    let by_hand = peer(&by_hand)?;
    let peer = ("VXLAN by hand, no rules", &by_hand);
    compare("b14", rounds, ("overlay with port rules", &ours(&ruled, true)?), peer)?;
    println!();
    compare("b14-links", rounds, ("overlay without rules", &ours(&plain, false)?), peer)
}

fn ours(hosts: &[Host; 2], with_rules: bool) -> Result<Pair<'_>> {
    let ports = [port(11)?, port(12)?];
    let mut guests = Vec::new();
    for (here, host) in hosts.iter().enumerate() {
        let there = 1 - here;
        let mut network = network()?;
        network.ports.push(ports[here].clone());
        network.remote_ports.push(RemotePort {
            mac: ports[there].mac,
            addresses: ports[there].addresses.iter().map(|address| address.address).collect(),
            hostname: ports[there].hostname.clone(),
            host: Some(ADDRESSES[there].parse()?),
        });
        let want = HostNetwork {
            peers: vec![ADDRESSES[there].parse()?],
            networks: vec![network.clone()],
            security_groups: vec![group_of_a_thousand()?],
            ..HostNetwork::default()
        };
        let underlay = Some(ADDRESSES[here].parse()?);
        let links = links::Surroundings { underlay, external_interface: None };
        let packets = with_rules.then(|| packets::Surroundings { underlay, ..Default::default() });
        host.converge(links.clone(), packets.clone(), &want)?;
        guests.push(host.plug(&network, &ports[here])?);
        host.converge(links, packets, &want)?;
    }
    Ok(pair(hosts, &guests))
}

fn peer(hosts: &[Host; 2]) -> Result<Pair<'_>> {
    let macs = ["52:54:00:00:00:0b", "52:54:00:00:00:0c"];
    let mut guests = Vec::new();
    for (here, host) in hosts.iter().enumerate() {
        let there = 1 - here;
        host.bare_bridge("bare", MTU)?;
        host.ip(&format!(
            "link add vxlan7 mtu {MTU} type vxlan id 7 dstport 4789 local {} dev uplink nolearning",
            ADDRESSES[here]
        ))?;
        host.ip("link set vxlan7 addrgenmode none master bare up")?;
        // Whatever the address, flooding included: there is one other host.
        for mac in [macs[there], "00:00:00:00:00:00"] {
            host.command(&format!("bridge fdb append {mac} dev vxlan7 dst {}", ADDRESSES[there]))?;
        }
        let address = format!("10.0.1.{}", 11 + here);
        guests.push(host.plug_by_hand("guest", "bare", macs[here], &address, MTU)?);
    }
    Ok(pair(hosts, &guests))
}

fn pair<'a>(hosts: &'a [Host; 2], guests: &[String]) -> Pair<'a> {
    let [left, right] = hosts;
    Pair {
        client: (left, guests[0].clone()),
        server: (right, guests[1].clone()),
        address: "10.0.1.12".to_owned(),
    }
}

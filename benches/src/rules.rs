//! B13: two guests on one host behind the product's packet rules, beside two on a bare bridge.
//!
//! The rules are those that the agent makes of a document with 10 rules, one of which names a group with 1,000
//! members. Guests are namespaces and their taps veths, so QEMU and virtio are on neither side.

use anyhow::Result;
use networking::{links, packets};
use protocol::agent::HostNetwork;

use crate::documents::{MTU, group_of_a_thousand, network, port};
use crate::traffic::{Pair, compare};
use crate::world::Host;

pub(crate) fn run(rounds: usize) -> Result<()> {
    let (ruled, bare) = (Host::new()?, Host::new()?);
    compare("b13", rounds, ("through port rules", &ours(&ruled)?), ("bare bridge", &peer(&bare)?))
}

fn ours(host: &Host) -> Result<Pair<'_>> {
    let mut network = network()?;
    network.ports = vec![port(11)?, port(12)?];
    let want = HostNetwork {
        networks: vec![network.clone()],
        security_groups: vec![group_of_a_thousand()?],
        ..HostNetwork::default()
    };
    let converge =
        || host.converge(links::Surroundings::default(), Some(packets::Surroundings::default()), &want);
    converge()?;
    let client = host.plug(&network, &network.ports[0])?;
    let server = host.plug(&network, &network.ports[1])?;
    converge()?;
    Ok(Pair { client: (host, client), server: (host, server), address: "10.0.1.12".to_owned() })
}

fn peer(host: &Host) -> Result<Pair<'_>> {
    host.bare_bridge("bare", MTU)?;
    let client = host.plug_by_hand("left", "bare", "52:54:00:00:00:0b", "10.0.1.11", MTU)?;
    let server = host.plug_by_hand("right", "bare", "52:54:00:00:00:0c", "10.0.1.12", MTU)?;
    Ok(Pair { client: (host, client), server: (host, server), address: "10.0.1.12".to_owned() })
}

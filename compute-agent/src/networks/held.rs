//! Ports that a guest still has although they are another instance's by now.
//!
//! A card is pulled out with the help of the guest. One that does not help would go on being whoever the port belongs to,
//! as soon as the port is a card of another instance on this host: with its addresses, its groups and its metadata. So
//! such a port passes nothing until the guest has let go, and its new instance waits for that.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use networking::names;
use protocol::agent::{HostNetwork, NetworkFault, NetworkSubject};
use protocol::{InstanceId, PortId};

use crate::hypervisor::Domain;

/// The instance that still has the card, by port.
pub(super) type Held = BTreeMap<PortId, InstanceId>;

pub(super) fn held(networks: &HostNetwork, domains: &HashMap<InstanceId, Domain>) -> Held {
    let taps = |domain: &Domain| domain.cards.iter().filter_map(|card| card.tap.clone()).collect::<Vec<_>>();
    let holders: HashMap<String, InstanceId> =
        domains.iter().flat_map(|(id, domain)| taps(domain).into_iter().map(|tap| (tap, *id))).collect();
    let ports = networks.networks.iter().flat_map(|network| &network.ports);
    ports
        .filter_map(|port| {
            let holder = *holders.get(&names::tap(port.id))?;
            (holder != port.instance_id).then_some((port.id, holder))
        })
        .collect()
}

/// The document as if these ports were not on this host.
pub(super) fn without<'a>(networks: &'a HostNetwork, held: &Held) -> Cow<'a, HostNetwork> {
    if held.is_empty() {
        return Cow::Borrowed(networks);
    }
    let mut rest = networks.clone();
    for network in &mut rest.networks {
        network.ports.retain(|port| !held.contains_key(&port.id));
    }
    Cow::Owned(rest)
}

pub(super) fn faults(held: &Held) -> impl Iterator<Item = NetworkFault> {
    held.iter().map(|(port, holder)| NetworkFault {
        subject: NetworkSubject::Port(*port),
        detail: format!(
            "passes nothing: it was taken from instance {holder}, whose guest has not let go of the card; stop that \
             instance, or wait"
        ),
    })
}

//! The devices of a host's virtual networks: bridges, VXLAN, the links of routers and services with their
//! namespaces, forwarding and neighbour entries, addresses and routes.
//!
//! [`Links::converge`] renders what the document wants, reads what is there and changes what differs. Whatever was
//! deleted or bent by hand is put right; what bears one of our names and is not wanted goes; all else is left
//! alone. Each network and each router is a unit of its own: what fails in one is its fault and stops no other.
//!
//! Frames between hosts are sent only to stations that the document names. Nothing is flooded or learned: the
//! bridge itself answers ARP and ND for stations on other hosts.
//!
//! Of the host's own settings two are changed, and not taken back, for others may have come to rely on them. Packets may
//! be forwarded (`net.ipv4.conf.<device>.forwarding`) that come in by the external interface or, when none is named, by
//! the devices of the host's default routes; and that only while a router leads out. The kernel keeps more neighbours
//! (`net.ipv4.neigh.default.gc_thresh*`, and those of IPv6), of which there is one table for all namespaces.

mod apply;
mod desired;
mod entries;
pub(crate) mod external;
mod render;
mod seen;
mod settings;
mod shape;
mod space;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use protocol::agent::{HostNetwork, MAX_DETAIL_CHARS, NetworkFault, NetworkSubject};

use self::desired::Desired;
use self::render::Underlay;
use self::space::{Mode, Space, StepError};
use crate::{Difference, names, namespace};

/// What a host's networks are connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The address at which other hosts reach this one. Without it there are no networks across hosts.
    pub underlay: Option<IpAddr>,
    /// The interface on which floating addresses are answered for. Without it they are reached from this host, and by
    /// whoever routes them to it.
    pub external_interface: Option<String>,
}

/// The devices of this host, in the network and mount namespace of the caller. Needs root.
#[derive(Debug, Clone)]
pub struct Links {
    surroundings: Surroundings,
}

/// How a host came to be as the document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converged {
    /// How many things were changed; none when all was well.
    pub changed: usize,
    /// What could not be made.
    pub faults: Vec<NetworkFault>,
}

/// Nothing could be done at all.
#[derive(Debug, thiserror::Error)]
#[error("read the network devices of this host; is this root?")]
pub struct LinksError(#[source] StepError);

impl Links {
    pub fn new(surroundings: Surroundings) -> Self {
        Self { surroundings }
    }

    /// Makes the devices match the document. To be called again at any time, but by one caller at a time.
    pub async fn converge(&self, want: &HostNetwork) -> Result<Converged, LinksError> {
        let Pass { changes, faults } = self.pass(want, Mode::Change).await?;
        Ok(Converged { changed: changes.len(), faults: faults.0 })
    }

    /// What [`Self::converge`] would change, and cards that no document names. Changes nothing.
    pub async fn look(&self, want: &HostNetwork) -> Result<Vec<Difference>, LinksError> {
        let Pass { changes, faults } = self.pass(want, Mode::Look).await?;
        let faults =
            faults.0.into_iter().map(|NetworkFault { subject, detail }| Difference { subject, detail });
        Ok(changes.into_iter().chain(faults).collect())
    }

    async fn pass(&self, want: &HostNetwork, mode: Mode) -> Result<Pass, LinksError> {
        let mut root = Space::here(mode).await.map_err(LinksError)?;
        let mut pass = Pass::default();
        match settings::make_room_for_neighbours(mode) {
            Ok(changes) => pass.note(NetworkSubject::Host, changes),
            Err(error) => {
                pass.faults.add(NetworkSubject::Host, [format!("cannot make room for neighbours: {error}")]);
            }
        }
        let desired = render::render(want, self.underlay(&root, &mut pass.faults));
        let gone = remove_strays(&mut root, &desired, &mut pass.faults).await;
        pass.note(NetworkSubject::Host, gone);
        pass.note(NetworkSubject::Host, std::mem::take(&mut root.changes));
        if mode == Mode::Look {
            pass.note(NetworkSubject::Host, stray_taps(&root, &desired));
        }
        for unit in &desired.units {
            let done = Box::pin(apply::unit(&mut root, unit)).await;
            pass.note(unit.subject, std::mem::take(&mut root.changes));
            pass.note(unit.subject, done.changes);
            pass.faults.add(unit.subject, unit.faults.iter().cloned().chain(done.faults));
        }
        let external = self.surroundings.external_interface.as_deref();
        let failed = external::converge(&mut root, external, &desired).await;
        pass.note(NetworkSubject::Host, std::mem::take(&mut root.changes));
        pass.faults.add(NetworkSubject::Host, failed);
        Ok(pass)
    }

    fn underlay(&self, root: &Space, faults: &mut Faults) -> Option<Underlay> {
        let address = self.surroundings.underlay?;
        let device =
            root.seen.links.values().find(|link| link.addresses.keys().any(|found| found.addr() == address));
        if device.is_none() {
            let detail = format!("no device has the underlay address {address}: give it to one");
            faults.add(NetworkSubject::Host, [detail]);
        }
        Some(Underlay { address, mtu: device.map(|link| link.mtu) })
    }
}

/// What came of going through everything once.
#[derive(Default)]
struct Pass {
    /// What was changed, or would be.
    changes: Vec<Difference>,
    faults: Faults,
}

impl Pass {
    fn note(&mut self, subject: NetworkSubject, details: impl IntoIterator<Item = String>) {
        self.changes.extend(details.into_iter().map(|detail| Difference { subject, detail }));
    }
}

#[derive(Default)]
struct Faults(Vec<NetworkFault>);

impl Faults {
    fn add(&mut self, subject: NetworkSubject, details: impl IntoIterator<Item = String>) {
        for detail in details {
            tracing::warn!(?subject, detail, "a network device could not be made");
            self.0.push(NetworkFault { subject, detail: detail.chars().take(MAX_DETAIL_CHARS).collect() });
        }
    }
}

/// Cards that no port of the document has. libvirt makes and removes them, so they are named and left alone.
fn stray_taps(root: &Space, desired: &Desired) -> Vec<String> {
    let wanted: BTreeSet<_> = desired.units.iter().flat_map(|unit| &unit.devices).map(|d| &d.name).collect();
    let strays = root.seen.links.keys().filter(|name| names::is_tap(name) && !wanted.contains(name));
    strays.map(|name| stray_card(name)).collect()
}

/// What is said of a card that no port has.
pub fn stray_card(name: &str) -> String {
    format!("remove device {name}: no port has this card")
}

/// Removes what bears our names and is not wanted. Devices go first: those of a namespace vanish only some time
/// after it. Returns the namespaces' part of it, in words.
async fn remove_strays(root: &mut Space, desired: &Desired, faults: &mut Faults) -> Vec<String> {
    let devices: BTreeSet<_> = desired.units.iter().flat_map(|unit| &unit.devices).map(|d| &d.name).collect();
    let strays: Vec<_> = root
        .seen
        .links
        .keys()
        .filter(|name| names::is_our_device(name) && !devices.contains(name))
        .cloned()
        .collect();
    for name in strays {
        let removed = apply::remove(root, &name).await;
        faults.add(NetworkSubject::Host, removed.err().map(|error| error.sentence()));
    }
    let namespaces: BTreeSet<_> =
        desired.units.iter().filter_map(|unit| unit.namespace.as_ref()).map(|n| n.name.as_str()).collect();
    let mut removed = Vec::new();
    let present = namespace::list().inspect_err(|error| {
        faults.add(NetworkSubject::Host, [format!("cannot list namespaces: {error}")]);
    });
    for name in present.unwrap_or_default() {
        if !names::is_our_namespace(&name) || namespaces.contains(name.as_str()) {
            continue;
        }
        let done = if root.mode == Mode::Change { namespace::remove(&name) } else { Ok(()) };
        match done {
            Ok(()) => removed.push(format!("remove namespace {name}")),
            Err(error) => {
                faults.add(NetworkSubject::Host, [format!("cannot remove namespace {name}: {error}")]);
            }
        }
    }
    removed
}

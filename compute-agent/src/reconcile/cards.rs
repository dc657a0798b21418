//! The decision about the network cards of an instance. Pure.
//!
//! A card is told by its address and its tap. One is pulled out only with the help of the guest, which may not
//! even have booted: it is asked again and again, and nothing waits for it here. The control plane does: nobody else gets
//! the port before this host has reported without the card.

use std::time::Duration;

use protocol::MacAddress;
use protocol::agent::{InstanceSpec, Nic};
use time::OffsetDateTime;

use super::plan::{Plan, Seen, Step};
use crate::desired::Wanted;
use crate::hypervisor::{Card, Domain};
use crate::networks::Readiness;

/// How often a guest is asked to let go of a card.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// How soon to look whether it has.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How soon to look at networks that are not ready, if nobody says that they are.
const NETWORK_AGAIN: Duration = Duration::from_secs(30);

/// What has to be done before the cards can be made; `None` when they can.
pub(super) fn plan_network(spec: &InstanceSpec, seen: &Seen, now: OffsetDateTime) -> Option<Plan> {
    let readiness = |nic: &Nic| seen.ports.get(&nic.port_id).unwrap_or(&Readiness::Unnamed);
    if spec.nics.iter().any(|nic| *readiness(nic) == Readiness::Pending) {
        Some(Plan::Do(Step::EnsureNetwork))
    } else {
        let ready = spec.nics.iter().all(|nic| *readiness(nic) == Readiness::Ready);
        (!ready).then_some(Plan::Wait(now + NETWORK_AGAIN))
    }
}

/// The same for a guest that comes from another host, whose ports are not this host's yet: its cards need their bridges.
pub(super) fn plan_bridges(spec: &InstanceSpec, seen: &Seen, now: OffsetDateTime) -> Option<Plan> {
    let readiness = |nic: &Nic| seen.networks.get(&nic.network_id).unwrap_or(&Readiness::Unnamed);
    if spec.nics.iter().any(|nic| *readiness(nic) == Readiness::Pending) {
        Some(Plan::Do(Step::EnsureNetwork))
    } else {
        let ready = spec.nics.iter().all(|nic| *readiness(nic) == Readiness::Ready);
        // Nobody says that they are.
        (!ready).then_some(Plan::Wait(now + LOOK_AGAIN))
    }
}

/// Makes the cards of a running domain those that are wanted.
pub(super) fn plan_cards(spec: &InstanceSpec, domain: &Domain, seen: &Seen, now: OffsetDateTime) -> Plan {
    let asked = |card: &Card| seen.memory.detaching.get(&card.mac).copied();
    let leaving: Vec<_> = domain.cards.iter().filter(|card| !is_wanted(spec, card)).collect();
    if let Some(card) = leaving.iter().find(|card| asked(card).is_none_or(|at| now >= at + ASK_AGAIN)) {
        return Plan::Do(Step::DetachNic { mac: card.mac });
    }
    let missing: Vec<_> = missing(spec, domain).collect();
    let readiness = |nic: &Nic| seen.ports.get(&nic.port_id).unwrap_or(&Readiness::Unnamed);
    if let Some(nic) = missing.iter().find(|nic| *readiness(nic) == Readiness::Ready) {
        return Plan::Do(Step::AttachNic { port_id: nic.port_id });
    }
    if missing.iter().any(|nic| *readiness(nic) == Readiness::Pending) {
        return Plan::Do(Step::EnsureNetwork);
    }
    if !leaving.is_empty() {
        Plan::Wait(now + LOOK_AGAIN)
    } else if missing.is_empty() {
        Plan::Settled
    } else {
        Plan::Wait(now + NETWORK_AGAIN)
    }
}

/// Why the cards are not yet as wanted, for the instance's owner.
pub(super) fn waiting(spec: &InstanceSpec, seen: &Seen) -> Option<String> {
    let live = seen.live();
    let is_missing = |nic: &&Nic| live.is_none_or(|domain| !has(domain, nic));
    let unready = spec.nics.iter().filter(is_missing).find_map(|nic| match seen.ports.get(&nic.port_id) {
        // Why is for the operator to read, in the host's faults.
        Some(Readiness::Faulty) => {
            Some(format!("The host cannot make the network card {} yet; an operator can see why.", nic.mac))
        }
        Some(Readiness::Unnamed) | None => {
            Some(format!("The host waits to hear of the network of the card {}.", nic.mac))
        }
        Some(Readiness::Ready | Readiness::Pending) => None,
    });
    unready.or_else(|| {
        let leaving = live?.cards.iter().find(|card| !is_wanted(spec, card))?;
        Some(format!("The guest has been asked to let go of the network card {}.", leaving.mac))
    })
}

/// The cards that the domain still has although they are not wanted any more.
pub(super) fn leaving(wanted: &Wanted, seen: &Seen) -> Vec<MacAddress> {
    let cards = seen.live().map(|domain| domain.cards.as_slice()).unwrap_or_default();
    let is_leaving = |card: &&Card| !wanted.nics().iter().any(|nic| Card::of(nic) == **card);
    cards.iter().filter(is_leaving).map(|card| card.mac).collect()
}

/// Whether a card can be plugged in now: the next word is better said after that.
pub(super) fn is_being_attached(spec: &InstanceSpec, domain: &Domain, seen: &Seen) -> bool {
    let can = |nic: &Nic| matches!(seen.ports.get(&nic.port_id), Some(Readiness::Ready | Readiness::Pending));
    missing(spec, domain).any(can)
}

/// Cards to plug in. While another with the same address is on its way out, the hypervisor takes none.
fn missing<'a>(spec: &'a InstanceSpec, domain: &'a Domain) -> impl Iterator<Item = &'a Nic> {
    spec.nics.iter().filter(|nic| !domain.cards.iter().any(|card| card.mac == nic.mac))
}

fn is_wanted(spec: &InstanceSpec, card: &Card) -> bool {
    spec.nics.iter().any(|nic| Card::of(nic) == *card)
}

fn has(domain: &Domain, nic: &Nic) -> bool {
    domain.cards.contains(&Card::of(nic))
}

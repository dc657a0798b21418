//! Placement: which host an instance goes to, and why the others did not take it.
//!
//! [`place`] is a pure function of a snapshot of the cloud ([`Fleet`]) and a [`Request`]. The same function makes the
//! real decision, answers a dry run, plans for many ([`plan`]), says how much more fits ([`capacity`]) and explains a
//! refusal ([`Explanation`]). Its choice is committed under constraints of the database, so a snapshot that has grown
//! old can lose a race but never oversell a host or break the rule of a placement group.

pub mod capacity;
mod detail;
mod explain;
mod filters;
mod fleet;
mod groups;
mod remedies;
mod request;
#[cfg(test)]
mod tests;
mod weights;

pub use detail::detail;
pub use explain::{Explanation, NearestMiss, RejectionCount};
pub use filters::{Rejection, reject, rejections};
pub use fleet::{Candidate, Fleet, Size, TypeOption};
pub use groups::{Group, GroupPolicy, Occupied, Rule, Scope, Strength};
pub use remedies::{Remedy, RemedyKind};
pub use request::{Needs, Request};
pub use weights::{Strategy, Weights, score};

use protocol::HostId;

/// A host that takes the instance, or the whole reason why none does.
#[derive(Debug, Clone, PartialEq)]
pub enum Placement {
    Host(HostId),
    Nowhere(Explanation),
}

/// Chooses the best of the hosts that pass all filters (see [`weights`]); of equals, the lowest id.
pub fn place(fleet: &Fleet, request: &Request) -> Placement {
    match choose(fleet, request) {
        Some(host) => Placement::Host(host),
        None => Placement::Nowhere(explain::explain(fleet, request)),
    }
}

/// The same without the reason.
pub fn choose(fleet: &Fleet, request: &Request) -> Option<HostId> {
    let occupied = Occupied::of(fleet, request);
    let mut best: Option<(weights::Rank, HostId)> = None;
    for candidate in fleet.hosts() {
        // What is cheap comes first, and all filters are asked only of a host that would be the best so far.
        if !candidate.ready || !candidate.free.holds(request.size) {
            continue;
        }
        let rank = weights::rank(candidate, request, &occupied, &fleet.weights);
        if best.as_ref().is_none_or(|(highest, _)| rank.beats(highest))
            && reject(candidate, request, &occupied).is_none()
        {
            best = Some((rank, candidate.id));
        }
    }
    best.map(|(_, host)| host)
}

/// Places one after the other, each beside those before it. All of them find a host, or the list says which do not.
pub fn plan(fleet: &mut Fleet, mut requests: Vec<Request>) -> Vec<Placement> {
    let mut placements = Vec::with_capacity(requests.len());
    for index in 0..requests.len() {
        let (_, rest) = requests.split_at_mut(index);
        let Some((request, later)) = rest.split_first_mut() else { break };
        let placement = place(fleet, request);
        if let Placement::Host(host) = placement {
            fleet.take(host, request.size);
            joined(request, host, later.iter_mut());
        }
        placements.push(placement);
    }
    placements
}

/// Tells the others of its group where an instance has gone.
pub fn joined<'a>(request: &Request, host: HostId, others: impl Iterator<Item = &'a mut Request>) {
    let Some(group) = &request.group else { return };
    for other in others.filter_map(|other| other.group.as_mut()).filter(|other| other.id == group.id) {
        other.members.push(host);
    }
}

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

/// What became of some instances that are alike.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Planned {
    /// Where those go that find a host.
    pub hosts: Vec<HostId>,
    /// Why the others find none.
    pub why_not: Option<Explanation>,
}

/// Places so many of each kind one after the other, each beside those before it. Where one finds no host, no other of its
/// kind does, so each kind is explained once at most.
pub fn plan(fleet: &mut Fleet, mut kinds: Vec<(Request, usize)>) -> Vec<Planned> {
    let mut planned = Vec::with_capacity(kinds.len());
    for index in 0..kinds.len() {
        let (_, rest) = kinds.split_at_mut(index);
        let Some((kind, later)) = rest.split_first_mut() else { break };
        let (request, count) = kind;
        let mut outcome = Planned::default();
        while outcome.hosts.len() < *count {
            let Some(host) = choose(fleet, request) else {
                outcome.why_not = Some(explain::explain(fleet, request));
                break;
            };
            fleet.take(host, request.size);
            let placed = request.clone();
            joined(&placed, host, std::iter::once(&mut *request).chain(later.iter_mut().map(|(one, _)| one)));
            outcome.hosts.push(host);
        }
        planned.push(outcome);
    }
    planned
}

/// Tells the others of its group where an instance has gone.
pub fn joined<'a>(request: &Request, host: HostId, others: impl Iterator<Item = &'a mut Request>) {
    let Some(group) = &request.group else { return };
    for other in others.filter_map(|other| other.group.as_mut()).filter(|other| other.id == group.id) {
        other.members.push(host);
    }
}

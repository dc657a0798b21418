//! Placement: which host an instance goes to, and why the others did not take it.
//!
//! [`place`] is a pure function of a snapshot of the hosts and a request. The same function makes the real
//! decision, answers a dry run and explains a refusal. Its choice is committed under CHECK constraints, so a
//! snapshot that has grown old can lose a race but never oversell a host.

mod explain;
#[cfg(test)]
mod tests;

pub use explain::{Explanation, NearestMiss, RejectionCount};

use protocol::agent::Architecture;
use protocol::{HostId, PoolId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A host as placement sees it. Sizes are what is free, in the unit of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub id: HostId,
    pub ready: bool,
    /// Hardly anything is free in its pool, whatever is promised.
    pub pool_low: bool,
    pub architectures: Vec<Architecture>,
    /// The shared pools that it has.
    pub pools: Vec<PoolId>,
    pub free: Size,
    pub total: Size,
}

/// vCPUs, memory and disk: asked for, free, or in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Size {
    pub vcpus: i32,
    pub memory_mib: i32,
    pub disk_gib: i32,
}

/// What an instance needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub architecture: Architecture,
    /// The disk is that of its volumes which are on no host yet.
    pub size: Size,
    /// The host that has data of its volumes already: no other one takes it.
    pub volumes_on: Option<HostId>,
    /// The shared pools that its other volumes are in: no host without them takes it.
    pub pools: Vec<PoolId>,
    /// Hosts that it has left and that have not said yet that nothing of it is there: none of them takes it.
    pub leaving: Vec<HostId>,
    /// The host that it was on last: any other that takes it is better.
    pub left: Option<HostId>,
}

/// Why a host does not take an instance: the first filter that it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// The data of the instance's volumes is on another one.
    VolumesElsewhere,
    /// It does not have a shared pool that volumes of the instance are in.
    PoolMissing,
    /// The instance has left it, and it has not said yet that nothing of it is there.
    Leaving,
    /// Its agent is silent, degraded or new.
    NotReady,
    /// It cannot run guests of this architecture.
    Architecture,
    /// Its disks are almost full, so it takes no new volumes.
    PoolLow,
    Vcpus,
    Memory,
    Disk,
}

/// A host that takes the instance, or the whole reason why none does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    Host(HostId),
    Nowhere(Explanation),
}

/// Chooses the host with the largest share of its scarcest resource left; of equals, the lowest id. The one that the
/// instance has left comes last.
pub fn place(candidates: &[Candidate], request: &Request) -> Placement {
    let fitting = candidates.iter().filter(|candidate| reject(candidate, request).is_none());
    let best = fitting.max_by(|a, b| {
        let (left_a, left_b) = (share_left(a, request.size), share_left(b, request.size));
        let elsewhere = |candidate: &Candidate| request.left != Some(candidate.id);
        elsewhere(a).cmp(&elsewhere(b)).then(left_a.total_cmp(&left_b)).then_with(|| b.id.cmp(&a.id))
    });
    match best {
        Some(candidate) => Placement::Host(candidate.id),
        None => Placement::Nowhere(explain::explain(candidates, request)),
    }
}

/// The first filter that the host fails.
pub fn reject(candidate: &Candidate, request: &Request) -> Option<Rejection> {
    let (free, asked) = (candidate.free, request.size);
    let filters = [
        (request.volumes_on.is_none_or(|host| host == candidate.id), Rejection::VolumesElsewhere),
        (request.pools.iter().all(|pool| candidate.pools.contains(pool)), Rejection::PoolMissing),
        (!request.leaving.contains(&candidate.id), Rejection::Leaving),
        (candidate.ready, Rejection::NotReady),
        (candidate.architectures.contains(&request.architecture), Rejection::Architecture),
        (!candidate.pool_low || asked.disk_gib == 0, Rejection::PoolLow),
        (free.vcpus >= asked.vcpus, Rejection::Vcpus),
        (free.memory_mib >= asked.memory_mib, Rejection::Memory),
        (free.disk_gib >= asked.disk_gib, Rejection::Disk),
    ];
    filters.into_iter().find(|(passed, _)| !passed).map(|(_, rejection)| rejection)
}

impl Candidate {
    /// Counts an instance that was just placed here, for the next decision on the same snapshot.
    pub fn take(&mut self, size: Size) {
        self.free.vcpus -= size.vcpus;
        self.free.memory_mib -= size.memory_mib;
        self.free.disk_gib -= size.disk_gib;
    }
}

/// The smallest share of any resource that would be left, from 0 to 1.
fn share_left(candidate: &Candidate, size: Size) -> f64 {
    let share = |free: i32, asked: i32, total: i32| f64::from(free - asked) / f64::from(total.max(1));
    let (free, total) = (candidate.free, candidate.total);
    share(free.vcpus, size.vcpus, total.vcpus)
        .min(share(free.memory_mib, size.memory_mib, total.memory_mib))
        .min(share(free.disk_gib, size.disk_gib, total.disk_gib))
}

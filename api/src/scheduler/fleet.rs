//! The snapshot of the cloud that placement decides on.

use std::collections::BTreeMap;

use protocol::agent::Architecture;
use protocol::{HostId, PoolId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::request::Needs;
use super::weights::Weights;

/// A host as placement sees it. Sizes are what is free, in the unit of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub id: HostId,
    pub ready: bool,
    /// The operator keeps new instances away.
    pub cordoned: bool,
    /// Hardly anything is free in its pool, whatever is promised.
    pub pool_low: bool,
    pub architectures: Vec<Architecture>,
    /// What its guests may have, as its agent probed it.
    pub features: Vec<String>,
    /// The shared pools that it has.
    pub pools: Vec<PoolId>,
    /// Those of them in which its guard keeps its lease fresh.
    pub guarded: Vec<PoolId>,
    pub labels: BTreeMap<String, String>,
    /// Keeps instances away whose type does not tolerate each of them.
    pub taints: Vec<String>,
    /// With its zone, so that racks of two zones may have one name.
    pub rack: Option<String>,
    pub zone: Option<String>,
    /// Instances that it makes just now.
    pub starting: i32,
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

impl Size {
    /// Whether it has room for that.
    pub const fn holds(self, asked: Self) -> bool {
        self.vcpus >= asked.vcpus && self.memory_mib >= asked.memory_mib && self.disk_gib >= asked.disk_gib
    }
}

/// An instance type that could be taken instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeOption {
    pub name: String,
    pub architecture: Architecture,
    pub vcpus: i32,
    pub memory_mib: i32,
    pub root_disk_gib: i32,
    pub needs: Needs,
}

/// All hosts, in the order of their ids, and what else a decision depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    hosts: Vec<Candidate>,
    pub weights: Weights,
    /// For advice only.
    pub types: Vec<TypeOption>,
}

impl Fleet {
    pub fn new(mut hosts: Vec<Candidate>, weights: Weights, types: Vec<TypeOption>) -> Self {
        hosts.sort_by_key(|host| host.id);
        Self { hosts, weights, types }
    }

    pub fn hosts(&self) -> &[Candidate] {
        &self.hosts
    }

    pub fn host(&self, id: HostId) -> Option<&Candidate> {
        self.position(id).map(|position| &self.hosts[position])
    }

    fn position(&self, id: HostId) -> Option<usize> {
        self.hosts.binary_search_by_key(&id, |host| host.id).ok()
    }

    /// Counts an instance that was just placed there, for the next decision on the same snapshot.
    pub fn take(&mut self, host: HostId, size: Size) {
        self.change(host, |candidate| {
            candidate.starting += 1;
            candidate.free.vcpus -= size.vcpus;
            candidate.free.memory_mib -= size.memory_mib;
            candidate.free.disk_gib -= size.disk_gib;
        });
    }

    /// What the snapshot says of this host is old: nothing more goes there.
    pub fn distrust(&mut self, host: HostId) {
        self.change(host, |candidate| candidate.ready = false);
    }

    fn change(&mut self, host: HostId, change: impl FnOnce(&mut Candidate)) {
        if let Some(position) = self.position(host) {
            change(&mut self.hosts[position]);
        }
    }
}

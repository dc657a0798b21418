//! The answer to "why was it not placed?", fit for a tenant: counts and sizes, never a host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::filters::{Rejection, reject};
use super::fleet::{Fleet, Size};
use super::groups::{Group, GroupPolicy, Occupied};
use super::remedies::{self, Remedy};
use super::request::Request;

/// Why no host takes the instance, and what would help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// In words.
    pub summary: String,
    /// How many hosts there are.
    pub hosts: usize,
    /// How many of them failed which filter; adds up to `hosts`.
    pub rejections: Vec<RejectionCount>,
    /// What is missing on the host that comes closest, if only size is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest_miss: Option<NearestMiss>,
    /// The smallest changes with which a host would take it now, each of them enough.
    #[serde(default)]
    pub remedies: Vec<Remedy>,
}

impl Explanation {
    /// Of an instance about which nothing could be decided.
    pub fn of_failure() -> Self {
        Self {
            summary: "the control plane could not decide about it, and tries again; the operator finds the reason in its log"
                .to_owned(),
            hosts: 0,
            rejections: Vec::new(),
            nearest_miss: None,
            remedies: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectionCount {
    pub reason: Rejection,
    pub hosts: usize,
}

/// The largest instance that the closest host would take, beside what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NearestMiss {
    pub asked: Size,
    pub would_fit: Size,
}

pub(super) fn explain(fleet: &Fleet, request: &Request) -> Explanation {
    let occupied = Occupied::of(fleet, request);
    let mut counts = BTreeMap::<Rejection, usize>::new();
    for rejection in fleet.hosts().iter().filter_map(|candidate| reject(candidate, request, &occupied)) {
        *counts.entry(rejection).or_default() += 1;
    }
    let rejections: Vec<_> =
        counts.into_iter().map(|(reason, hosts)| RejectionCount { reason, hosts }).collect();
    let nearest_miss = nearest_miss(fleet, request, &occupied);
    let remedies = remedies::find(fleet, request, nearest_miss.as_ref());
    Explanation {
        summary: summary(&rejections, fleet.hosts().len(), request, &remedies),
        hosts: fleet.hosts().len(),
        rejections,
        nearest_miss,
        remedies,
    }
}

/// The host that lacks the smallest share of what was asked for, among those that lack nothing but size.
fn nearest_miss(fleet: &Fleet, request: &Request, occupied: &Occupied<'_>) -> Option<NearestMiss> {
    let missing = |free: i32, asked: i32| f64::from((asked - free).max(0)) / f64::from(asked.max(1));
    let asked = request.size;
    let lack = |free: Size| {
        missing(free.vcpus, asked.vcpus)
            + missing(free.memory_mib, asked.memory_mib)
            + missing(free.disk_gib, asked.disk_gib)
    };
    fleet
        .hosts()
        .iter()
        .filter(|candidate| reject(candidate, request, occupied).is_some_and(Rejection::is_of_size))
        .min_by(|a, b| lack(a.free).total_cmp(&lack(b.free)))
        .map(|candidate| NearestMiss {
            asked,
            would_fit: Size {
                vcpus: asked.vcpus.min(candidate.free.vcpus).max(0),
                memory_mib: asked.memory_mib.min(candidate.free.memory_mib).max(0),
                disk_gib: asked.disk_gib.min(candidate.free.disk_gib).max(0),
            },
        })
}

fn summary(rejections: &[RejectionCount], hosts: usize, request: &Request, remedies: &[Remedy]) -> String {
    if hosts == 0 {
        return "no host has joined this cloud yet".to_owned();
    }
    let reasons: Vec<_> = rejections
        .iter()
        .map(|count| format!("{} {}", count.hosts, in_words(count.reason, request.group.as_ref())))
        .collect();
    let advice = if remedies.is_empty() {
        "no change of it would help now, an operator can look into it".to_owned()
    } else {
        let texts: Vec<_> = remedies.iter().map(|remedy| remedy.text.as_str()).collect();
        format!("it would fit {}", texts.join(", or "))
    };
    format!("none of {hosts} hosts takes it: {}; {advice}", reasons.join(", "))
}

/// What hosts that are rejected for this have in common.
fn in_words(reason: Rejection, group: Option<&Group>) -> String {
    let text = match reason {
        Rejection::VolumesElsewhere => "without the data of its volumes",
        Rejection::PoolMissing => "without the pool of its volumes",
        Rejection::Leaving => "which it has left and which has not confirmed that",
        Rejection::NotReady => "not ready",
        Rejection::NoGuard => "from which it could not start elsewhere when they die",
        Rejection::Cordoned => "cordoned",
        Rejection::Architecture => "cannot run this architecture",
        Rejection::Features => "cannot give its guest what its type asks for",
        Rejection::HostLabels => "not meant for its type",
        Rejection::Tainted => "kept for other types",
        Rejection::PoolLow => "whose disks are almost full",
        Rejection::Vcpus => "too few free vCPUs",
        Rejection::Memory => "too little free memory",
        Rejection::Disk => "too little free disk",
        Rejection::Unlocated => {
            let scope = group.map_or("rack or zone", |group| group.rule.scope.as_str());
            return format!("whose {scope} is not known");
        }
        Rejection::PlacementGroup => return group.map(of_group).unwrap_or_default(),
    };
    text.to_owned()
}

fn of_group(group: &Group) -> String {
    let (name, scope) = (&group.name, group.rule.scope.as_str());
    match group.rule.policy {
        GroupPolicy::Affinity => format!("not the {scope} that group {name} is in"),
        GroupPolicy::AntiAffinity => format!("in a {scope} that group {name} has an instance in"),
    }
}

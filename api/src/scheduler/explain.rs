//! The answer to "why was it not placed?", fit for a tenant: counts and sizes, never a host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Candidate, Rejection, Request, Size, reject};

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

pub(super) fn explain(candidates: &[Candidate], request: &Request) -> Explanation {
    let mut counts = BTreeMap::<Rejection, usize>::new();
    for rejection in candidates.iter().filter_map(|candidate| reject(candidate, request)) {
        *counts.entry(rejection).or_default() += 1;
    }
    let rejections: Vec<_> =
        counts.into_iter().map(|(reason, hosts)| RejectionCount { reason, hosts }).collect();
    let nearest_miss = nearest_miss(candidates, request);
    Explanation {
        summary: summary(&rejections, candidates.len(), nearest_miss.as_ref()),
        hosts: candidates.len(),
        rejections,
        nearest_miss,
    }
}

/// The host that lacks the smallest share of what was asked for, among those that lack nothing but size.
fn nearest_miss(candidates: &[Candidate], request: &Request) -> Option<NearestMiss> {
    let missing = |free: i32, asked: i32| f64::from((asked - free).max(0)) / f64::from(asked.max(1));
    let asked = request.size;
    let lack = |free: Size| {
        missing(free.vcpus, asked.vcpus)
            + missing(free.memory_mib, asked.memory_mib)
            + missing(free.disk_gib, asked.disk_gib)
    };
    candidates
        .iter()
        .filter(|candidate| {
            matches!(reject(candidate, request), Some(Rejection::Vcpus | Rejection::Memory | Rejection::Disk))
        })
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

fn summary(rejections: &[RejectionCount], hosts: usize, nearest: Option<&NearestMiss>) -> String {
    if hosts == 0 {
        return "no host has joined this cloud yet".to_owned();
    }
    let reasons: Vec<_> = rejections
        .iter()
        .map(|count| {
            let reason = match count.reason {
                Rejection::VolumesElsewhere => "without the data of its volumes",
                Rejection::PoolMissing => "without the pool of its volumes",
                Rejection::Leaving => "which it has left and which has not confirmed that",
                Rejection::NotReady => "not ready",
                Rejection::Architecture => "cannot run this architecture",
                Rejection::PoolLow => "whose disks are almost full",
                Rejection::Vcpus => "too few free vCPUs",
                Rejection::Memory => "too little free memory",
                Rejection::Disk => "too little free disk",
            };
            format!("{} {reason}", count.hosts)
        })
        .collect();
    let mut text = format!("none of {hosts} hosts takes it: {}", reasons.join(", "));
    if let Some(NearestMiss { would_fit, .. }) = nearest {
        text.push_str(&format!(
            "; {} vCPUs, {} MiB of memory and {} GiB of disk would fit",
            would_fit.vcpus, would_fit.memory_mib, would_fit.disk_gib
        ));
    }
    text
}

//! Which of the hosts that would take an instance is the best.
//!
//! What comes first decides, and what comes later only among equals:
//! 1. any other host than the one that the instance has left;
//! 2. the preference of a soft placement group: beside its others, or where fewest of them are;
//! 3. the sum of weights: the share of the scarcest resource that would be left (`spread`) or taken (`pack`), plus
//!    `image` where the image is in the cache, minus `load` for each instance that the host makes just now;
//! 4. the lowest id, so that the same input has the same answer.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fleet::{Candidate, Size};
use super::groups::{GroupPolicy, Occupied, Strength};
use super::request::Request;

/// How full hosts may become while others are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Each instance goes to the emptiest host: load is even, and the loss of a host hits few.
    #[default]
    Spread,
    /// Each instance goes to the fullest host that takes it: room is left for large ones.
    Pack,
}

impl Strategy {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::Pack => "pack",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Spread, Self::Pack].into_iter().find(|strategy| strategy.as_str() == name)
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Weights {
    pub strategy: Strategy,
    pub image: f64,
    pub load: f64,
}

/// How good a host is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rank {
    elsewhere: bool,
    company: isize,
    score: f64,
}

impl Rank {
    pub(super) fn beats(&self, other: &Self) -> bool {
        let better = self.elsewhere.cmp(&other.elsewhere).then(self.company.cmp(&other.company));
        better.then(self.score.total_cmp(&other.score)).is_gt()
    }
}

pub(super) fn rank(
    candidate: &Candidate,
    request: &Request,
    occupied: &Occupied<'_>,
    weights: &Weights,
) -> Rank {
    Rank {
        elsewhere: request.left != Some(candidate.id),
        company: company(candidate, request, occupied),
        score: score(candidate, request, weights),
    }
}

/// How welcome the instance is beside the others of its group.
fn company(candidate: &Candidate, request: &Request, occupied: &Occupied<'_>) -> isize {
    let Some(group) = request.group.as_ref().filter(|group| group.rule.strength == Strength::Soft) else {
        return 0;
    };
    let beside = occupied.beside(candidate, group.rule.scope).cast_signed();
    match group.rule.policy {
        GroupPolicy::Affinity => beside,
        GroupPolicy::AntiAffinity => -beside,
    }
}

/// The sum of weights, larger is better.
pub fn score(candidate: &Candidate, request: &Request, weights: &Weights) -> f64 {
    let left = share_left(candidate, request.size);
    let room = match weights.strategy {
        Strategy::Spread => left,
        Strategy::Pack => 1.0 - left,
    };
    let cached = request.image_on.binary_search(&candidate.id).is_ok();
    let image = if cached { weights.image } else { 0.0 };
    room + image - weights.load * f64::from(candidate.starting)
}

/// The smallest share of any resource that would be left, from 0 to 1.
fn share_left(candidate: &Candidate, size: Size) -> f64 {
    let share = |free: i32, asked: i32, total: i32| f64::from(free - asked) / f64::from(total.max(1));
    let (free, total) = (candidate.free, candidate.total);
    share(free.vcpus, size.vcpus, total.vcpus)
        .min(share(free.memory_mib, size.memory_mib, total.memory_mib))
        .min(share(free.disk_gib, size.disk_gib, total.disk_gib))
}

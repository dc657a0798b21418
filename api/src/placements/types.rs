//! The wire of questions about placement.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::FieldError;
use crate::instances::{CustomSize, Reference};
use crate::quotas::{ExceededLimit, QuotaEffect, in_words};
use crate::scheduler::{Explanation, Rejection};
use crate::volumes::disks::validate_size;

const MAX_ENTRIES: usize = 50;
const MAX_INSTANCES: u32 = 500;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanPlacements {
    /// From 1 to 50 entries with at most 500 instances together; placed in this order, each beside those before it.
    #[schema(min_items = 1, max_items = 50)]
    pub instances: Vec<PlannedInstances>,
}

/// Some instances of one kind.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedInstances {
    /// Name or id of an instance type.
    #[schema(example = "tiny")]
    pub instance_type: String,
    /// So many vCPUs in place of the type's own.
    #[schema(minimum = 1, maximum = 512)]
    pub vcpus: Option<u32>,
    /// So much memory in place of the type's own.
    #[schema(minimum = 32, maximum = 8388608)]
    pub memory_mib: Option<u32>,
    /// 1 unless given.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 500)]
    pub count: u32,
    /// Name or id of an image, as for an instance.
    pub image: Option<String>,
    /// Size of the volume that each boots from; that of the type unless given.
    #[schema(minimum = 1, maximum = 16384)]
    pub root_disk_gib: Option<i32>,
    /// Size of further new volumes of each, together; 0 unless given.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 262144)]
    pub further_disk_gib: u32,
    /// Name or id of a placement group. Needs `compute:GetPlacementGroup`, too.
    pub placement_group: Option<String>,
}

impl PlannedInstances {
    /// What they would have in place of the type's size.
    pub(super) const fn size(&self) -> CustomSize {
        CustomSize { vcpus: self.vcpus, memory_mib: self.memory_mib }
    }
}

const fn one() -> u32 {
    1
}

/// What would become of them. Nothing is kept for them.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlacementPlan {
    /// Whether all of them could be made now: every one would find a host, and no quota is in the way.
    pub possible: bool,
    /// Whether every one of them would find a host now, whatever quotas say.
    pub placeable: bool,
    /// For each entry of the question.
    pub instances: Vec<PlannedOutcome>,
    /// What all of them would add to what the project uses.
    pub quota: Vec<QuotaEffect>,
    /// Why they could not be made all the same: what `quota_exceeded` would say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_refusal: Option<QuotaRefusal>,
}

/// Quotas in the way of what is planned.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuotaRefusal {
    /// In words, with what would help.
    pub detail: String,
    pub limits: Vec<ExceededLimit>,
}

impl QuotaRefusal {
    /// Of what would be above its limit.
    pub(super) fn of(effects: &[QuotaEffect]) -> Option<Self> {
        let exceeded = effects.iter().filter_map(|effect| {
            let QuotaEffect { resource, limit, used, after } = *effect;
            let limit = limit.0.filter(|limit| after > *limit && after > used)?;
            Some(ExceededLimit { resource, limit, used, asked: after - used })
        });
        let limits: Vec<_> = exceeded.collect();
        let detail = in_words(&limits).into_owned();
        (!limits.is_empty()).then_some(Self { detail, limits })
    }
}

/// What would become of the instances of one entry.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlannedOutcome {
    pub instance_type: String,
    pub count: u32,
    /// So many of them would find a host.
    pub placeable: u32,
    /// Why the first of the others would not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Explanation>,
}

impl PlanPlacements {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if !(1..=MAX_ENTRIES).contains(&self.instances.len()) {
            let message = format!("from 1 to {MAX_ENTRIES} entries");
            errors.push(FieldError::new("/instances", "out_of_range", message));
        }
        let mut total = 0_u32;
        for (index, entry) in self.instances.iter().enumerate() {
            total = total.saturating_add(entry.count);
            if entry.count == 0 {
                errors.push(FieldError::new(
                    format!("/instances/{index}/count"),
                    "out_of_range",
                    "at least 1",
                ));
            }
            entry.size().validate(&format!("/instances/{index}"), &mut errors);
            if let Some(size) = entry.root_disk_gib {
                validate_size(size, &format!("/instances/{index}/root_disk_gib"), &mut errors);
            }
            if entry.further_disk_gib > 262_144 {
                let pointer = format!("/instances/{index}/further_disk_gib");
                errors.push(FieldError::new(pointer, "out_of_range", "from 0 to 262144"));
            }
        }
        if total > MAX_INSTANCES {
            let message = format!("at most {MAX_INSTANCES} instances together");
            errors.push(FieldError::new("/instances", "too_many", message));
        }
        errors
    }
}

/// Where an instance is, and what each host has against it.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlacementDetail {
    pub instance: Reference,
    pub project: Reference,
    /// The host that it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Reference>,
    /// What its owner is told, while no host would take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Explanation>,
    /// Every host as it is now, those that would take it first, the best of them at the top.
    pub hosts: Vec<HostVerdict>,
}

/// What one host has against an instance.
#[derive(Debug, Serialize, ToSchema)]
pub struct HostVerdict {
    pub host: Reference,
    /// Whether it would take the instance.
    pub takes: bool,
    /// The sum of weights; larger is better.
    pub score: f64,
    /// Every filter that it fails.
    pub rejections: Vec<HostRejection>,
}

/// A filter that a host fails.
#[derive(Debug, Serialize, ToSchema)]
pub struct HostRejection {
    pub reason: Rejection,
    /// With the figures.
    pub detail: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CapacityQuery {
    /// Name or id of an instance type.
    #[serde(rename = "type")]
    pub instance_type: String,
}

/// How much more fits, and what the loss of hosts would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct CapacityForecast {
    pub instance_type: Reference,
    /// So many more instances of this type, with the root disk of the type, find room now.
    pub room: usize,
    /// Of all instances, as if the data of their disks could be brought back elsewhere. Absent when the cloud is too large
    /// to try it while somebody waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<SurvivalForecast>,
    /// Of those all of whose volumes are in shared pools: only they can really be moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_shared_disks: Option<SurvivalForecast>,
}

/// What the loss of hosts would do to instances.
#[derive(Debug, Serialize, ToSchema)]
pub struct SurvivalForecast {
    /// How many instances were tried.
    pub instances: usize,
    /// The fullest hosts, so many of them lost at once: every instance would find another one.
    pub failures: usize,
    /// Hosts of which the loss of one alone would leave instances without room, the fullest first.
    pub critical: Vec<CriticalHost>,
}

/// A host that must not be lost.
#[derive(Debug, Serialize, ToSchema)]
pub struct CriticalHost {
    pub host: Reference,
    /// So many of its instances would find no room.
    pub instances: usize,
}

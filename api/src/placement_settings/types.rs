//! The wire of the settings.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::hosts::{MEMORY_OVERCOMMIT, VCPU_OVERCOMMIT};
use crate::http::{FieldError, not_null};
use crate::scheduler::Strategy;

/// What placement goes by.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlacementSettings {
    pub strategy: Strategy,
    /// What a cached image counts for, where 1 is a host that is wholly free.
    pub image_weight: f64,
    /// What each instance counts against a host that is made there just now.
    pub load_weight: f64,
    /// vCPUs promised for each processor, on hosts that have no ratio of their own.
    pub vcpu_overcommit: f64,
    /// Memory promised for each MiB, on hosts that have no ratio of their own.
    pub memory_overcommit: f64,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePlacementSettings {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub strategy: Option<Strategy>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, minimum = 0, maximum = 1)]
    pub image_weight: Option<f64>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, minimum = 0, maximum = 1)]
    pub load_weight: Option<f64>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, minimum = 0.1, maximum = 64)]
    pub vcpu_overcommit: Option<f64>,
    /// More than 1 makes hosts swap when guests use what they have.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, minimum = 0.1, maximum = 4)]
    pub memory_overcommit: Option<f64>,
}

impl UpdatePlacementSettings {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut check = |pointer, value: Option<f64>, range: std::ops::RangeInclusive<f64>| {
            if value.is_some_and(|value| !range.contains(&value)) {
                let message = format!("from {} to {}", range.start(), range.end());
                errors.push(FieldError::new(pointer, "out_of_range", message));
            }
        };
        check("/image_weight", self.image_weight, 0.0..=1.0);
        check("/load_weight", self.load_weight, 0.0..=1.0);
        check("/vcpu_overcommit", self.vcpu_overcommit, VCPU_OVERCOMMIT);
        check("/memory_overcommit", self.memory_overcommit, MEMORY_OVERCOMMIT);
        errors
    }
}

//! The wire of resizes.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::Reference;
use super::StopInstance;
use crate::http::FieldError;
use crate::instances::custom_size::CustomSize;

/// A day.
const CONFIRM_AFTER_SECONDS: u32 = 24 * 3600;
const CONFIRM_AFTER: std::ops::RangeInclusive<u32> = 0..=30 * 24 * 3600;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeInstance {
    /// Name or id of the instance type that it shall be of. What of its type and its size is not given stays; another type
    /// comes with a size of its own.
    #[schema(example = "large")]
    pub instance_type: Option<String>,
    /// So many vCPUs in place of the type's own. Needs `compute:UseCustomSize`, too.
    #[schema(minimum = 1, maximum = 512)]
    pub vcpus: Option<u32>,
    /// So much memory in place of the type's own. Needs `compute:UseCustomSize`, too.
    #[schema(minimum = 32, maximum = 8388608)]
    pub memory_mib: Option<u32>,
    /// Shut a running instance down and start it again in its new size. Unless given, only a stopped one is resized.
    #[serde(default)]
    pub reboot: bool,
    /// Cut the power at once when it has to go down.
    #[serde(default)]
    pub force: bool,
    /// How long the guest may take to shut down before its power is cut; 60 unless given.
    #[schema(minimum = 1, maximum = 3600)]
    pub timeout_seconds: Option<u32>,
    /// When the resize is confirmed by itself; a day unless given, and at once if 0. Until then it can be reverted.
    #[schema(minimum = 0, maximum = 2592000)]
    pub confirm_after_seconds: Option<u32>,
}

/// A resize that can be reverted.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Resize {
    /// The instance type that it was of. Quota and host hold the larger of both sizes.
    pub from: Reference,
    pub from_vcpus: i32,
    pub from_memory_mib: i32,
    /// When it is confirmed by itself.
    #[serde(with = "time::serde::rfc3339")]
    pub confirm_at: OffsetDateTime,
}

impl ResizeInstance {
    pub(in crate::instances) fn validate(&self) -> Vec<FieldError> {
        let mut errors = self.stop().validate();
        self.size().validate("", &mut errors);
        if self.instance_type.is_none() && !self.size().is_given() {
            errors.push(FieldError::new("/instance_type", "missing", "another type, or another size"));
        }
        if self.confirm_after_seconds.is_some_and(|seconds| !CONFIRM_AFTER.contains(&seconds)) {
            let message = "from 0 to 2592000, which are 30 days";
            errors.push(FieldError::new("/confirm_after_seconds", "out_of_range", message));
        }
        errors
    }

    /// What it asks for in place of the type's size.
    pub(in crate::instances) const fn size(&self) -> CustomSize {
        CustomSize { vcpus: self.vcpus, memory_mib: self.memory_mib }
    }

    /// How the guest goes down if it has to.
    pub(in crate::instances) const fn stop(&self) -> StopInstance {
        StopInstance { force: self.force, timeout_seconds: self.timeout_seconds }
    }

    pub(in crate::instances) fn confirm_at(&self, now: OffsetDateTime) -> OffsetDateTime {
        let seconds = self.confirm_after_seconds.unwrap_or(CONFIRM_AFTER_SECONDS);
        now + std::time::Duration::from_secs(seconds.into())
    }
}

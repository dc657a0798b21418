//! The wire of pools.

use protocol::{Name, PoolId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::hosts::Capacity;
use crate::http::{FieldError, not_null, validate_description};

const OVERCOMMIT: std::ops::RangeInclusive<i32> = 10..=1000;
const DEFAULT_OVERCOMMIT: i32 = 100;
const LOW: std::ops::RangeInclusive<i32> = 0..=50;
const DEFAULT_LOW: i32 = 10;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePool {
    /// As the agents of its hosts call it: `--shared-pool NAME=/PATH`. It never changes.
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    /// How much may be given away of what its file system has, in per cent; 100 unless given.
    #[schema(minimum = 10, maximum = 1000)]
    pub overcommit_percent: Option<i32>,
    /// While less than this of its file system is free, in per cent, no new volume goes there; 10 unless given, 0 for never.
    #[schema(minimum = 0, maximum = 50)]
    pub low_percent: Option<i32>,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePool {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(max_length = 1000, nullable = false)]
    pub description: Option<String>,
    /// What was given away already stays so.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(minimum = 10, maximum = 1000, nullable = false)]
    pub overcommit_percent: Option<i32>,
    /// While less than this of its file system is free, in per cent, no new volume goes there; 0 for never.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(minimum = 0, maximum = 50, nullable = false)]
    pub low_percent: Option<i32>,
}

/// A directory that several hosts share.
#[derive(Debug, Serialize, ToSchema)]
pub struct Pool {
    pub id: PoolId,
    pub name: String,
    pub description: String,
    /// How much may be given away of what its file system has.
    pub overcommit_percent: i32,
    /// While less than this of its file system is free, in per cent, it takes no new volumes; 0 for never.
    pub low_percent: i32,
    /// Whether that is so now. It is over when two per cent more are free.
    pub low: bool,
    /// What may be given away, and what volumes have of it; nothing until a host has the pool.
    pub disk_gib: Capacity,
    /// How many hosts have it now.
    pub hosts: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

impl CreatePool {
    pub(super) fn overcommit_percent(&self) -> i32 {
        self.overcommit_percent.unwrap_or(DEFAULT_OVERCOMMIT)
    }

    pub(super) fn low_percent(&self) -> i32 {
        self.low_percent.unwrap_or(DEFAULT_LOW)
    }

    pub(super) fn validate(&self) -> Vec<FieldError> {
        validate(Some(&self.description), self.overcommit_percent, self.low_percent)
    }
}

impl UpdatePool {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        validate(self.description.as_deref(), self.overcommit_percent, self.low_percent)
    }
}

fn validate(description: Option<&str>, overcommit: Option<i32>, low: Option<i32>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(description) = description {
        validate_description(description, &mut errors);
    }
    if overcommit.is_some_and(|percent| !OVERCOMMIT.contains(&percent)) {
        let message = format!("from {} to {}", OVERCOMMIT.start(), OVERCOMMIT.end());
        errors.push(FieldError::new("/overcommit_percent", "out_of_range", message));
    }
    if low.is_some_and(|percent| !LOW.contains(&percent)) {
        let message = format!("from {} to {}", LOW.start(), LOW.end());
        errors.push(FieldError::new("/low_percent", "out_of_range", message));
    }
    errors
}

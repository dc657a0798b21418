//! The wire of leases: until when an instance is wanted.

use protocol::PrincipalId;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use crate::http::{FieldError, nullable};

/// Whoever writes a later year has mistyped it.
const LONGEST: Duration = Duration::days(3660);

/// Until when an instance is wanted.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WantedLease {
    /// When it is stopped, like by a call; a time to come, at most ten years from now.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub stop_at: Option<OffsetDateTime>,
    /// When it is deleted with the volumes that go with it, unless it or one of those is protected then.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub delete_at: Option<OffsetDateTime>,
}

/// A JSON Merge Patch (RFC 7396): absent times stay, `null` takes one back.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchedLease {
    /// When it is stopped, like by a call; a time to come, at most ten years from now.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub stop_at: Option<Option<At>>,
    /// When it is deleted with the volumes that go with it, unless it or one of those is protected then.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delete_at: Option<Option<At>>,
}

/// A time, RFC 3339.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub struct At(#[serde(with = "time::serde::rfc3339")] pub OffsetDateTime);

/// Until when an instance is wanted, and who said so.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Lease {
    /// Who set the times last: on their behalf it is stopped or deleted.
    pub set_by: PrincipalId,
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub stop_at: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub delete_at: Option<OffsetDateTime>,
    /// Why it is still there although its time has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The two times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    pub stop_at: Option<OffsetDateTime>,
    pub delete_at: Option<OffsetDateTime>,
}

impl From<WantedLease> for Times {
    fn from(wanted: WantedLease) -> Self {
        Self { stop_at: wanted.stop_at, delete_at: wanted.delete_at }
    }
}

impl Times {
    /// These times after the patch.
    #[must_use]
    pub fn patched(self, patch: Option<PatchedLease>) -> Self {
        let Some(patch) = patch else { return Self::default() };
        let merged = |now, patch: Option<Option<At>>| patch.map_or(now, |new| new.map(|at| at.0));
        Self {
            stop_at: merged(self.stop_at, patch.stop_at),
            delete_at: merged(self.delete_at, patch.delete_at),
        }
    }

    /// Adds an error for each time that is new and cannot be.
    pub fn validate(self, before: Self, now: OffsetDateTime, errors: &mut Vec<FieldError>) {
        for (pointer, at, before) in [
            ("/lease/stop_at", self.stop_at, before.stop_at),
            ("/lease/delete_at", self.delete_at, before.delete_at),
        ] {
            if at != before && at.is_some_and(|at| at <= now || at > now + LONGEST) {
                let message = "a time to come, at most ten years from now";
                errors.push(FieldError::new(pointer, "out_of_range", message));
            }
        }
        if let (Some(stop), Some(delete)) = (self.stop_at, self.delete_at)
            && stop >= delete
        {
            let message = "earlier than `delete_at`; without it, it is cut off when it is deleted";
            errors.push(FieldError::new("/lease/stop_at", "invalid", message));
        }
    }
}

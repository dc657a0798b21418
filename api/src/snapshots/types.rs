//! The wire of snapshots.

use protocol::{Name, SnapshotId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::model::{Consistency, SnapshotState};
use crate::http::{FieldError, Labels, LabelsPatch, not_null, validate_description, validate_labels};
use crate::instances::{OperationSummary, Reference};

/// Of a volume or of an instance.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    /// Name or id of a volume of this project, attached or not.
    #[schema(example = "data")]
    pub volume: Option<String>,
    /// Name or id of an instance of this project: all its volumes at one instant.
    pub instance: Option<String>,
    /// What has to be certain of the data when a guest runs.
    #[serde(default)]
    pub consistency: Consistency,
    /// Of an instance whose guest runs: keep its memory and the state of its devices, too, so that it can go on from there.
    #[serde(default)]
    pub memory: bool,
    #[serde(default)]
    pub labels: Labels,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateSnapshot {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(max_length = 1000, nullable = false)]
    pub description: Option<String>,
    /// A label that is `null` is removed.
    #[serde(default)]
    pub labels: LabelsPatch,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreSnapshot {
    /// Which of its volumes goes back, by name or id; all unless given.
    pub volume: Option<String>,
    /// Whether the guest goes on from its memory, which starts the instance; false leaves it stopped. True unless given
    /// where all volumes go back and the snapshot has it.
    pub memory: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Snapshot {
    pub id: SnapshotId,
    pub name: String,
    pub description: String,
    pub labels: Labels,
    pub state: SnapshotState,
    /// Why it is still being taken, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_detail: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    pub consistency: Consistency,
    /// Whether it holds the memory of the guest.
    pub memory: bool,
    /// When what it shows was so.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<OffsetDateTime>,
    /// What it is a snapshot of, if that was an instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<SnapshotInstance>,
    /// In the order of the instance.
    pub volumes: Vec<SnapshotVolume>,
    /// The schedule that made it, as long as that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Reference>,
    /// When volumes went back to it last.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub restored_at: Option<OffsetDateTime>,
    /// The call that made it, or that last let a guest go on from its memory, if a host had to act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationSummary>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// The instance that a snapshot is of, as it was; it may be gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotInstance {
    pub id: Uuid,
    pub name: String,
    pub instance_type: Reference,
    pub firmware: String,
}

/// A volume in a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SnapshotVolume {
    /// As in the instance, which boots from 0.
    pub position: i32,
    /// The volume, as long as it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// As it was called.
    pub name: String,
    pub size_gib: i32,
}

/// The query of a list of snapshots.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SnapshotQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub cursor: Option<String>,
    /// Only the resource of this name.
    pub name: Option<String>,
    /// Only resources with these labels: `tier=web,stage!=test,owner`.
    #[param(
        pattern = "^((!?[A-Za-z0-9._/-]{1,63}|[A-Za-z0-9._/-]{1,63}!?=[A-Za-z0-9._/-]{0,63})(,(!?[A-Za-z0-9._/-]{1,63}|[A-Za-z0-9._/-]{1,63}!?=[A-Za-z0-9._/-]{0,63}))*)?$"
    )]
    pub label_selector: Option<String>,
    /// Only snapshots that show the volume with this name or id.
    pub volume: Option<String>,
    /// Only snapshots of the instance with this name or id.
    pub instance: Option<String>,
    /// Only snapshots that the schedule with this name or id made.
    pub schedule: Option<String>,
    /// Only snapshots in this state.
    #[param(inline)]
    pub state: Option<SnapshotState>,
}

impl CreateSnapshot {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_description(&self.description, &mut errors);
        validate_labels(&self.labels, &mut errors);
        match (&self.volume, &self.instance) {
            (None, None) => errors.push(FieldError::new("/volume", "missing", "a volume, or an `instance`")),
            (Some(_), Some(_)) => {
                errors.push(FieldError::new("/instance", "invalid", "either a volume or an instance"));
            }
            _ => {}
        }
        if self.memory && self.instance.is_none() {
            errors.push(FieldError::new("/memory", "invalid", "only of an `instance`"));
        }
        if self.memory && self.consistency == Consistency::Filesystem {
            let message = "a guest goes on from memory with what it has not written; leave `consistency` out";
            errors.push(FieldError::new("/consistency", "invalid", message));
        }
        errors
    }
}

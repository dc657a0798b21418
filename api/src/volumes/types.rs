//! The wire of volumes.

use protocol::{Name, VolumeId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::model::{AttachmentState, MAX_SIZE_GIB, VolumeState};
use crate::http::{
    FieldError, Labels, LabelsPatch, not_null, nullable, validate_description, validate_labels,
};
use crate::instances::{OperationSummary, Reference};

const IOPS: std::ops::RangeInclusive<i64> = 10..=1_000_000_000;
const BYTES_PER_SECOND: std::ops::RangeInclusive<i64> = 65_536..=1_000_000_000_000;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    /// What its guest sees. Must be given unless there is a source, whose size is taken then.
    #[schema(minimum = 1, maximum = 16384)]
    pub size_gib: Option<i32>,
    /// What it begins with; empty unless given.
    pub source: Option<VolumeSource>,
    /// Name or id of a shared pool that it is in; on the disk of a host unless given. It stays there.
    pub pool: Option<String>,
    /// `true` refuses its deletion, and that of an instance that would take it along.
    #[serde(default)]
    pub delete_protection: bool,
    /// How many reads and writes per second an instance may ask of it; no limit unless given.
    #[schema(minimum = 10, maximum = 1000000000_i64)]
    pub iops_limit: Option<i64>,
    /// How many bytes per second an instance may read and write; no limit unless given.
    #[schema(minimum = 65536, maximum = 1000000000000_i64)]
    pub bytes_per_second_limit: Option<i64>,
    #[serde(default)]
    pub labels: Labels,
}

/// What a volume begins with: an image, a snapshot or another volume.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeSource {
    /// Name or id of an image of this project.
    #[schema(example = "cumulo-test")]
    pub image: Option<String>,
    /// Name or id of a snapshot of this project.
    pub snapshot: Option<String>,
    /// Beside `snapshot`: which of its volumes, by name or id, where it has several. Alone: name or id of a volume to which
    /// no guest can write at the moment.
    pub volume: Option<String>,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateVolume {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(max_length = 1000, nullable = false)]
    pub description: Option<String>,
    /// A volume only grows. A running guest sees the new size at once; its file system is its own to grow.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(minimum = 1, maximum = 16384, nullable = false)]
    pub size_gib: Option<i32>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub delete_protection: Option<bool>,
    /// Whether it goes when its instance does. Only of a volume that is attached.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub delete_with_instance: Option<bool>,
    /// `null` lifts the limit.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<i64>, minimum = 10, maximum = 1000000000_i64)]
    pub iops_limit: Option<Option<i64>>,
    /// `null` lifts the limit.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<i64>, minimum = 65536, maximum = 1000000000000_i64)]
    pub bytes_per_second_limit: Option<Option<i64>>,
    /// A label that is `null` is removed.
    #[serde(default)]
    pub labels: LabelsPatch,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Volume {
    pub id: VolumeId,
    pub name: String,
    pub description: String,
    pub labels: Labels,
    pub state: VolumeState,
    /// Why it is still on its way, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_detail: Option<String>,
    /// What its guest sees.
    pub size_gib: i32,
    /// What it was made from; absent of one that began empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Reference>,
    /// The shared pool that it is in; absent of one that is on the disk of a host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Reference>,
    /// The instance that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
    /// Its guest finds it as `/dev/disk/by-id/virtio-<serial>`.
    #[schema(example = "8f3c2a9d1b7e4c5d6f70")]
    pub serial: String,
    pub delete_protection: bool,
    /// Reads and writes per second; absent is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops_limit: Option<i64>,
    /// Bytes read and written per second; absent is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second_limit: Option<i64>,
    /// The newest call about it that needed a host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationSummary>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A volume in an instance.
#[derive(Debug, Serialize, ToSchema)]
pub struct Attachment {
    pub instance: Reference,
    /// The order in which the guest finds its disks; it boots from 0.
    pub position: i32,
    pub state: AttachmentState,
    /// Whether it goes when its instance does.
    pub delete_with_instance: bool,
}

/// The query of a list of volumes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VolumeQuery {
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
    /// Only volumes of the instance with this name or id.
    pub instance: Option<String>,
    /// Only volumes in this state.
    #[param(inline)]
    pub state: Option<VolumeState>,
}

impl CreateVolume {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_description(&self.description, &mut errors);
        validate_labels(&self.labels, &mut errors);
        validate_limits(self.iops_limit, self.bytes_per_second_limit, &mut errors);
        if let Some(source) = &self.source {
            source.validate(&mut errors);
        }
        match self.size_gib {
            Some(size) => validate_size(size, "/size_gib", &mut errors),
            None if self.source.is_none() => {
                errors.push(FieldError::new("/size_gib", "missing", "how large, or made from what"));
            }
            None => {}
        }
        errors
    }
}

impl VolumeSource {
    fn validate(&self, errors: &mut Vec<FieldError>) {
        match (&self.image, &self.snapshot, &self.volume) {
            (Some(_), None, None) | (None, Some(_), _) | (None, None, Some(_)) => {}
            (None, None, None) => {
                errors.push(FieldError::new("/source", "missing", "an `image`, a `snapshot` or a `volume`"));
            }
            (Some(_), ..) => errors.push(FieldError::new("/source", "invalid", "an image comes alone")),
        }
    }
}

impl UpdateVolume {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_limits(self.iops_limit.flatten(), self.bytes_per_second_limit.flatten(), &mut errors);
        if let Some(size) = self.size_gib {
            validate_size(size, "/size_gib", &mut errors);
        }
        errors
    }
}

/// `pointer` is where the size stands in the body.
pub(crate) fn validate_size(size_gib: i32, pointer: &str, errors: &mut Vec<FieldError>) {
    if !(1..=MAX_SIZE_GIB).contains(&size_gib) {
        errors.push(FieldError::new(pointer, "out_of_range", format!("from 1 to {MAX_SIZE_GIB}")));
    }
}

fn validate_limits(iops: Option<i64>, bytes_per_second: Option<i64>, errors: &mut Vec<FieldError>) {
    for (pointer, limit, range) in
        [("/iops_limit", iops, IOPS), ("/bytes_per_second_limit", bytes_per_second, BYTES_PER_SECOND)]
    {
        if limit.is_some_and(|limit| !range.contains(&limit)) {
            let message = format!("from {} to {}", range.start(), range.end());
            errors.push(FieldError::new(pointer, "out_of_range", message));
        }
    }
}

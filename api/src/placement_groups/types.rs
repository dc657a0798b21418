//! The wire of placement groups.

use protocol::{Name, PlacementGroupId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::http::{FieldError, Labels, LabelsPatch, not_null, validate_description, validate_labels};
use crate::instances::Reference;
use crate::scheduler::{GroupPolicy, Scope, Strength};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePlacementGroup {
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    pub policy: GroupPolicy,
    /// `hard` unless given.
    #[serde(default = "hard")]
    pub strength: Strength,
    /// `host` unless given.
    #[serde(default = "host")]
    pub scope: Scope,
    #[serde(default)]
    pub labels: Labels,
}

const fn hard() -> Strength {
    Strength::Hard
}

const fn host() -> Scope {
    Scope::Host
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are. The rule never changes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePlacementGroup {
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

/// Instances that go together or stay apart.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlacementGroup {
    pub id: PlacementGroupId,
    pub name: String,
    pub description: String,
    pub labels: Labels,
    pub policy: GroupPolicy,
    pub strength: Strength,
    pub scope: Scope,
    /// Those that named it when they were made, oldest first.
    pub instances: Vec<Reference>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

impl CreatePlacementGroup {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_description(&self.description, &mut errors);
        validate_labels(&self.labels, &mut errors);
        errors
    }
}

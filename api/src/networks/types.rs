//! The wire of networks.

use protocol::{Name, NetworkId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::http::{FieldError, Labels, LabelsPatch, not_null, validate_description, validate_labels};

/// Fits into Ethernet frames of 1500 bytes with the 50 bytes of VXLAN around it.
const DEFAULT_MTU: i32 = 1450;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateNetwork {
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    /// Largest packet inside the network, in bytes; 1450 unless given. The hosts' own network must carry 50
    /// more.
    #[schema(minimum = 1280, maximum = 8950)]
    pub mtu: Option<i32>,
    #[serde(default)]
    pub labels: Labels,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateNetwork {
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

#[derive(Debug, Serialize, ToSchema)]
pub struct Network {
    pub id: NetworkId,
    pub name: String,
    pub description: String,
    pub labels: Labels,
    /// Tells it from other networks on the wire between hosts.
    pub vni: i32,
    /// Largest packet inside it, in bytes.
    pub mtu: i32,
    /// Whether an instance that asks for no network gets this one.
    pub is_default: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

impl CreateNetwork {
    pub(super) fn mtu(&self) -> i32 {
        self.mtu.unwrap_or(DEFAULT_MTU)
    }

    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = validate(&self.description, &self.labels);
        if !(1280..=8950).contains(&self.mtu()) {
            errors.push(FieldError::new("/mtu", "out_of_range", "from 1280 to 8950"));
        }
        errors
    }
}

pub(super) fn validate(description: &str, labels: &Labels) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate_description(description, &mut errors);
    validate_labels(labels, &mut errors);
    errors
}

//! The wire of service accounts.

use protocol::{Name, PrincipalId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::http::not_null;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateServiceAccount {
    /// Unique in the project.
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateServiceAccount {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(max_length = 1000, nullable = false)]
    pub description: Option<String>,
    /// The keys of a disabled service account are refused until it is enabled again.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub disabled: Option<bool>,
}

/// A program.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceAccount {
    pub id: PrincipalId,
    pub name: String,
    pub description: String,
    pub disabled: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

//! The wire of policies.

use protocol::{Name, PolicyId, PrincipalId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::document::PolicyDocument;
use crate::http::{PageQuery, not_null};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePolicy {
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    pub document: PolicyDocument,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePolicy {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(max_length = 1000, nullable = false)]
    pub description: Option<String>,
    /// Becomes a new version, which counts from the next request on. A document never changes once it is
    /// written.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub document: Option<PolicyDocument>,
    /// Goes back, or forward, to a version that exists. Not together with `document`.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(minimum = 1, nullable = false)]
    pub default_version: Option<i32>,
}

/// Where a policy belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyScope {
    /// To the cloud; it can be attached there and in every project.
    Cloud,
    /// To a project; it can be attached in no other place.
    Project,
}

impl PolicyScope {
    pub(super) const fn of_cloud(cloud: bool) -> Self {
        if cloud { Self::Cloud } else { Self::Project }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Policy {
    pub id: PolicyId,
    pub name: String,
    pub description: String,
    pub scope: PolicyScope,
    /// Comes with Cumulo, and nobody can change it.
    pub managed: bool,
    /// The version that counts.
    pub default_version: i32,
    /// The document of that version.
    pub document: PolicyDocument,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyVersion {
    /// Counted from 1; a number is never used again.
    pub version: i32,
    /// Whether this is the version that counts.
    pub is_default: bool,
    pub document: PolicyDocument,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Who wrote it; absent when Cumulo did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Author>,
}

/// Who did something.
#[derive(Debug, Serialize, ToSchema)]
pub struct Author {
    pub id: PrincipalId,
    /// Absent when this principal has been deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// All versions of a policy, the newest first; at most 50 are kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyVersions {
    pub items: Vec<PolicyVersion>,
}

/// The query of a list of policies.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListPoliciesQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    cursor: Option<String>,
    /// Only the policy of this name.
    name: Option<String>,
    /// Only those of the project, or only those of the cloud.
    pub scope: Option<PolicyScope>,
}

impl ListPoliciesQuery {
    pub(super) fn split(self) -> (PageQuery, Option<PolicyScope>) {
        (PageQuery::new(self.limit, self.cursor).named(self.name), self.scope)
    }
}

/// A new policy whose fields are fine.
pub(super) struct NewPolicy {
    pub name: Name,
    pub description: String,
    pub document: Value,
}

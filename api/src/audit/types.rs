//! The wire of the audit log.

use protocol::Name;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::{ApiError, ErrorCode, PageQuery};

/// Who did what, and why they could or could not.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditRecord {
    pub id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Absent for what happened in no project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<Uuid>,
    pub request_id: Uuid,
    /// Absent for a sign-in as somebody who does not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_id: Option<Uuid>,
    /// As it was then.
    pub principal_name: String,
    /// `session`, `api_key`, `password` for signing in and out, `join_token` for a host that is let in, or `none`.
    #[schema(example = "session")]
    pub credential_kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_id: Option<Uuid>,
    #[schema(example = "203.0.113.7")]
    pub source_address: String,
    #[schema(example = "compute:DeleteInstance")]
    pub action: String,
    #[schema(example = "crn:cumulo:compute:shop:instance/db")]
    pub resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<Uuid>,
    /// `allowed`, `denied` by policies, or `failed` to prove who they are.
    #[schema(example = "allowed")]
    pub outcome: String,
    /// The statements that decided, each with the name that its policy had then; none when nothing allowed it.
    /// Last comes `{"denied_by_api_key_policy": true}` when the policies allowed it and only that of the API key
    /// did not, or `{"password_change_required": true}` when the user had to choose a new password first.
    pub deciding: Vec<Value>,
    /// The resource before the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The answer, without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// Its place in the chain, once the notary has seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
    /// SHA-256 of its link, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeFilter {
    Allowed,
    Denied,
    Failed,
}

impl OutcomeFilter {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// Which records.
#[derive(Debug, Default, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Records per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub(super) limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub(super) cursor: Option<String>,
    /// Only those of the user or service account of this name.
    #[param(pattern = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
    pub(super) principal: Option<String>,
    /// Only this action, like `compute:DeleteInstance`.
    #[param(pattern = "^[a-z]{1,63}:[A-Za-z]{1,63}$")]
    pub(super) action: Option<String>,
    /// Only those about the resource with this id.
    pub(super) resource_id: Option<Uuid>,
    /// Only those of this request.
    pub(super) request_id: Option<Uuid>,
    /// Only those that ended so.
    #[param(inline)]
    pub(super) outcome: Option<OutcomeFilter>,
    /// Only from this time on, RFC 3339.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub(super) since: Option<OffsetDateTime>,
    /// Only before this time, RFC 3339.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub(super) until: Option<OffsetDateTime>,
}

impl Filter {
    /// Checks what serde cannot.
    pub(super) fn checked(self) -> Result<Self, ApiError> {
        PageQuery::new(self.limit, self.cursor.clone()).checked()?.after()?;
        if self.principal.as_ref().is_some_and(|name| name.parse::<Name>().is_err()) {
            return Err(ApiError::because(
                ErrorCode::InvalidQuery,
                "principal: the name of a user or service account",
            ));
        }
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        let is_action = |text: &String| {
            text.split_once(':').is_some_and(|(service, verb)| is_word(service) && is_word(verb))
        };
        if self.action.as_ref().is_some_and(|action| !is_action(action)) {
            return Err(ApiError::because(
                ErrorCode::InvalidQuery,
                "action: service:Verb, like compute:DeleteInstance",
            ));
        }
        Ok(self)
    }
}

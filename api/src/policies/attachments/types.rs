//! The wire of attachments.

use protocol::{PolicyAttachmentId, PolicyId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::{FieldError, PageQuery};
use crate::policies::types::{Author, PolicyScope};

/// Exactly one of `user`, `group`, `service_account` and `everyone`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachPolicy {
    /// Name or id; the id when the project and the cloud both have a policy of this name.
    #[schema(example = "power-user")]
    pub policy: String,
    /// Name or id of a user.
    pub user: Option<String>,
    /// Name or id of a group: all its members, as long as they are members.
    pub group: Option<String>,
    /// Name or id of a service account of the project; in the cloud, its id.
    pub service_account: Option<String>,
    /// All who are signed in, users and service accounts. In the cloud only.
    #[serde(default)]
    pub everyone: bool,
}

/// To whom a policy is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    User,
    Group,
    ServiceAccount,
    /// All who are signed in.
    Everyone,
}

impl SubjectKind {
    pub(in crate::policies) const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::ServiceAccount => "service_account",
            Self::Everyone => "everyone",
        }
    }
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Subject {
    pub kind: SubjectKind,
    /// Absent for everyone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Absent for everyone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The name of a service account's project, where it is looked up.
    #[serde(skip)]
    pub home: Option<String>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AttachedPolicy {
    pub id: PolicyId,
    pub name: String,
    pub scope: PolicyScope,
    pub managed: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyAttachment {
    pub id: PolicyAttachmentId,
    pub policy: AttachedPolicy,
    pub subject: Subject,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Who attached it; absent when Cumulo did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Author>,
}

/// The query of a list of attachments; filters are names or ids.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAttachmentsQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    cursor: Option<String>,
    /// Only those of this user itself, not those of its groups.
    pub user: Option<String>,
    /// Only those of this group.
    pub group: Option<String>,
    /// Only those of this service account.
    pub service_account: Option<String>,
    /// Only those of this policy.
    pub policy: Option<String>,
}

impl ListAttachmentsQuery {
    pub(super) fn page(&mut self) -> PageQuery {
        PageQuery::new(self.limit, self.cursor.take())
    }
}

impl AttachPolicy {
    /// The one subject that is named, with the field that names it. `in_project`: not everyone.
    pub(super) fn subject(&self, in_project: bool) -> Result<(SubjectKind, &str), FieldError> {
        let fields = [
            (SubjectKind::User, &self.user),
            (SubjectKind::Group, &self.group),
            (SubjectKind::ServiceAccount, &self.service_account),
        ];
        let everyone = self.everyone.then_some((SubjectKind::Everyone, ""));
        let named = fields.into_iter().filter_map(|(kind, name)| Some((kind, name.as_deref()?)));
        let all: Vec<_> = named.chain(everyone).collect();
        match all.as_slice() {
            [(SubjectKind::Everyone, _)] if in_project => {
                let message = "in a project, name a user, a group or a service account";
                Err(FieldError::new("/everyone", "invalid", message))
            }
            [one] => Ok(*one),
            [] => {
                let message = "name a user, a group or a service_account, or say everyone";
                Err(FieldError::new("", "invalid", message))
            }
            [_, (kind, _), ..] => {
                let pointer = format!("/{}", kind.as_str());
                Err(FieldError::new(pointer, "invalid", "one attachment is for one subject"))
            }
        }
    }
}

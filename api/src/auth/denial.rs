//! Saying no: to the caller with the reason, as far as they may know it.

use serde::Serialize;
use utoipa::ToSchema;

use super::action::Target;
use super::caller::Caller;
use super::deciding::{Decided, DecidingStatement};
use super::kind::Kind;
use super::powers::{changes_identity, is_decided_in_cloud};
use super::subject::Subject;
use crate::http::{ApiError, ErrorCode};

/// Why a call was denied, for whoever may know.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Denial {
    #[schema(example = "compute:DeleteInstance")]
    pub action: String,
    #[schema(example = "crn:cumulo:compute:shop:instance/db")]
    pub resource: String,
    /// The statements that deny; empty when none allows.
    pub statements: Vec<DecidingStatement>,
    /// Whether the policies allow, and only that of the API key does not.
    pub denied_by_api_key_policy: bool,
}

/// A decision against the caller.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub error: ApiError,
    /// What to keep in the audit log; nothing when there was nothing to decide about.
    pub decided: Option<Box<Decided>>,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self { error, decided: None }
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        ApiError::from(error).into()
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

impl Refusal {
    /// `forbidden`, in these words.
    pub(super) fn explained(decided: Decided, sentence: impl Into<String>) -> Self {
        let denial = Denial {
            action: decided.action.to_owned(),
            resource: decided.resource.clone(),
            statements: decided.deciding.clone(),
            denied_by_api_key_policy: decided.denied_by_key,
        };
        let error = ApiError::because(ErrorCode::Forbidden, sentence.into()).explained(denial);
        Self { error, decided: Some(Box::new(decided)) }
    }

    /// The same words as for what does not exist.
    pub(super) fn unseen(decided: Decided) -> Self {
        Self { error: ApiError::not_found(), decided: Some(Box::new(decided)) }
    }
}

impl Caller {
    /// The refusal to a caller who has to choose a new password first: neither the policies nor the database are asked,
    /// so it is the same whatever is there.
    pub(super) fn restricted(&self, action: &'static str, kind: Kind, target: Target<'_>) -> Refusal {
        let project = self.project.as_ref().filter(|_| target.project.is_some());
        let subject = Subject { kind, project, what: target.what, identity: None };
        let decided = Decided {
            action,
            resource: subject.resource_name(),
            resource_id: None,
            project: project.map(|project| project.id),
            deciding: Vec::new(),
            denied_by_key: false,
            password_change_required: true,
        };
        let detail = format!(
            "somebody else knows your password, so choose a new one before anything else: sign in to the console or \
             with `cumulo login`, which ask for it, or send `current_password` and `new_password` to POST \
             /v1/users/{}/password",
            self.principal.name
        );
        let error = ApiError::because(ErrorCode::PasswordChangeRequired, detail);
        Refusal { error, decided: Some(Box::new(decided)) }
    }

    /// Why the decision is no.
    pub(super) fn sentence(&self, decided: &Decided) -> String {
        let deed = format!("{} on {}", decided.action, decided.resource);
        if decided.denied_by_key && changes_identity(decided.action) {
            return format!(
                "this API key is bound by a policy of its own, and such a key never changes identity, so it may \
                 not do {deed}; sign in, or use a key without a policy"
            );
        }
        match decided.deciding.first() {
            Some(first) => format!("{}, denies {deed}; ask whoever may change that", first.name()),
            None if decided.denied_by_key => format!(
                "the policy of this API key does not allow {deed}, although the policies of its owner do; use a \
                 key whose policy allows it"
            ),
            None if is_decided_in_cloud(decided.action) => format!(
                "no policy that is attached to you for the whole cloud allows {deed}; what is attached in the \
                 project does not count for it; ask an administrator of the cloud"
            ),
            None => format!(
                "no policy that is attached to you allows {deed}; ask whoever may attach policies there, and \
                 `policies:simulate` shows them what would allow it"
            ),
        }
    }
}

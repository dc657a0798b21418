//! The wire of simulations and questions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::auth::DecidingStatement;
use crate::http::{FieldError, Labels, PageQuery};
use crate::policies::attachments::{Subject, SubjectKind};
use crate::policies::document::PolicyDocument;

pub(super) const MAX_ACTIONS: usize = 100;
pub(super) const MAX_POLICIES: usize = 10;

/// One text, or a list of them.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a string or an array of strings")]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    /// Each text with its pointer.
    pub(super) fn each<'a>(&'a self, pointer: &'a str) -> Vec<(String, &'a str)> {
        match self {
            Self::One(text) => vec![(pointer.to_owned(), text)],
            Self::Many(texts) => texts
                .iter()
                .enumerate()
                .map(|(index, text)| (format!("{pointer}/{index}"), text.as_str()))
                .collect(),
        }
    }
}

/// A request that nobody makes. At most one of `user`, `group` and `service_account`, or only `policies`, or
/// both: then as if `policies` were attached, too.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulatePolicies {
    /// Name or id of a user; all that is attached to it and its groups counts.
    pub user: Option<String>,
    /// Name or id of a group: somebody who is in this group and no other.
    pub group: Option<String>,
    /// Name or id of a service account; outside its project, its id.
    pub service_account: Option<String>,
    /// Documents that are stored nowhere, as if they were attached where the question is asked: in the project, or
    /// for the whole cloud. At most 10.
    #[serde(default)]
    #[schema(max_items = 10)]
    pub policies: Vec<PolicyDocument>,
    /// One action, or up to 100.
    #[schema(example = "compute:DeleteInstance")]
    pub action: OneOrMany,
    /// `crn:cumulo:compute:shop:instance/db`, or short `instance/db`. One that exists brings its id and its
    /// labels. Absent: all of the kind, so that only a policy for all of them allows.
    #[schema(example = "crn:cumulo:compute:shop:instance/db")]
    pub resource: Option<String>,
    /// Labels of the resource, instead of those that it has.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub resource_labels: Option<Labels>,
    /// Condition keys with a value, or a list of values; `null` for a key that the request shall not have.
    /// Unless given: the present time, your own address and transport, no second factor, and the name, id and
    /// kind of the principal, with a session for users and an API key for service accounts.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Value>)]
    pub context: BTreeMap<String, Value>,
    /// The policy of the API key that is shown: what it does not allow is denied, and so is every change of
    /// identity.
    pub api_key_policy: Option<PolicyDocument>,
}

/// How a request would be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SimulatedDecision {
    Allowed,
    /// A statement denies.
    ExplicitDeny,
    /// No statement allows.
    ImplicitDeny,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SimulationResult {
    pub action: String,
    /// The resource in full.
    pub resource: String,
    /// Whether there is such a resource. Always false for what the action would make.
    pub resource_exists: bool,
    pub decision: SimulatedDecision,
    /// Whether the policies allow and only that of the API key does not.
    pub denied_by_api_key_policy: bool,
    /// The statements that made the decision; none for an implicit denial. The policy `/policies/0` is the
    /// first of the request.
    pub statements: Vec<DecidingStatement>,
    /// Condition keys that the policies ask for here and the request does not have.
    pub missing_context_keys: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Simulation {
    /// One per action, in the order of the request.
    pub results: Vec<SimulationResult>,
}

/// What is certain when a request is known in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prospect {
    /// In any case.
    Allowed,
    /// In any case.
    Denied,
    /// It depends on the resource, or on conditions like address and time.
    Depends,
}

/// Exactly one of `user`, `group` and `service_account`, each a name or an id.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WhatCanQuery {
    /// A user, with all that is attached to it and its groups.
    pub user: Option<String>,
    /// Somebody who is in this group and no other.
    pub group: Option<String>,
    /// A service account; outside its project, its id.
    pub service_account: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Capability {
    pub action: String,
    /// What the action is done to: all of a kind.
    #[schema(example = "crn:cumulo:compute:shop:instance/*")]
    pub resource: String,
    pub prospect: Prospect,
    /// The statements that decide, or, when it depends, those that may.
    pub statements: Vec<DecidingStatement>,
}

/// Everything that somebody can do.
#[derive(Debug, Serialize, ToSchema)]
pub struct Capabilities {
    pub subject: Subject,
    /// Nothing is possible as long as this is true; the list says what would be.
    pub disabled: bool,
    /// Every action once.
    pub items: Vec<Capability>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WhoCanQuery {
    /// For example `compute:DeleteInstance`.
    #[serde(default)]
    #[param(required = true)]
    pub action: String,
    /// `crn:cumulo:compute:shop:instance/db`, or short `instance/db`; absent: all of the kind.
    pub resource: Option<String>,
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    cursor: Option<String>,
}

impl WhoCanQuery {
    pub(super) fn page(&mut self) -> PageQuery {
        PageQuery::new(self.limit, self.cursor.take())
    }
}

/// Somebody who can do it, perhaps.
#[derive(Debug, Serialize, ToSchema)]
pub struct Candidate {
    pub subject: Subject,
    /// `allowed` or `depends`.
    pub prospect: Prospect,
    /// The statements that allow, or, when it depends, those that may decide.
    pub statements: Vec<DecidingStatement>,
}

/// The one of three fields that is given.
pub(super) fn one_subject<'a>(
    user: Option<&'a str>,
    group: Option<&'a str>,
    service_account: Option<&'a str>,
) -> Result<Option<(SubjectKind, &'a str)>, FieldError> {
    let fields = [
        (SubjectKind::User, user),
        (SubjectKind::Group, group),
        (SubjectKind::ServiceAccount, service_account),
    ];
    let mut named = fields.into_iter().filter_map(|(kind, name)| Some((kind, name?)));
    let first = named.next();
    match named.next() {
        Some((kind, _)) => {
            let pointer = format!("/{}", kind.as_str());
            Err(FieldError::new(pointer, "invalid", "name one of user, group and service_account"))
        }
        None => Ok(first),
    }
}

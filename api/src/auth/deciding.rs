//! What was decided about what, and which statements said so.

use policy::{Deciding, Effect};
use protocol::ProjectId;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

/// A statement that made a decision.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DecidingStatement {
    /// Absent for the policy of an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<Uuid>,
    /// Name of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// Counted from 0.
    pub statement: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// `Allow` or `Deny`.
    #[schema(example = "Deny")]
    pub effect: &'static str,
}

/// The outcome of an evaluation.
pub(super) struct Verdict {
    pub allowed: bool,
    pub deciding: Vec<DecidingStatement>,
    /// Whether the policies allow, and only that of the API key does not.
    pub denied_by_key: bool,
}

/// What was decided about what.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    pub action: &'static str,
    pub resource: String,
    pub resource_id: Option<Uuid>,
    pub project: Option<ProjectId>,
    pub deciding: Vec<DecidingStatement>,
    /// Whether the policies allow, and only that of the API key does not.
    pub denied_by_key: bool,
    /// Whether no policy was asked, since the caller has to choose a new password first.
    pub password_change_required: bool,
}

impl Decided {
    /// For the audit log: the statements, and whether it was the policy of the API key, or a password to be changed.
    pub(crate) fn reasons(&self) -> Vec<Value> {
        let statements = self.deciding.iter().map(|one| json!(one));
        let key = self.denied_by_key.then(|| json!({"denied_by_api_key_policy": true}));
        let password = self.password_change_required.then(|| json!({"password_change_required": true}));
        statements.chain(key).chain(password).collect()
    }
}

impl DecidingStatement {
    pub(super) fn name(&self) -> String {
        let statement = match &self.sid {
            Some(sid) => format!("statement {sid}"),
            None => format!("statement number {}", self.statement + 1),
        };
        match &self.policy {
            Some(policy) => format!("policy {policy}, {statement}"),
            None => format!("the policy of this API key, {statement}"),
        }
    }
}

/// Nothing is known of the policy.
impl From<&Deciding> for DecidingStatement {
    fn from(one: &Deciding) -> Self {
        Self {
            policy_id: None,
            policy: None,
            version: None,
            statement: one.statement,
            sid: one.sid.clone(),
            effect: match one.effect {
                Effect::Allow => "Allow",
                Effect::Deny => "Deny",
            },
        }
    }
}

/// Fills in the names of policies.
pub(crate) async fn name_policies(
    conn: &mut PgConnection,
    statements: &mut [DecidingStatement],
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = statements.iter().filter_map(|one| one.policy_id).collect();
    let names =
        sqlx::query!("SELECT id, name FROM policies WHERE id = ANY($1)", &ids).fetch_all(conn).await?;
    for statement in statements {
        if let Some(row) = names.iter().find(|row| Some(row.id) == statement.policy_id) {
            statement.policy = Some(row.name.clone());
        }
    }
    Ok(())
}

//! Who is asking, and everything that a decision needs to know of them: read in one statement, on the
//! connection on which the action will happen, so that a right that is taken away is gone at the next request.

use std::sync::Arc;

use policy::Context;
use protocol::{Name, PrincipalId, ProjectId};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::cache::{PolicyVersion, compile};
use super::credential::Credential;
use super::rights::Rights;
use super::vocabulary::keys;
use crate::app::App;
use crate::http::{ApiError, Client, ErrorCode, Labels, Selector};

/// What kind of principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program.
    ServiceAccount,
}

impl PrincipalKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::ServiceAccount => "service_account",
        }
    }
}

/// Somebody who acts.
#[derive(Debug, Clone)]
pub struct Principal {
    pub id: PrincipalId,
    pub kind: PrincipalKind,
    pub name: String,
}

/// The credential that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub kind: CredentialKind,
    pub id: Uuid,
}

/// What kind of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    Session,
    ApiKey,
}

impl CredentialKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::ApiKey => "api_key",
        }
    }
}

/// The project that a request names.
#[derive(Debug, Clone)]
pub struct ProjectRef {
    pub id: ProjectId,
    pub name: Name,
    pub labels: Labels,
}

/// A caller whose credential lives.
#[derive(Debug, Clone)]
pub struct Caller {
    pub principal: Principal,
    pub credential: Shown,
    pub second_factor_at: Option<OffsetDateTime>,
    pub(crate) client: Client,
    pub(super) now: OffsetDateTime,
    /// The project that the request names, if it exists.
    pub(crate) project: Option<ProjectRef>,
    /// Whether a policy is attached to the caller in that project.
    pub(super) member: bool,
    pub(super) versions: Vec<PolicyVersion>,
    pub(super) rights: Rights,
}

impl Caller {
    /// Looks the caller up.
    ///
    /// # Errors
    /// `invalid_token` when session or key have ended, or the principal is disabled.
    pub(crate) async fn enter(
        conn: &mut PgConnection,
        app: &App,
        credential: &Credential,
        client: Client,
        project: Option<&str>,
    ) -> Result<Self, ApiError> {
        let now = app.clock.now();
        let Some(facts) = facts(conn, credential, project.and_then(Selector::parse).as_ref(), now).await?
        else {
            let ended = match credential {
                Credential::Session(_) => "the session has ended; sign in again",
                Credential::ApiKey(_) => "this API key is unknown, revoked or expired",
            };
            return Err(ApiError::because(ErrorCode::InvalidToken, ended));
        };
        app.edge.limits.learn_owner(credential, facts.id);
        let versions: Vec<_> = facts
            .policies
            .unwrap_or_default()
            .into_iter()
            .zip(facts.versions.unwrap_or_default())
            .map(|(policy, version)| PolicyVersion { policy, version })
            .collect();
        let policies = app.policies.get(conn, &versions).await?.into();
        let boundary = facts.boundary.as_ref().map(compile).transpose()?.map(Arc::new);
        let project = match (facts.project_id, facts.project_name, facts.project_labels) {
            (Some(id), Some(name), Some(labels)) => Some(ProjectRef {
                id: id.into(),
                name: name.parse().map_err(ApiError::internal)?,
                labels: labels.0,
            }),
            _ => None,
        };
        let credential_kind = match credential {
            Credential::Session(_) => CredentialKind::Session,
            Credential::ApiKey(_) => CredentialKind::ApiKey,
        };
        if credential_kind == CredentialKind::ApiKey {
            app.key_uses.note(facts.credential_id, now);
        }
        Ok(Self {
            principal: Principal { id: facts.id.into(), kind: kind(&facts.kind), name: facts.name },
            credential: Shown { kind: credential_kind, id: facts.credential_id },
            second_factor_at: facts.second_factor_at,
            client,
            now,
            project,
            member: facts.member.unwrap_or_default(),
            versions,
            rights: Rights { policies, boundary },
        })
    }

    /// The condition keys that are the same whatever the request is about.
    pub(super) fn context(&self) -> Context {
        let mut context = Context::default();
        context.set(keys::SOURCE_IP, self.client.address.to_canonical());
        context.set(keys::CURRENT_TIME, self.now);
        context.set(keys::SECURE_TRANSPORT, self.client.secure_transport);
        context.set(keys::MULTI_FACTOR_AUTH_PRESENT, self.second_factor_at.is_some());
        if let Some(at) = self.second_factor_at {
            context.set(keys::MULTI_FACTOR_AUTH_AGE, (self.now - at).whole_seconds());
        }
        context.set(keys::PRINCIPAL_NAME, self.principal.name.as_str());
        context.set(keys::PRINCIPAL_ID, self.principal.id.to_string());
        context.set(keys::PRINCIPAL_TYPE, self.principal.kind.as_str());
        context.set(keys::CREDENTIAL_TYPE, self.credential.kind.as_str());
        context
    }
}

pub(super) fn kind(text: &str) -> PrincipalKind {
    if text == "user" { PrincipalKind::User } else { PrincipalKind::ServiceAccount }
}

struct Facts {
    credential_id: Uuid,
    second_factor_at: Option<OffsetDateTime>,
    boundary: Option<Value>,
    id: Uuid,
    kind: String,
    name: String,
    project_id: Option<Uuid>,
    project_name: Option<String>,
    project_labels: Option<Json<Labels>>,
    policies: Option<Vec<Uuid>>,
    versions: Option<Vec<i32>>,
    member: Option<bool>,
}

async fn facts(
    conn: &mut PgConnection,
    credential: &Credential,
    project: Option<&Selector>,
    now: OffsetDateTime,
) -> Result<Option<Facts>, sqlx::Error> {
    let (session, user, key) = match credential {
        Credential::Session(claims) => (Some(claims.session_id), Some(claims.principal_id.as_uuid()), None),
        Credential::ApiKey(hash) => (None, None, Some(&hash[..])),
    };
    sqlx::query_as!(
        Facts,
        r#"SELECT c.id AS "credential_id!", c.second_factor_at, c.policy AS boundary, p.id, p.kind, p.name,
                  pr.id AS "project_id?", pr.name AS "project_name?",
                  pr.labels AS "project_labels?: Json<Labels>", a.policies, a.versions, a.member
           FROM (SELECT id, user_id AS principal_id, second_factor_at, NULL::jsonb AS policy FROM sessions
                 WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > $6
                 UNION ALL
                 SELECT id, principal_id, NULL, policy FROM api_keys
                 WHERE secret_hash = $3 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $6)) c
           JOIN principals p ON p.id = c.principal_id AND p.disabled_at IS NULL
           LEFT JOIN projects pr ON pr.id = $4 OR pr.name = $5
           LEFT JOIN LATERAL (
               SELECT array_agg(policy_id ORDER BY policy_id) AS policies,
                      array_agg(version ORDER BY policy_id) AS versions, bool_or(in_project) AS member
               FROM attached_policies(p.id, pr.id)) a ON true"#,
        session,
        user,
        key,
        project.and_then(Selector::id),
        project.and_then(Selector::name),
        now
    )
    .fetch_optional(conn)
    .await
}

//! Who is asking, and everything that a decision needs to know of them: read in one statement, on the
//! connection on which the action will happen, so that a right that is taken away is gone at the next request.

use std::sync::Arc;

use policy::Context;
use protocol::{Name, ProjectId};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::cache::{PolicyVersion, compile};
use super::credential::Credential;
use super::principal::{CredentialKind, Home, Principal, PrincipalKind, Shown};
use super::rights::Rights;
use super::vocabulary::keys;
use crate::app::App;
use crate::http::{ApiError, Client, ErrorCode, Labels, Selector};

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
    /// Whether this is a session of a user who has to choose another password before anything else.
    pub password_change_required: bool,
    pub(crate) client: Client,
    pub(super) now: OffsetDateTime,
    /// The project that the request names, if it exists.
    pub(crate) project: Option<ProjectRef>,
    /// Whether a policy is attached to the caller in that project.
    pub(super) member: bool,
    /// The policies of `rights`, in the same order.
    pub(super) applied: Vec<AppliedPolicy>,
    pub(super) rights: Rights,
}

/// A policy that decides for the caller.
#[derive(Debug, Clone)]
pub(super) struct AppliedPolicy {
    pub version: PolicyVersion,
    pub name: String,
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
        let applied = versions.into_iter().zip(facts.policy_names.unwrap_or_default());
        let applied = applied.map(|(version, name)| AppliedPolicy { version, name }).collect();
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
            principal: Principal {
                id: facts.id.into(),
                kind: PrincipalKind::read(&facts.kind),
                name: facts.name,
                home: facts.home_id.zip(facts.home_name).map(|(id, name)| Home { id: id.into(), name }),
            },
            credential: Shown { kind: credential_kind, id: facts.credential_id },
            second_factor_at: facts.second_factor_at,
            password_change_required: facts.password_change_required,
            client,
            now,
            project,
            member: facts.member.unwrap_or_default(),
            applied,
            rights: Rights {
                policies,
                cloud_wide: facts
                    .cloud_wide
                    .and_then(|count| usize::try_from(count).ok())
                    .unwrap_or_default(),
                boundary,
            },
        })
    }

    /// The condition keys that are the same whatever the request is about.
    pub(super) fn context(&self) -> Context {
        let mut context = self.principal.context();
        context.set(keys::SOURCE_IP, self.client.address.to_canonical());
        context.set(keys::CURRENT_TIME, self.now);
        context.set(keys::SECURE_TRANSPORT, self.client.secure_transport);
        context.set(keys::MULTI_FACTOR_AUTH_PRESENT, self.second_factor_at.is_some());
        if let Some(at) = self.second_factor_at {
            context.set(keys::MULTI_FACTOR_AUTH_AGE, (self.now - at).whole_seconds());
        }
        context.set(keys::CREDENTIAL_TYPE, self.credential.kind.as_str());
        context
    }
}

struct Facts {
    credential_id: Uuid,
    second_factor_at: Option<OffsetDateTime>,
    password_change_required: bool,
    boundary: Option<Value>,
    id: Uuid,
    kind: String,
    name: String,
    home_id: Option<Uuid>,
    home_name: Option<String>,
    project_id: Option<Uuid>,
    project_name: Option<String>,
    project_labels: Option<Json<Labels>>,
    policies: Option<Vec<Uuid>>,
    versions: Option<Vec<i32>>,
    policy_names: Option<Vec<String>>,
    cloud_wide: Option<i64>,
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
                  home.id AS "home_id?", home.name AS "home_name?",
                  pr.id AS "project_id?", pr.name AS "project_name?",
                  pr.labels AS "project_labels?: Json<Labels>",
                  a.policies, a.versions, a.policy_names, a.cloud_wide, a.member,
                  EXISTS (SELECT FROM user_passwords w WHERE w.user_id = $2 AND w.change_required)
                      AS "password_change_required!"
           FROM (SELECT id, user_id AS principal_id, second_factor_at, NULL::jsonb AS policy FROM sessions
                 WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > $6
                 UNION ALL
                 SELECT id, principal_id, NULL, policy FROM api_keys
                 WHERE secret_hash = $3 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $6)) c
           JOIN principals p ON p.id = c.principal_id AND p.disabled_at IS NULL
           LEFT JOIN projects home ON home.id = p.project_id
           LEFT JOIN projects pr ON pr.id = $4 OR pr.name = $5
           LEFT JOIN LATERAL (
               SELECT array_agg(policy_id ORDER BY c.version, policy_id) AS policies,
                      array_agg(o.version ORDER BY c.version, policy_id) AS versions,
                      array_agg(n.name ORDER BY c.version, policy_id) AS policy_names,
                      count(c.version) AS cloud_wide, bool_or(o.in_project) AS member
               FROM attached_policies(p.id, pr.id) o JOIN policies n ON n.id = o.policy_id
               LEFT JOIN attached_policies(p.id, NULL) c USING (policy_id)) a ON true"#,
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

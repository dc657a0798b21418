//! Writing records: in the transaction of the deed, or alone for a refusal.

use std::net::{IpAddr, Ipv6Addr};

use protocol::{PrincipalId, ProjectId, RequestId};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Caller, Decided};
use crate::clock::Clock;
use crate::nudge::{self, Topic};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Allowed,
    /// A policy was asked and said no.
    Denied,
    /// The caller did not prove who they are.
    Failed,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// Who did it, by which credential, from where.
#[derive(Debug, Clone)]
pub(crate) struct Actor<'a> {
    pub id: Option<PrincipalId>,
    pub name: &'a str,
    pub credential_kind: &'static str,
    pub credential_id: Option<Uuid>,
    pub source: IpAddr,
}

impl<'a> Actor<'a> {
    pub(crate) fn of(caller: &'a Caller) -> Self {
        Self {
            id: Some(caller.principal.id),
            name: &caller.principal.name,
            credential_kind: caller.credential.kind.as_str(),
            credential_id: Some(caller.credential.id),
            source: caller.client.address,
        }
    }

    /// The control plane by itself, on behalf of somebody or of nobody.
    pub(crate) const fn by_itself(id: Option<PrincipalId>, name: &'a str) -> Self {
        let source = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        Self { id, name, credential_kind: "none", credential_id: None, source }
    }
}

/// What was done to what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deed {
    pub action: &'static str,
    pub resource: String,
    pub resource_id: Option<Uuid>,
    pub project: Option<ProjectId>,
    pub deciding: Value,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl Deed {
    pub(crate) fn of(decided: &Decided) -> Self {
        Self {
            action: decided.action,
            resource: decided.resource.clone(),
            resource_id: decided.resource_id,
            project: decided.project,
            deciding: decided.reasons().into(),
            before: None,
            after: None,
        }
    }
}

/// Writes one record in this transaction.
pub(crate) async fn write(
    conn: &mut PgConnection,
    app: &App,
    actor: &Actor<'_>,
    request_id: RequestId,
    outcome: Outcome,
    deed: Deed,
) -> Result<(), sqlx::Error> {
    write_at(conn, &app.clock, actor, request_id, outcome, deed).await
}

/// The same where there is no control plane.
pub(crate) async fn write_at(
    conn: &mut PgConnection,
    clock: &Clock,
    actor: &Actor<'_>,
    request_id: RequestId,
    outcome: Outcome,
    deed: Deed,
) -> Result<(), sqlx::Error> {
    let id: Uuid = clock.new_id();
    let now: OffsetDateTime = clock.now();
    let deciding = if deed.deciding.is_null() { Value::Array(Vec::new()) } else { deed.deciding };
    sqlx::query!(
        "INSERT INTO audit_records (id, at, project_id, request_id, principal_id, principal_name, credential_kind,
                                    credential_id, source_address, action, resource, resource_id, outcome,
                                    deciding, before, after)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        id,
        now,
        deed.project.map(ProjectId::as_uuid),
        request_id.as_uuid(),
        actor.id.map(PrincipalId::as_uuid),
        actor.name,
        actor.credential_kind,
        actor.credential_id,
        actor.source.to_canonical().to_string(),
        deed.action,
        deed.resource,
        deed.resource_id,
        outcome.as_str(),
        Json(deciding) as _,
        deed.before,
        deed.after
    )
    .execute(&mut *conn)
    .await?;
    nudge::send(conn, Topic::Notary).await
}

/// Writes the record of a refusal, whose transaction was rolled back. A refusal stays one when this fails.
pub(crate) async fn write_refusal(app: &App, caller: &Caller, request_id: RequestId, decided: &Decided) {
    if let Err(error) = try_write_refusal(app, caller, request_id, decided).await {
        tracing::error!(%error, action = decided.action, "a refusal is not in the audit log");
    }
}

async fn try_write_refusal(
    app: &App,
    caller: &Caller,
    request_id: RequestId,
    decided: &Decided,
) -> Result<(), sqlx::Error> {
    let mut tx = app.begin().await?;
    write(&mut tx, app, &Actor::of(caller), request_id, Outcome::Denied, Deed::of(decided)).await?;
    tx.commit().await
}

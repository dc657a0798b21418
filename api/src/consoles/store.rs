//! SQL of consoles.

use protocol::agent::ConsoleKind;
use protocol::{ConsoleId, HostId, InstanceId, PrincipalId, ProjectId, RequestId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::{MAX_OF_INSTANCE, MAX_OF_PRINCIPAL, MAX_TICKETS, UNHEARD_AFTER};
use crate::auth::{Action, Allowed, CredentialKind, InProject, actions};
use crate::hosts::UNREACHABLE_AFTER;
use crate::http::{ApiError, ErrorCode, Selector, violated_constraint};

/// Those who open consoles count one after the other; the number is arbitrary but ours.
const OPENING_LOCK: i64 = 0x636f_6e73_6f6c_6500;

/// The instance of a console, as far as that is about it.
pub(super) struct Instance {
    pub id: Uuid,
    pub name: String,
    pub host: Option<HostId>,
    pub running: bool,
    pub reachable: bool,
}

impl Instance {
    /// The host at which its console is.
    ///
    /// # Errors
    /// `wrong_state` when no guest runs, `host_unreachable` when nothing was heard of its host.
    pub(super) fn host(&self) -> Result<HostId, ApiError> {
        match self.host.filter(|_| self.running) {
            Some(host) if self.reachable => Ok(host),
            Some(_) => {
                let detail = "nothing is heard of its host; the instance may well be running";
                Err(ApiError::because(ErrorCode::HostUnreachable, detail).retry_after(5))
            }
            None => Err(ApiError::because(ErrorCode::WrongState, "it does not run; start it first")),
        }
    }
}

pub(super) async fn instance<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
    now: OffsetDateTime,
) -> Result<Option<Instance>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT i.id, i.name, i.host_id, h.last_seen_at AS "last_seen_at?",
                  (i.deletion_requested_at IS NULL
                   AND coalesce(i.observed_state IN ('running', 'stopping'), false)) AS "running!"
           FROM instances i LEFT JOIN hosts h ON h.id = i.host_id
           WHERE i.project_id = $1 AND (i.id = $2 OR i.name = $3)"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Instance {
        id: row.id,
        name: row.name,
        host: row.host_id.map(HostId::from),
        running: row.running,
        reachable: row.last_seen_at.is_some_and(|seen| now - seen <= UNREACHABLE_AFTER),
    }))
}

/// A new ticket.
pub(super) struct New<'a> {
    pub id: ConsoleId,
    pub instance: Uuid,
    pub kind: ConsoleKind,
    pub resource: &'a str,
    pub ticket_hash: [u8; 32],
    pub principal_name: &'a str,
    pub credential_kind: CredentialKind,
    pub credential_id: Uuid,
    pub request_id: RequestId,
    pub now: OffsetDateTime,
    pub expires_at: OffsetDateTime,
}

/// # Errors
/// `too_many_requests` when the caller has too many tickets that are not used.
pub(super) async fn insert(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::OpenConsole>,
    new: New<'_>,
) -> Result<(), ApiError> {
    let inserted = sqlx::query!(
        "INSERT INTO consoles (id, project_id, instance_id, kind, resource, ticket_hash, principal_id, principal_name,
                               credential_kind, credential_id, request_id, created_at, expires_at)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13
         WHERE (SELECT count(*) FROM consoles
                WHERE principal_id = $7 AND opened_at IS NULL AND expires_at > $12) < $14",
        new.id.as_uuid(),
        allowed.project().as_uuid(),
        new.instance,
        new.kind.as_str(),
        new.resource,
        &new.ticket_hash[..],
        allowed.principal().as_uuid(),
        new.principal_name,
        new.credential_kind.as_str(),
        new.credential_id,
        new.request_id.as_uuid(),
        new.now,
        new.expires_at,
        MAX_TICKETS
    )
    .execute(conn)
    .await?;
    if inserted.rows_affected() == 0 {
        let detail =
            format!("{MAX_TICKETS} of your tickets are not used; use one, or wait until they expire");
        return Err(ApiError::because(ErrorCode::TooManyRequests, detail).retry_after(30));
    }
    Ok(())
}

/// A console whose ticket was used.
#[derive(Debug, Clone)]
pub(super) struct Console {
    pub id: ConsoleId,
    pub project: ProjectId,
    pub instance: InstanceId,
    pub kind: ConsoleKind,
    pub resource: String,
    pub principal: PrincipalId,
    pub principal_name: String,
    pub credential_kind: &'static str,
    pub credential_id: Uuid,
    /// Of the request that asked for the ticket.
    pub request_id: RequestId,
    pub source_address: String,
    pub began_at: Option<OffsetDateTime>,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    instance_id: Uuid,
    kind: String,
    resource: String,
    principal_id: Uuid,
    principal_name: String,
    credential_kind: String,
    credential_id: Uuid,
    request_id: Uuid,
    source_address: Option<String>,
    began_at: Option<OffsetDateTime>,
}

impl From<Row> for Console {
    fn from(row: Row) -> Self {
        let kinds = [CredentialKind::Session, CredentialKind::ApiKey];
        let credential_kind =
            kinds.into_iter().map(CredentialKind::as_str).find(|kind| *kind == row.credential_kind);
        Self {
            id: row.id.into(),
            project: row.project_id.into(),
            instance: row.instance_id.into(),
            // A CHECK of the table says so, as of the credential.
            kind: ConsoleKind::from_name(&row.kind).unwrap_or(ConsoleKind::Serial),
            resource: row.resource,
            principal: row.principal_id.into(),
            principal_name: row.principal_name,
            credential_kind: credential_kind.unwrap_or_default(),
            credential_id: row.credential_id,
            request_id: row.request_id.into(),
            source_address: row.source_address.unwrap_or_default(),
            began_at: row.began_at,
        }
    }
}

/// Whether it is a ticket of this console, used or not.
pub(super) async fn is_ticket(
    conn: &mut PgConnection,
    id: ConsoleId,
    ticket_hash: [u8; 32],
) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM consoles WHERE id = $1 AND ticket_hash = $2",
        id.as_uuid(),
        &ticket_hash[..]
    );
    Ok(found.fetch_optional(conn).await?.is_some())
}

/// Uses a ticket up. `None` when it is not this console's, was used, or has expired.
///
/// # Errors
/// `in_use` when somebody has the serial console; the ticket is not used then.
pub(super) async fn open(
    conn: &mut PgConnection,
    id: ConsoleId,
    ticket_hash: [u8; 32],
    source_address: &str,
    now: OffsetDateTime,
) -> Result<Option<Console>, ApiError> {
    let row = sqlx::query_as!(
        Row,
        "UPDATE consoles SET opened_at = $3, heard_at = $3, source_address = $4
         WHERE id = $1 AND ticket_hash = $2 AND opened_at IS NULL AND expires_at > $3
         RETURNING id, project_id, instance_id, kind, resource, principal_id, principal_name, credential_kind,
                   credential_id, request_id, source_address, began_at",
        id.as_uuid(),
        &ticket_hash[..],
        now,
        source_address
    )
    .fetch_optional(conn)
    .await
    .map_err(|error| match violated_constraint(&error) {
        Some("consoles_one_serial") => ApiError::because(
            ErrorCode::InUse,
            "somebody has its serial console open; it takes one at a time",
        ),
        _ => error.into(),
    })?;
    Ok(row.map(Console::from))
}

/// Whether more are open now than may be, this one counted. Holds a lock until the transaction ends.
///
/// # Errors
/// `too_many_requests`.
pub(super) async fn check_limits(conn: &mut PgConnection, console: &Console) -> Result<(), ApiError> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", OPENING_LOCK).execute(&mut *conn).await?;
    let open = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE instance_id = $1) AS "of_instance!",
                  count(*) FILTER (WHERE principal_id = $2) AS "of_principal!"
           FROM consoles WHERE opened_at IS NOT NULL AND (instance_id = $1 OR principal_id = $2)"#,
        console.instance.as_uuid(),
        console.principal.as_uuid()
    )
    .fetch_one(conn)
    .await?;
    let detail = if open.of_instance > MAX_OF_INSTANCE {
        format!("{MAX_OF_INSTANCE} consoles of this instance are open; close one")
    } else if open.of_principal > MAX_OF_PRINCIPAL {
        format!("{MAX_OF_PRINCIPAL} of your consoles are open; close one")
    } else {
        return Ok(());
    };
    Err(ApiError::because(ErrorCode::TooManyRequests, detail).retry_after(10))
}

/// Notes that the bytes flow. False when the row is not there any more.
pub(super) async fn begin(
    conn: &mut PgConnection,
    id: ConsoleId,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let noted =
        sqlx::query!("UPDATE consoles SET began_at = $2, heard_at = $2 WHERE id = $1", id.as_uuid(), now)
            .execute(conn)
            .await?;
    Ok(noted.rows_affected() == 1)
}

/// Notes that its replica has it still. False when another replica has given it up.
pub(super) async fn hear(
    conn: &mut PgConnection,
    id: ConsoleId,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let noted = sqlx::query!("UPDATE consoles SET heard_at = $2 WHERE id = $1", id.as_uuid(), now)
        .execute(conn)
        .await?;
    Ok(noted.rows_affected() == 1)
}

/// Removes one that is over. False when it was removed before.
pub(super) async fn remove(conn: &mut PgConnection, id: ConsoleId) -> Result<bool, sqlx::Error> {
    let removed = sqlx::query!("DELETE FROM consoles WHERE id = $1", id.as_uuid()).execute(conn).await?;
    Ok(removed.rows_affected() == 1)
}

/// Removes tickets that were not used in time, and gives those sessions whose replica has gone.
pub(super) async fn take_over(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Console>, sqlx::Error> {
    sqlx::query!("DELETE FROM consoles WHERE opened_at IS NULL AND expires_at < $1", now)
        .execute(&mut *conn)
        .await?;
    let rows = sqlx::query_as!(
        Row,
        "DELETE FROM consoles WHERE opened_at IS NOT NULL AND coalesce(heard_at, expires_at) < $1
         RETURNING id, project_id, instance_id, kind, resource, principal_id, principal_name, credential_kind,
                   credential_id, request_id, source_address, began_at",
        now - UNHEARD_AFTER
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Console::from).collect())
}

/// The hash by which an API key is found.
pub(super) async fn api_key_hash(conn: &mut PgConnection, id: Uuid) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar!("SELECT secret_hash FROM api_keys WHERE id = $1", id).fetch_optional(conn).await
}

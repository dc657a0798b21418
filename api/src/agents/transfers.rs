//! What the control plane asked a host for, on its way to the call that waits for it: bytes, or a console.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use protocol::agent::{
    ConsoleKind, Epoch, HostRequest, MAX_SCREENSHOT_BYTES, Refusal, RefusalReason, RequestQuery,
};
use protocol::{ConsoleId, HostId, InstanceId, PrincipalId, Revision, TransferId};
use serde::Deserialize;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::peer::Host;
use crate::app::App;
use crate::http::{ApiError, ErrorCode, JsonBody, Path, RawBody, parse_query};
use crate::nudge::{self, Topic};

/// After this, nobody waits any more.
const LIFETIME: Duration = Duration::minutes(1);

/// Wishes of one kind that are open at once, for one instance.
const MAX_OF_INSTANCE: i64 = 4;
/// The same for one principal.
const MAX_OF_PRINCIPAL: i64 = 16;

/// A wish.
pub(crate) struct Wanted<'a> {
    pub id: TransferId,
    pub host: HostId,
    pub instance: InstanceId,
    /// On whose behalf.
    pub principal: PrincipalId,
    pub ask: Ask<'a>,
    pub revision: Revision,
    pub now: OffsetDateTime,
}

/// What is wished for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask<'a> {
    SerialLog { max_bytes: i32 },
    Console { kind: ConsoleKind, dial: Option<&'a str> },
    Screenshot,
}

impl Ask<'_> {
    const fn kind(&self) -> &'static str {
        match self {
            Self::SerialLog { .. } => SERIAL_LOG,
            Self::Console { kind: ConsoleKind::Vnc, .. } => VNC_CONSOLE,
            Self::Console { kind: ConsoleKind::Serial, .. } => SERIAL_CONSOLE,
            Self::Screenshot => SCREENSHOT,
        }
    }

    /// The most that is taken of the host's answer. A console does not come this way.
    const fn max_bytes(&self) -> i32 {
        match self {
            Self::SerialLog { max_bytes } => *max_bytes,
            Self::Console { .. } => 1,
            Self::Screenshot => MAX_SCREENSHOT_BYTES as i32,
        }
    }
}

// As the table spells them.
const SERIAL_LOG: &str = "serial_log";
const VNC_CONSOLE: &str = "vnc_console";
const SERIAL_CONSOLE: &str = "serial_console";
const SCREENSHOT: &str = "screenshot";

/// Puts a wish into the host's feed.
pub(crate) async fn ask(conn: &mut PgConnection, wanted: &Wanted<'_>) -> Result<(), sqlx::Error> {
    let dial = match wanted.ask {
        Ask::Console { dial, .. } => dial,
        Ask::SerialLog { .. } | Ask::Screenshot => None,
    };
    sqlx::query!(
        "INSERT INTO transfers (id, host_id, instance_id, max_bytes, desired_revision, created_at, expires_at, kind,
                                dial, principal_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        wanted.id.as_uuid(),
        wanted.host.as_uuid(),
        wanted.instance.as_uuid(),
        wanted.ask.max_bytes(),
        wanted.revision.0,
        wanted.now,
        wanted.now + LIFETIME,
        wanted.ask.kind(),
        dial,
        wanted.principal.as_uuid()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether as many of this kind are waited for as may be. The caller holds the host's row, so that the number for one
/// instance is exact.
///
/// # Errors
/// `too_many_requests`.
pub(crate) async fn check_limits(conn: &mut PgConnection, wanted: &Wanted<'_>) -> Result<(), ApiError> {
    let open = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE instance_id = $1) AS "of_instance!",
                  count(*) FILTER (WHERE principal_id = $2) AS "of_principal!"
           FROM transfers
           WHERE kind = $3 AND body IS NULL AND refusal IS NULL AND expires_at > $4
             AND (instance_id = $1 OR principal_id = $2)"#,
        wanted.instance.as_uuid(),
        wanted.principal.as_uuid(),
        wanted.ask.kind(),
        wanted.now
    )
    .fetch_one(conn)
    .await?;
    let detail = if open.of_instance >= MAX_OF_INSTANCE {
        format!("the host of this instance is asked {MAX_OF_INSTANCE} times already; wait for those answers")
    } else if open.of_principal >= MAX_OF_PRINCIPAL {
        format!("hosts are asked {MAX_OF_PRINCIPAL} times for you already; wait for those answers")
    } else {
        return Ok(());
    };
    Err(ApiError::because(ErrorCode::TooManyRequests, detail).retry_after(5))
}

/// Takes what has arrived.
pub(crate) async fn take(conn: &mut PgConnection, id: TransferId) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let body = sqlx::query_scalar!(
        r#"DELETE FROM transfers WHERE id = $1 AND body IS NOT NULL RETURNING body AS "body!""#,
        id.as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(body)
}

/// Takes the wish back.
pub(crate) async fn forget(conn: &mut PgConnection, id: TransferId) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM transfers WHERE id = $1", id.as_uuid()).execute(conn).await?;
    Ok(())
}

/// Takes the host's refusal, if it refused.
pub(crate) async fn take_refusal(
    conn: &mut PgConnection,
    id: TransferId,
) -> Result<Option<RefusalReason>, sqlx::Error> {
    let refusal = sqlx::query_scalar!(
        r#"DELETE FROM transfers WHERE id = $1 AND refusal IS NOT NULL RETURNING refusal AS "refusal!""#,
        id.as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(refusal.map(|reason| RefusalReason::from_name(&reason)))
}

/// What of this is for the host, in the words of its protocol, and newer than the revision. Serial logs have a form of
/// their own.
pub(super) async fn requests_after(
    conn: &mut PgConnection,
    host: HostId,
    after: Revision,
    max_console_seconds: u32,
) -> Result<Vec<HostRequest>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT id, instance_id, kind, dial FROM transfers
         WHERE host_id = $1 AND desired_revision > $2 AND body IS NULL AND refusal IS NULL AND kind <> 'serial_log'
         ORDER BY desired_revision",
        host.as_uuid(),
        after.0
    )
    .fetch_all(conn)
    .await?;
    let requests = rows.into_iter().filter_map(|row| {
        let console = |console| HostRequest::OpenConsole {
            id: ConsoleId::from(row.id),
            instance_id: row.instance_id.into(),
            console,
            dial: row.dial.clone(),
            max_seconds: max_console_seconds,
        };
        match row.kind.as_str() {
            VNC_CONSOLE => Some(console(ConsoleKind::Vnc)),
            SERIAL_CONSOLE => Some(console(ConsoleKind::Serial)),
            SCREENSHOT => Some(HostRequest::Screenshot {
                id: row.id.into(),
                instance_id: row.instance_id.into(),
                max_bytes: MAX_SCREENSHOT_BYTES as u32,
            }),
            _ => None,
        }
    });
    Ok(requests.collect())
}

/// Removes what nobody took.
pub(crate) async fn forget_old(conn: &mut PgConnection, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM transfers WHERE expires_at < $1", now).execute(conn).await?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FillQuery {
    epoch: Epoch,
}

/// The host sends what it was asked for.
pub(super) async fn fill(
    State(app): State<App>,
    host: Host,
    Path(id): Path<String>,
    uri: Uri,
    RawBody(body): RawBody,
) -> Result<StatusCode, ApiError> {
    let query: FillQuery = parse_query(&uri)?;
    let id: TransferId = id.parse().map_err(|_| ApiError::not_found())?;
    let mut tx = app.begin().await?;
    host.session(&mut tx, query.epoch).await?;
    let filled = sqlx::query!(
        "UPDATE transfers SET body = $3 WHERE id = $1 AND host_id = $2 AND body IS NULL AND length($3::bytea) <= max_bytes",
        id.as_uuid(),
        host.0.as_uuid(),
        &body[..]
    )
    .execute(&mut *tx)
    .await?;
    if filled.rows_affected() == 0 {
        return Err(ApiError::because(ErrorCode::NotFound, "nobody waits for these bytes"));
    }
    nudge::send(&mut tx, Topic::Transfer(id)).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The host says why it does not do what it was asked for.
pub(super) async fn refuse(
    State(app): State<App>,
    host: Host,
    Path(id): Path<String>,
    uri: Uri,
    JsonBody(refusal): JsonBody<Refusal>,
) -> Result<StatusCode, ApiError> {
    let query: RequestQuery = parse_query(&uri)?;
    let id: TransferId = id.parse().map_err(|_| ApiError::not_found())?;
    let mut tx = app.begin().await?;
    host.session(&mut tx, query.epoch).await?;
    let noted = sqlx::query!(
        "UPDATE transfers SET refusal = $3 WHERE id = $1 AND host_id = $2 AND body IS NULL AND refusal IS NULL",
        id.as_uuid(),
        host.0.as_uuid(),
        refusal.reason.as_str()
    )
    .execute(&mut *tx)
    .await?;
    if noted.rows_affected() == 0 {
        return Err(ApiError::because(ErrorCode::NotFound, "nobody waits for this"));
    }
    nudge::send(&mut tx, Topic::Transfer(id)).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

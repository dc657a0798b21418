//! Bytes that the control plane asked a host for, on their way to the call that waits for them.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use protocol::agent::Epoch;
use protocol::{HostId, InstanceId, Revision, TransferId};
use serde::Deserialize;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::peer::Host;
use crate::app::App;
use crate::http::{ApiError, ErrorCode, Path, RawBody, parse_query};
use crate::nudge::{self, Topic};

/// After this, nobody waits any more.
const LIFETIME: Duration = Duration::minutes(1);

/// A wish.
pub(crate) struct Wanted {
    pub id: TransferId,
    pub host: HostId,
    pub instance: InstanceId,
    pub max_bytes: i32,
    pub revision: Revision,
    pub now: OffsetDateTime,
}

/// Puts a wish into the host's feed.
pub(crate) async fn ask(conn: &mut PgConnection, wanted: &Wanted) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO transfers (id, host_id, instance_id, max_bytes, desired_revision, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        wanted.id.as_uuid(),
        wanted.host.as_uuid(),
        wanted.instance.as_uuid(),
        wanted.max_bytes,
        wanted.revision.0,
        wanted.now,
        wanted.now + LIFETIME
    )
    .execute(conn)
    .await?;
    Ok(())
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
    let mut tx = app.pool.begin().await?;
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

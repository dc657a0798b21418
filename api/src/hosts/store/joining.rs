//! SQL of hosts that join, and of those that are let in again.

use protocol::{HostId, PrincipalId, Sha256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::auth::{Action, Allowed};
use crate::hosts::{NewHost, UNREACHABLE_AFTER};
use crate::http::{ApiError, ErrorCode, violated_constraint};

/// A token is for a new host, unless it is for one that is to be let in again.
pub(in crate::hosts) async fn insert_join_token<A: Action>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    id: Uuid,
    secret_hash: Sha256,
    readmitted: Option<Uuid>,
    (now, expires_at): (OffsetDateTime, OffsetDateTime),
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO host_join_tokens (id, secret_hash, host_id, created_by, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        id,
        &secret_hash.as_bytes()[..],
        readmitted,
        allowed.principal().as_uuid(),
        now,
        expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A join token, and who made it.
pub(crate) struct SpentToken {
    pub id: Uuid,
    pub maker: PrincipalId,
    /// Empty of a user who is gone.
    pub maker_name: String,
}

/// Spends a join token: one for this host, or for a new one. `None` when it is unknown, spent, expired or for another, or while
/// the host is heard, which then needs none: the caller learns no more.
pub(crate) async fn spend_join_token(
    conn: &mut PgConnection,
    secret_hash: Sha256,
    readmitted: Option<HostId>,
    now: OffsetDateTime,
) -> Result<Option<SpentToken>, sqlx::Error> {
    sqlx::query_as!(
        SpentToken,
        r#"UPDATE host_join_tokens SET used_at = $2
           WHERE secret_hash = $1 AND used_at IS NULL AND expires_at > $2 AND host_id IS NOT DISTINCT FROM $3
             AND NOT EXISTS (SELECT FROM hosts h WHERE h.id = $3 AND h.last_seen_at >= $4)
           RETURNING id, created_by AS maker,
                     coalesce((SELECT name FROM principals p WHERE p.id = created_by), '') AS "maker_name!""#,
        &secret_hash.as_bytes()[..],
        now,
        readmitted.map(|host| host.as_uuid()),
        now - UNREACHABLE_AFTER
    )
    .fetch_optional(conn)
    .await
}

pub(crate) async fn insert(
    conn: &mut PgConnection,
    new: &NewHost,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let inserted = sqlx::query!(
        "INSERT INTO hosts (id, name, generation, created_at, updated_at) VALUES ($1, $2, 1, $3, $3)",
        new.id.as_uuid(),
        new.name.as_str(),
        now
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(|error| match violated_constraint(&error) {
        Some("hosts_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a host of this name already")
        }
        _ => error.into(),
    })
}

/// Notes which certificate the host gets, and gives its name. `None` when the host is not known any more, or if it `has_key` and
/// this is another; which one it has is unknown if it got its certificate from an earlier release.
pub(crate) async fn note_certificate(
    conn: &mut PgConnection,
    host: HostId,
    key: Sha256,
    has_key: bool,
    expires_at: OffsetDateTime,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "UPDATE hosts SET certificate_expires_at = $4, certificate_key_sha256 = $2
         WHERE id = $1 AND (NOT $3 OR coalesce(certificate_key_sha256, $2) = $2) RETURNING name",
        host.as_uuid(),
        &key.as_bytes()[..],
        has_key,
        expires_at
    )
    .fetch_optional(conn)
    .await
}

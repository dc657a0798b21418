//! SQL of sessions, as their owners see them.

use protocol::PrincipalId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::auth::Allowed;
use crate::auth::actions::{ListUserSessions, RevokeUserSession};
use crate::users::types::Session;

/// Those that have not ended.
pub(in crate::users) async fn list(
    conn: &mut PgConnection,
    _allowed: &Allowed<ListUserSessions>,
    user: PrincipalId,
    current: Option<Uuid>,
    now: OffsetDateTime,
    after: Uuid,
    rows: i64,
) -> Result<Vec<Session>, sqlx::Error> {
    sqlx::query_as!(
        Session,
        r#"SELECT id, id IS NOT DISTINCT FROM $2 AS "current!", source_address, user_agent, second_factor_at,
                  created_at, refreshed_at, expires_at
           FROM sessions WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $3 AND id > $4
           ORDER BY id LIMIT $5"#,
        user.as_uuid(),
        current,
        now,
        after,
        rows
    )
    .fetch_all(conn)
    .await
}

/// Ends one session. `None` when this user has no such session that has not ended yet.
pub(in crate::users) async fn end(
    conn: &mut PgConnection,
    _allowed: &Allowed<RevokeUserSession>,
    user: PrincipalId,
    session: Uuid,
    now: OffsetDateTime,
) -> Result<Option<Session>, sqlx::Error> {
    sqlx::query_as!(
        Session,
        r#"UPDATE sessions SET revoked_at = $3
           WHERE id = $2 AND user_id = $1 AND revoked_at IS NULL AND expires_at > $3
           RETURNING id, false AS "current!", source_address, user_agent, second_factor_at, created_at,
                     refreshed_at, expires_at"#,
        user.as_uuid(),
        session,
        now
    )
    .fetch_optional(conn)
    .await
}

//! There is always somebody who may do everything: without an administrator a cloud could not be mended.

use sqlx::PgConnection;

use super::managed;
use crate::http::{ApiError, ErrorCode};

/// One change at a time may take an administrator away; the number is arbitrary but ours.
const ADMINISTRATORS_LOCK: i64 = 0x6375_6d75_6c6f_6164;

/// To be called after any change that may have taken an administrator away, in its transaction. Of two such
/// changes at once the second sees what the first has left.
///
/// # Errors
/// `last_administrator` when there is no enabled user left who has the policy `administrator` for the whole
/// cloud, directly or through a group.
pub(crate) async fn keep_one(conn: &mut PgConnection) -> Result<(), ApiError> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", ADMINISTRATORS_LOCK).execute(&mut *conn).await?;
    let left = sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM policy_attachments a JOIN principals p ON p.kind = 'user' AND p.disabled_at IS NULL
               WHERE a.policy_id = $1 AND a.project_id IS NULL
                 AND (p.id = a.principal_id
                      OR a.principal_id IS NULL AND a.group_id IS NULL
                      OR EXISTS (SELECT FROM group_members m
                                 WHERE m.group_id = a.group_id AND m.principal_id = p.id))
           ) AS "left!""#,
        managed::administrator()
    )
    .fetch_one(conn)
    .await?;
    if left {
        return Ok(());
    }
    let detail = "no enabled user would have the policy administrator for the whole cloud any more; give it to \
                  somebody else first";
    Err(ApiError::because(ErrorCode::LastAdministrator, detail))
}

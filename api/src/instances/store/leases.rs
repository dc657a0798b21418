//! SQL of leases: when an instance is to be stopped or deleted.

use protocol::PrincipalId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::types::Times;

/// Stores the times, on whose behalf, and that nothing has failed yet. Without a time there is no lease.
pub(in crate::instances) async fn set(
    conn: &mut PgConnection,
    id: Uuid,
    times: Times,
    principal: PrincipalId,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET stop_at = $2::timestamptz, delete_at = $3::timestamptz, lease_failure = NULL, lease_due_at = least($2::timestamptz, $3::timestamptz),
                lease_principal_id = CASE WHEN num_nonnulls($2::timestamptz, $3::timestamptz) > 0 THEN $4::uuid END
         WHERE id = $1",
        id,
        times.stop_at,
        times.delete_at,
        principal.as_uuid()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What stood in the way may be gone.
pub(in crate::instances) async fn look_again(
    conn: &mut PgConnection,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET lease_due_at = $2 WHERE id = $1 AND lease_failure IS NOT NULL",
        id,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An instance whose time has come.
pub(in crate::instances) struct Due {
    pub id: Uuid,
    pub project_id: Uuid,
}

pub(in crate::instances) async fn due(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Due>, sqlx::Error> {
    sqlx::query_as!(
        Due,
        "SELECT id, project_id FROM instances WHERE lease_due_at <= $1 AND deletion_requested_at IS NULL
         ORDER BY lease_due_at, id LIMIT 100",
        now
    )
    .fetch_all(conn)
    .await
}

/// Locks an instance that is still due; another replica may have been faster.
pub(in crate::instances) async fn take_turn(
    conn: &mut PgConnection,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let locked = sqlx::query!(
        "SELECT FROM instances WHERE id = $1 AND lease_due_at <= $2 AND deletion_requested_at IS NULL FOR UPDATE",
        id,
        now
    )
    .execute(conn)
    .await?;
    Ok(locked.rows_affected() > 0)
}

/// Its time to be stopped has passed.
pub(in crate::instances) async fn stopped(conn: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET stop_at = NULL, lease_failure = NULL, lease_due_at = delete_at,
                lease_principal_id = CASE WHEN delete_at IS NOT NULL THEN lease_principal_id END
         WHERE id = $1",
        id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes why it is still there, and when to look again.
pub(in crate::instances) async fn postpone(
    conn: &mut PgConnection,
    id: Uuid,
    why: &str,
    due_at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE instances SET lease_failure = $2, lease_due_at = $3 WHERE id = $1", id, why, due_at)
        .execute(conn)
        .await?;
    Ok(())
}

/// How a principal is called, for the audit log; `None` when it is gone.
pub(in crate::instances) async fn principal_name(
    conn: &mut PgConnection,
    id: Uuid,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!("SELECT name FROM principals WHERE id = $1", id).fetch_optional(conn).await
}

/// How a project is called.
pub(in crate::instances) async fn project_name(
    conn: &mut PgConnection,
    id: Uuid,
) -> Result<String, sqlx::Error> {
    sqlx::query_scalar!("SELECT name FROM projects WHERE id = $1", id).fetch_one(conn).await
}

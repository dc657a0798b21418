//! SQL of instances whose host is gone, or whose guest its guard has ended.

use protocol::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// An instance about which something is to be done.
pub(in crate::instances) struct Struck {
    pub id: Uuid,
    pub project_id: Uuid,
}

/// Instances that start elsewhere when their host dies, of hosts of which a lease has lapsed or that the operator has
/// declared dead. More is asked of each once it is locked.
pub(in crate::instances) async fn of_hosts(
    conn: &mut PgConnection,
    lapsed: &[Uuid],
) -> Result<Vec<Struck>, sqlx::Error> {
    sqlx::query_as!(
        Struck,
        "SELECT i.id, i.project_id FROM instances i JOIN hosts h ON h.id = i.host_id
         WHERE i.on_host_failure = 'restart' AND i.deletion_requested_at IS NULL
           AND (i.host_id = ANY($1) OR h.declared_dead_at IS NOT NULL)
         ORDER BY i.id",
        lapsed
    )
    .fetch_all(conn)
    .await
}

/// Instances that were to run when their host's guard ended their guest, and that are due. What a backup has of that may be over
/// since.
pub(in crate::instances) async fn fenced(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Struck>, sqlx::Error> {
    sqlx::query_as!(
        Struck,
        "SELECT id, project_id FROM instances
         WHERE observed_end_reason = 'fenced' AND power = 'running' AND observed_boot = boot AND host_id IS NOT NULL
           AND NOT restored AND deletion_requested_at IS NULL AND (fenced_due_at IS NULL OR fenced_due_at <= $1)
         ORDER BY id LIMIT 100",
        now
    )
    .fetch_all(conn)
    .await
}

/// Locks an instance. Another replica that has it is not waited for.
pub(in crate::instances) async fn take_turn(conn: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    let locked =
        sqlx::query!("SELECT FROM instances WHERE id = $1 FOR UPDATE SKIP LOCKED", id).execute(conn).await?;
    Ok(locked.rows_affected() > 0)
}

/// What else is known of an instance, which is locked.
pub(in crate::instances) struct Known {
    /// On whose behalf it was last changed.
    pub principal: Uuid,
    /// INVARIANT: the guard of its host watches its guest over all of its disks, wherever the host is with what it was
    /// told: it has reported that, or has never heard of it in another way.
    pub guarded: bool,
    /// It comes from a backup, and its host has told nothing new of it since.
    pub restored: bool,
    /// When its host last told of a change of it.
    pub observed_at: Option<OffsetDateTime>,
    pub fenced_starts: i32,
    pub fenced_due_at: Option<OffsetDateTime>,
}

pub(in crate::instances) async fn known(conn: &mut PgConnection, id: Uuid) -> Result<Known, sqlx::Error> {
    sqlx::query_as!(
        Known,
        r#"SELECT o.principal_id AS principal,
                  (i.guarded_from IS NULL OR coalesce(i.observed_generation >= i.guarded_from, false)) AS "guarded!",
                  i.restored, i.observed_at, i.fenced_starts, i.fenced_due_at
           FROM instances i JOIN operations o ON o.id = i.operation_id WHERE i.id = $1"#,
        id
    )
    .fetch_one(conn)
    .await
}

/// The shared pools with its volumes.
pub(in crate::instances) async fn pools_of(
    conn: &mut PgConnection,
    id: Uuid,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT DISTINCT pool_id AS "pool!" FROM volumes WHERE instance_id = $1 AND pool_id IS NOT NULL"#,
        id
    )
    .fetch_all(conn)
    .await
}

/// The first volume of an instance that is not in a shared pool.
pub(in crate::instances) async fn local_volume(
    conn: &mut PgConnection,
    id: Uuid,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT name FROM volumes WHERE instance_id = $1 AND pool_id IS NULL ORDER BY position LIMIT 1",
        id
    )
    .fetch_optional(conn)
    .await
}

/// Counts a start after the guard had ended its guest.
pub(in crate::instances) async fn count_start(
    conn: &mut PgConnection,
    id: Uuid,
    starts: i32,
    next: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET fenced_starts = $2, fenced_due_at = $3 WHERE id = $1",
        id,
        starts,
        next
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How the operator calls a host.
pub(in crate::instances) async fn host_name(
    conn: &mut PgConnection,
    host: HostId,
) -> Result<String, sqlx::Error> {
    sqlx::query_scalar!("SELECT name FROM hosts WHERE id = $1", host.as_uuid()).fetch_one(conn).await
}

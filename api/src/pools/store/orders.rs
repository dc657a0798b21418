//! SQL of what any host that has a pool may do: to remove from it, or to send.

use protocol::{HostId, Revision};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Orders per transaction.
const BATCH: i64 = 64;

/// Orders whose host does not have the pool any more or was not heard of since then, or that have none, each with a host
/// that will do. Ordered by host, since hosts are locked in that order. Those that go with the end of an instance are its
/// host's.
pub(crate) async fn idle(
    conn: &mut PgConnection,
    heard_since: OffsetDateTime,
) -> Result<Vec<(Uuid, HostId)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT r.id, host_for_pool(r.pool_id, $1) AS host FROM layer_removals r
           WHERE r.pool_id IS NOT NULL
             AND NOT EXISTS (SELECT FROM volumes v WHERE v.removal_id = r.id AND v.instance_id IS NOT NULL)
             AND NOT EXISTS (SELECT FROM pool_hosts p JOIN hosts h ON h.id = p.host_id
                             WHERE p.pool_id = r.pool_id AND h.id = r.host_id AND h.last_seen_at >= $1
                               AND h.hypervisor_degraded IS NULL)
           ORDER BY 2, 1 LIMIT $2 FOR UPDATE OF r SKIP LOCKED"#,
        heard_since,
        BATCH
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().filter_map(|row| Some((row.id, row.host?.into()))).collect())
}

/// Orders to send a disk of a shared pool that nobody carries out at this moment, whose host does not have the pool any more or
/// was not heard of since then, each with a host that will do; in the order of hosts.
pub(crate) async fn idle_sending(
    conn: &mut PgConnection,
    heard_since: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<Vec<(Uuid, HostId)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT m.operation_id, host_for_pool(l.pool_id, $1) AS host
           FROM image_imports m JOIN layers l ON l.id = m.layer_id
           WHERE l.pool_id IS NOT NULL AND (m.lease_until IS NULL OR m.lease_until <= $3)
             AND NOT EXISTS (SELECT FROM pool_hosts p JOIN hosts h ON h.id = p.host_id
                             WHERE p.pool_id = l.pool_id AND h.id = m.host_id AND h.last_seen_at >= $1
                               AND h.hypervisor_degraded IS NULL)
           ORDER BY 2, 1 LIMIT $2 FOR UPDATE OF m SKIP LOCKED"#,
        heard_since,
        BATCH,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().filter_map(|row| Some((row.operation_id, row.host?.into()))).collect())
}

/// Gives the order to send a disk to a host, at this revision of it. The host before is not listened to any more.
pub(crate) async fn assign_sending(
    conn: &mut PgConnection,
    operation: Uuid,
    host: HostId,
    revision: Revision,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE image_imports SET host_id = $2, desired_revision = $3 WHERE operation_id = $1",
        operation,
        host.as_uuid(),
        revision.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A host that has the pool and was heard of since then.
pub(crate) async fn host_for(
    conn: &mut PgConnection,
    pool: Uuid,
    heard_since: OffsetDateTime,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!("SELECT host_for_pool($1, $2)", pool, heard_since).fetch_one(conn).await
}

/// Gives the order to a host, at this revision of it.
pub(crate) async fn assign(
    conn: &mut PgConnection,
    removal: Uuid,
    host: HostId,
    revision: Revision,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE layer_removals SET host_id = $2, desired_revision = $3 WHERE id = $1",
        removal,
        host.as_uuid(),
        revision.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

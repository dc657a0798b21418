//! Looks for pools that are not what they should be.

use protocol::agent::LEASE_SECONDS;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::hosts::UNREACHABLE_AFTER;
use crate::verify::Finding;

/// What is wrong with pools, and with hosts that are heard of and do not have them.
pub(crate) async fn verify(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"SELECT 'host_pool_differs' AS "code!", h.id AS "id?",
                  format('%s has another directory under the name of the pool %s than other hosts, so it does not have '
                         'the pool; mount the same one there', h.name, p.name) AS "detail!"
           FROM host_pools s JOIN hosts h ON h.id = s.host_id JOIN pools p ON p.name = s.pool_name
           WHERE s.identity <> p.identity
           UNION ALL
           SELECT 'host_pool_unusable', h.id, format('%s cannot use the pool %s: %s', h.name, p.name, s.fault)
           FROM host_pools s JOIN hosts h ON h.id = s.host_id JOIN pools p ON p.name = s.pool_name
           WHERE s.fault IS NOT NULL AND h.last_seen_at >= $1
           UNION ALL
           SELECT 'pool_low', p.id,
                  format('less than %s %% of the pool %s are free, so no new volume goes there; guests that write more will '
                         'stand still: enlarge the file system, or delete volumes there', p.low_percent, p.name)
           FROM pools p WHERE p.low
           UNION ALL
           SELECT 'pool_without_host', p.id, format('no host has the pool %s, and volumes are in it', p.name)
           FROM pools p
           WHERE p.disk_gib_reserved > 0 AND NOT EXISTS (SELECT FROM pool_hosts h WHERE h.pool_id = p.id)
           UNION ALL
           SELECT DISTINCT 'pool_lease_of_stranger', p.id,
                  format('somebody keeps a lease fresh in the pool %s who is no host of this cloud, but calls itself %s: a host that was '
                         'removed runs on and may write to disks there; find it and cut it off', p.name, s.host)
           FROM host_leases w JOIN hosts wh ON wh.id = w.host_id AND wh.last_seen_at >= $1
           CROSS JOIN LATERAL jsonb_to_recordset(w.seen) AS s (pool text, host uuid, unchanged_seconds integer)
           JOIN pools p ON p.name = s.pool
           WHERE w.seen_at >= $1 AND s.unchanged_seconds < $2
             AND NOT EXISTS (SELECT FROM hosts h WHERE h.id = s.host)
           UNION ALL
           SELECT 'pool_reservation_drift', p.id,
                  format('%s GiB of the pool %s reserved, %s counted', p.disk_gib_reserved, p.name, c.counted)
           FROM pools p CROSS JOIN LATERAL (
               SELECT coalesce(sum(size_gib), 0) AS counted FROM volumes WHERE pool_id = p.id) c
           WHERE p.disk_gib_reserved <> c.counted"#,
        now - UNREACHABLE_AFTER,
        LEASE_SECONDS.cast_signed()
    )
    .fetch_all(conn)
    .await
}

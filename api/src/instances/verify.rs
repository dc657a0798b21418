//! Looks for what is left of instances that are gone, and for those that would not start elsewhere although they should.

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use crate::hosts::{UNREACHABLE_AFTER, WITNESS_FRESH};
use crate::verify::Finding;

/// Transfers are swept some seconds after they have ended.
const SWEPT: Duration = Duration::minutes(5);

/// A source that lives says within seconds what has become of a migration, and a lease is looked at every few seconds.
const LINGERS: Duration = Duration::hours(1);

/// Deletions, operations and parts of serial logs that should have come to their end.
pub(crate) async fn verify(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Finding>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT 'instance_lingers' AS "code!", id AS "id!",
                  format('%s was deleted, its host says that nothing of it is left, and its row is still here', name)
                      AS "detail!"
           FROM instances WHERE deletion_requested_at IS NOT NULL AND observed_state = 'absent'
           UNION ALL
           SELECT 'operation_lingers', o.id, format('%s of %s is not over, and that is gone', o.kind, o.resource_name)
           FROM operations o
           WHERE o.status = 'running' AND NOT EXISTS (SELECT FROM instances i WHERE i.id = o.resource_id)
             AND NOT EXISTS (SELECT FROM volumes v WHERE v.id = o.resource_id)
             AND NOT EXISTS (SELECT FROM snapshots s WHERE s.id = o.resource_id)
             AND NOT EXISTS (SELECT FROM images i WHERE i.id = o.resource_id)
           UNION ALL
           SELECT 'host_reservation_differs', h.id,
                  format('%s vCPUs and %s MiB reserved, %s and %s counted', h.vcpus_reserved, h.memory_mib_reserved,
                         c.vcpus, c.memory_mib)
           FROM hosts h CROSS JOIN LATERAL (
               SELECT coalesce(sum(r.vcpus), 0) AS vcpus, coalesce(sum(r.memory_mib), 0) AS memory_mib FROM (
                   SELECT i.vcpus_held, i.memory_mib_held FROM instances i WHERE i.host_id = h.id
                   UNION ALL
                   SELECT m.vcpus, m.memory_mib FROM migrations m WHERE m.destination_host_id = h.id
               ) r (vcpus, memory_mib)) c
           WHERE (h.vcpus_reserved, h.memory_mib_reserved) IS DISTINCT FROM (c.vcpus, c.memory_mib)
           UNION ALL
           SELECT 'migration_lingers', m.instance_id, 'its time was over an hour ago, and nobody has ended it'
           FROM migrations m WHERE m.due_at < $4
           UNION ALL
           SELECT 'transfer_lingers', t.id, 'what its host was asked for was not removed when its time was over'
           FROM transfers t WHERE t.expires_at < $1
           UNION ALL
           SELECT 'released_address_given', f.id,
                  format('%s is a floating IP and in the list of those that were given back', host(f.address))
           FROM floating_ips f JOIN released_floating_addresses r ON r.address = f.address
           UNION ALL
           SELECT 'lease_held_by_nobody', i.id,
                  format('%s is to be stopped or deleted on behalf of somebody who is not there any more; set its times anew, or take '
                         'them away', i.name)
           FROM instances i
           WHERE i.lease_principal_id IS NOT NULL
             AND NOT EXISTS (SELECT FROM principals p WHERE p.id = i.lease_principal_id)
           UNION ALL
           SELECT 'lease_lingers', i.id,
                  format('the time of %s has come, and nobody has tried to end it', i.name)
           FROM instances i WHERE i.lease_due_at < $4 AND i.deletion_requested_at IS NULL
           UNION ALL
           SELECT 'instance_restarts_without_its_disk', i.id,
                  format('%s is to start elsewhere when its host dies, and its volume %s is in no shared pool', i.name, v.name)
           FROM instances i JOIN volumes v ON v.instance_id = i.id
           WHERE i.on_host_failure = 'restart' AND v.pool_id IS NULL
           UNION ALL
           SELECT 'instance_unguarded', i.id,
                  format('%s is to start elsewhere when its host %s dies, and no guard there keeps a lease in each of its pools: see '
                         'that `cumulo-agent guard` runs there and can write to them', i.name, h.name)
           FROM instances i JOIN hosts h ON h.id = i.host_id
           WHERE i.on_host_failure = 'restart' AND i.power = 'running' AND i.deletion_requested_at IS NULL
             AND h.last_seen_at >= $3
             AND EXISTS (SELECT FROM volumes v WHERE v.instance_id = i.id AND v.pool_id IS NOT NULL AND v.pool_id NOT IN
                             (SELECT g.pool_id FROM guarded_pools_since($2) g WHERE g.host_id = h.id))"#,
        now - SWEPT,
        now - WITNESS_FRESH,
        now - UNREACHABLE_AFTER,
        now - LINGERS
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| Finding::new(&row.code, row.id, row.detail)).collect())
}

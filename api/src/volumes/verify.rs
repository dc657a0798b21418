//! Looks for what must never be: two writers of one file, a disk in two instances, and files that nobody owns.

use protocol::agent::MAX_LAYERS;
use sqlx::PgConnection;

use crate::verify::Finding;

/// Everything that is wrong, worst first.
pub(crate) async fn verify(conn: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    let mut findings = shared(conn).await?;
    findings.extend(astray(conn).await?);
    findings.extend(layers(conn).await?);
    findings.extend(chains(conn).await?);
    findings.extend(reservations(conn).await?);
    Ok(findings)
}

/// What two may write to. Constraints refuse most of it; a restored or repaired database may have lost them.
async fn shared(conn: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"SELECT 'layer_shared' AS "code!", layer_id AS "id?",
                  format('%s volumes write to it', count(*)) AS "detail!"
           FROM volumes GROUP BY layer_id HAVING count(*) > 1
           UNION ALL
           SELECT 'layer_written_below', v.layer_id, 'a volume writes to it, and others stand on it'
           FROM volumes v WHERE EXISTS (SELECT FROM layers l WHERE l.parent_id = v.layer_id)
           UNION ALL
           SELECT 'volume_position_shared', instance_id, format('%s volumes are its disk %s', count(*), position)
           FROM volumes WHERE instance_id IS NOT NULL GROUP BY instance_id, position HAVING count(*) > 1
           UNION ALL
           SELECT 'volume_in_two_instances', v.id, format('%s instances have it, as their hosts say', count(DISTINCT i.id))
           FROM instances i CROSS JOIN jsonb_array_elements(i.observed_volumes) seen
           JOIN volumes v ON v.id = (seen ->> 'id')::uuid
           GROUP BY v.id HAVING count(DISTINCT i.id) > 1"#
    )
    .fetch_all(conn)
    .await
}

/// Volumes that are somewhere else than they should be.
async fn astray(conn: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"SELECT 'volume_astray' AS "code!", v.id AS "id?",
                  'its instance is another project''s or gone, or on another host' AS "detail!"
           FROM volumes v LEFT JOIN instances i ON i.id = v.instance_id
           WHERE v.instance_id IS NOT NULL
             AND (i.project_id IS DISTINCT FROM v.project_id
                  OR i.host_id IS NOT NULL AND v.pool_id IS NULL AND i.host_id IS DISTINCT FROM v.host_id)
           UNION ALL
           SELECT 'volume_kept_by_another', v.id, 'an instance that it is not attached to has it, as its host says'
           FROM instances i CROSS JOIN jsonb_array_elements(i.observed_volumes) seen
           JOIN volumes v ON v.id = (seen ->> 'id')::uuid
           WHERE i.id IS DISTINCT FROM v.instance_id
           UNION ALL
           SELECT 'volume_detaching_on_dead_host', v.id,
                  'it is in a shared pool and to leave an instance of a host that is declared dead; that takes seconds'
           FROM volumes v JOIN instances i ON i.id = v.instance_id JOIN hosts h ON h.id = i.host_id
           WHERE v.pool_id IS NOT NULL AND v.attachment_state = 'detaching' AND h.declared_dead_at IS NOT NULL"#
    )
    .fetch_all(conn)
    .await
}

/// Layers that nobody needs and nobody removes, or that are removed from under somebody.
async fn layers(conn: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"SELECT 'layer_unowned' AS "code!", l.id AS "id?", 'no volume, no snapshot and no layer needs it' AS "detail!"
           FROM layers l
           WHERE l.kept AND NOT layer_held(l.id)
             AND NOT EXISTS (SELECT FROM volumes v WHERE v.layer_id = l.id)
             AND NOT EXISTS (SELECT FROM layers c WHERE c.parent_id = l.id AND c.kept)
           UNION ALL
           SELECT 'layer_removed_early', l.id, 'it is to be removed, and somebody needs it'
           FROM layers l
           WHERE NOT l.kept
             AND (layer_held(l.id) OR EXISTS (SELECT FROM layers c WHERE c.parent_id = l.id AND c.kept)
                  OR EXISTS (SELECT FROM volumes v WHERE v.layer_id = l.id AND v.removal_id IS NULL))
           UNION ALL
           SELECT 'layer_removed_late', v.layer_id, 'its volume is to be removed, and it is not'
           FROM volumes v JOIN layers l ON l.id = v.layer_id
           WHERE v.removal_id IS NOT NULL AND l.removal_id IS DISTINCT FROM v.removal_id
           UNION ALL
           SELECT 'removal_untold', r.id, 'no host and no end of an instance tells of it'
           FROM layer_removals r
           WHERE r.desired_revision IS NULL AND r.pool_id IS NULL
             AND NOT EXISTS (SELECT FROM volumes v WHERE v.removal_id = r.id AND v.instance_id IS NOT NULL)
           UNION ALL
           SELECT 'copy_removed_where_it_is', l.id, 'its host is to remove it as a copy of what is elsewhere, and it is there'
           FROM layer_removals r JOIN layers l ON l.id = ANY (r.copies) AND l.host_id = r.host_id
           UNION ALL
           SELECT 'merge_without_layers', d.id, 'what it stands on is to be merged, and stands on nothing'
           FROM layers d LEFT JOIN layers c ON c.id = d.parent_id
           WHERE d.parent_merge IS NOT NULL AND d.kept AND c.parent_id IS NULL
           UNION ALL
           SELECT 'merge_shared', d.id, 'another volume than the one that is to merge it stands on it'
           FROM layers d
           WHERE d.parent_merge = 'asked'
             AND EXISTS (SELECT FROM volumes_above(d.id) v (id) WHERE v.id IS DISTINCT FROM d.merge_of)"#
    )
    .fetch_all(conn)
    .await
}

/// Chains that are broken.
async fn chains(conn: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"SELECT 'layer_astray' AS "code!", l.id AS "id?",
                  'it is in another place than what it stands on or what is written to it' AS "detail!"
           FROM layers l
           LEFT JOIN layers p ON p.id = l.parent_id
           LEFT JOIN volumes v ON v.layer_id = l.id
           WHERE l.parent_id IS NOT NULL AND (p.id IS NULL OR p.place <> l.place)
              OR v.id IS NOT NULL AND v.place <> l.place
           UNION ALL
           SELECT 'volume_without_layer', v.id, 'the layer that it writes to is not there'
           FROM volumes v WHERE NOT EXISTS (SELECT FROM layers l WHERE l.id = v.layer_id)
           UNION ALL
           SELECT 'chain_too_long', v.id, format('%s layers', cardinality(chain_of(v.layer_id)))
           FROM volumes v WHERE cardinality(chain_of(v.layer_id)) > $1"#,
        i32::try_from(MAX_LAYERS).unwrap_or(i32::MAX)
    )
    .fetch_all(conn)
    .await
}

/// Hosts whose reservations are not the sums over what is there.
async fn reservations(conn: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"SELECT 'host_reservation_drift' AS "code!", h.id AS "id?",
                  format('%s GiB of disk reserved, %s counted', h.disk_gib_reserved, c.counted) AS "detail!"
           FROM hosts h CROSS JOIN LATERAL (
               SELECT (SELECT coalesce(sum(size_gib), 0) FROM volumes WHERE host_id = h.id)
                    + (SELECT coalesce(sum(memory_gib), 0) FROM layers WHERE host_id = h.id)
                    + (SELECT coalesce(sum(disk_gib), 0) FROM migrations WHERE destination_host_id = h.id) AS counted) c
           WHERE h.disk_gib_reserved <> c.counted"#
    )
    .fetch_all(conn)
    .await
}

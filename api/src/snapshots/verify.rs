//! Looks for snapshots that hold nothing, or wait for nobody.

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use crate::verify::Finding;

/// A minute after its time a snapshot has failed.
const FAILED_WITHIN: Duration = Duration::minutes(1);

pub(crate) async fn verify(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"SELECT 'snapshot_empty' AS "code!", s.id AS "id?", 'nothing says what it holds of a volume' AS "detail!"
           FROM snapshots s
           WHERE s.state <> 'failed' AND (
               NOT EXISTS (SELECT FROM snapshot_volumes v WHERE v.snapshot_id = s.id)
               OR EXISTS (SELECT FROM snapshot_volumes v LEFT JOIN layers l ON l.id = v.layer_id
                          WHERE v.snapshot_id = s.id AND l.id IS NULL))
           UNION ALL
           SELECT 'snapshot_written', s.snapshot_id, 'what it holds is written to, or is to be removed'
           FROM snapshot_volumes s JOIN layers l ON l.id = s.layer_id WHERE NOT l.sealed OR NOT l.kept
           UNION ALL
           SELECT 'layer_uncounted', l.id, 'it is sealed, and no quota counts what it holds'
           FROM layers l WHERE l.sealed AND l.memory_gib = 0 AND NOT l.untouched AND l.kept
             AND (l.held_gib = 0 OR l.project_id IS NULL)
           UNION ALL
           SELECT 'snapshot_memory_astray', s.id, 'its memory is to be removed, or written to as a disk'
           FROM snapshots s JOIN layers l ON l.id = s.memory_id
           WHERE NOT l.kept OR NOT l.sealed OR l.parent_id IS NOT NULL
              OR EXISTS (SELECT FROM layers c WHERE c.parent_id = l.id)
           UNION ALL
           SELECT 'snapshot_lingers', id, 'no guest has frozen its file systems for it, and it has not failed'
           FROM snapshots WHERE due_at < $1"#,
        now - FAILED_WITHIN
    )
    .fetch_all(conn)
    .await
}

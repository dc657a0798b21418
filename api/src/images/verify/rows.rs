//! Looks for what must never be: bytes that nobody has, images without bytes, and deleted images that still are
//! somebody's.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::Broken;

/// Everything that is wrong. `deleted_before`: an image that was deleted by then and that nothing uses should have
/// been swept.
pub(crate) async fn verify_rows(
    conn: &mut PgConnection,
    deleted_before: OffsetDateTime,
) -> Result<Vec<Broken>, sqlx::Error> {
    sqlx::query_as!(
        Broken,
        r#"SELECT 'image_without_bytes' AS "code!", i.id AS id,
                  format('its blob %s is %s', i.blob_id, coalesce(b.state, 'gone')) AS "detail!"
           FROM images i LEFT JOIN blobs b ON b.id = i.blob_id
           WHERE i.blob_id IS NOT NULL AND b.state IS DISTINCT FROM 'stored'
           UNION ALL
           SELECT 'instance_without_image', n.id, format('its image %s is gone or empty', n.image_id)
           FROM instances n LEFT JOIN images i ON i.id = n.image_id
           WHERE i.blob_id IS NULL
           UNION ALL
           SELECT 'blob_unowned', b.id, 'its bytes are stored, and no image has them'
           FROM blobs b WHERE b.state = 'stored' AND NOT EXISTS (SELECT FROM images i WHERE i.blob_id = b.id)
           UNION ALL
           SELECT 'deleted_image_owned', i.id, 'it is deleted, and a project has it'
           FROM images i
           WHERE i.deleted_at IS NOT NULL
             AND (i.project_id IS NOT NULL OR EXISTS (SELECT FROM image_shares s WHERE s.image_id = i.id))
           UNION ALL
           SELECT 'image_unowned', i.id, 'it is not deleted, and no project has it'
           FROM images i LEFT JOIN projects p ON p.id = i.project_id
           WHERE i.deleted_at IS NULL AND p.id IS NULL
           UNION ALL
           SELECT 'image_unswept', i.id, 'it is deleted and nothing is made from it; the sweeper should have removed it'
           FROM images i
           WHERE i.deleted_at < $1 AND NOT image_needed(i.id)
           UNION ALL
           SELECT 'image_share_astray', s.image_id, format('project %s is gone, or owns it', s.project_id)
           FROM image_shares s
           LEFT JOIN images i ON i.id = s.image_id
           LEFT JOIN projects p ON p.id = s.project_id
           WHERE p.id IS NULL OR i.project_id = s.project_id"#,
        deleted_before
    )
    .fetch_all(conn)
    .await
}

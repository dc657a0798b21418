//! SQL of the end of deleted images: after the last instance, volume and snapshot that are made from them.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{digest, lock_content};

/// A deleted image that nothing needs any more, locked; other replicas pass it over.
pub(in super::super) async fn take(conn: &mut PgConnection) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT id FROM images
         WHERE deleted_at IS NOT NULL AND NOT image_needed(id)
         ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    .fetch_optional(conn)
    .await
}

/// Removes the row that was taken, and lets its blob go when no other image has it.
pub(in super::super) async fn remove(conn: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    let blob = sqlx::query!(
        r#"SELECT b.id, b.sha256 FROM images i JOIN blobs b ON b.id = i.blob_id WHERE i.id = $1"#,
        id
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(sha256) = blob.as_ref().and_then(|blob| blob.sha256.clone()).and_then(digest) {
        lock_content(conn, sha256).await?;
    }
    sqlx::query!("DELETE FROM images WHERE id = $1", id).execute(&mut *conn).await?;
    sqlx::query!(
        "UPDATE blobs SET state = 'discarded' WHERE id = $1 AND NOT EXISTS (SELECT FROM images WHERE blob_id = $1)",
        blob.map(|blob| blob.id)
    )
    .execute(conn)
    .await?;
    Ok(())
}

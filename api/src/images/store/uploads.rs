//! SQL of uploads in parts.

use protocol::{BlobId, Sha256};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::auth::{Allowed, actions};
use crate::images::types::ImageUpload;
use crate::nudge::{self, Topic};

/// An upload to which nothing comes for so long is swept.
pub(in crate::images) const LIFETIME: Duration = Duration::hours(24);

#[derive(Debug, Clone)]
pub(in crate::images) struct UploadRow {
    pub id: Uuid,
    pub size_bytes: i64,
    pub offset_bytes: i64,
    pub pieces: i64,
    pub expected_sha256: Option<Vec<u8>>,
    pub created_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
}

impl UploadRow {
    pub(in crate::images) fn into_wire(self, image: Uuid) -> ImageUpload {
        ImageUpload {
            id: self.id.into(),
            image_id: image.into(),
            size_bytes: self.size_bytes,
            offset_bytes: self.offset_bytes,
            sha256: self.expected_sha256.and_then(super::digest),
            created_at: self.created_at,
            expires_at: self.expires_at,
        }
    }
}

pub(in crate::images) struct NewUpload {
    pub id: Uuid,
    pub image: Uuid,
    pub size_bytes: i64,
    pub sha256: Option<Sha256>,
    pub now: OffsetDateTime,
    pub expires_at: OffsetDateTime,
}

pub(in crate::images) async fn insert(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UploadImage>,
    new: &NewUpload,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO image_uploads (id, image_id, size_bytes, expected_sha256, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        new.id,
        new.image,
        new.size_bytes,
        new.sha256.as_ref().map(|digest| &digest.as_bytes()[..]),
        new.now,
        new.expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How many uploads of the image are open. The caller has locked the image.
pub(in crate::images) async fn count_open(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UploadImage>,
    image: Uuid,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM image_uploads WHERE image_id = $1 AND NOT ended"#,
        image
    )
    .fetch_one(conn)
    .await
}

/// An open upload of this image; locked, if asked for, until the transaction ends.
pub(in crate::images) async fn find(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::UploadImage>,
    image: Uuid,
    id: Uuid,
    lock: bool,
) -> Result<Option<UploadRow>, sqlx::Error> {
    if lock {
        sqlx::query!("SELECT FROM image_uploads WHERE id = $1 FOR UPDATE", id).execute(&mut *conn).await?;
    }
    sqlx::query_as!(
        UploadRow,
        r#"SELECT u.id, u.size_bytes, u.offset_bytes, u.expected_sha256, u.created_at, u.expires_at,
                  (SELECT count(*) FROM blobs b WHERE b.upload_id = u.id AND b.state = 'part') AS "pieces!"
           FROM image_uploads u JOIN images i ON i.id = u.image_id
           WHERE u.id = $3 AND u.image_id = $2 AND i.project_id = $1 AND NOT u.ended"#,
        allowed.project().as_uuid(),
        image,
        id
    )
    .fetch_optional(conn)
    .await
}

/// The open uploads of an image, after this one.
pub(in crate::images) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::UploadImage>,
    image: Uuid,
    after: Uuid,
    rows: i64,
) -> Result<Vec<UploadRow>, sqlx::Error> {
    sqlx::query_as!(
        UploadRow,
        r#"SELECT u.id, u.size_bytes, u.offset_bytes, u.expected_sha256, u.created_at, u.expires_at,
                  (SELECT count(*) FROM blobs b WHERE b.upload_id = u.id AND b.state = 'part') AS "pieces!"
           FROM image_uploads u JOIN images i ON i.id = u.image_id
           WHERE u.image_id = $2 AND i.project_id = $1 AND NOT u.ended AND u.id > $3 ORDER BY u.id LIMIT $4"#,
        allowed.project().as_uuid(),
        image,
        after,
        rows
    )
    .fetch_all(conn)
    .await
}

/// A received blob that is to become a part.
pub(in crate::images) struct Part {
    pub blob: BlobId,
    pub start_bytes: i64,
    pub size_bytes: i64,
}

/// Keeps a part, and moves the offset behind it. The caller has locked the upload and compared its offset. False
/// when the part was given up meanwhile.
pub(in crate::images) async fn keep_part(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UploadImage>,
    upload: Uuid,
    part: &Part,
    expires_at: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let kept = sqlx::query!(
        "UPDATE blobs SET state = 'part', upload_id = $2, start_bytes = $3, size_bytes = $4
         WHERE id = $1 AND state = 'receiving'",
        part.blob.as_uuid(),
        upload,
        part.start_bytes,
        part.size_bytes
    )
    .execute(&mut *conn)
    .await?;
    if kept.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query!(
        "UPDATE image_uploads SET offset_bytes = $2, expires_at = $3 WHERE id = $1",
        upload,
        part.start_bytes + part.size_bytes,
        expires_at
    )
    .execute(conn)
    .await?;
    Ok(true)
}

/// The parts in order, with the length of all.
pub(in crate::images) async fn parts(
    conn: &mut PgConnection,
    upload: Uuid,
) -> Result<(Vec<BlobId>, i64), sqlx::Error> {
    let parts = sqlx::query!(
        r#"SELECT id, size_bytes AS "size_bytes!" FROM blobs WHERE upload_id = $1 AND state = 'part'
           ORDER BY start_bytes"#,
        upload
    )
    .fetch_all(conn)
    .await?;
    let total = parts.iter().map(|part| part.size_bytes).sum();
    Ok((parts.into_iter().map(|part| part.id.into()).collect(), total))
}

/// Takes no more parts, and lets go those that it has.
pub(in crate::images) async fn end(conn: &mut PgConnection, upload: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE image_uploads SET ended = true WHERE id = $1", upload).execute(&mut *conn).await?;
    sqlx::query!("UPDATE blobs SET state = 'discarded' WHERE upload_id = $1 AND state = 'part'", upload)
        .execute(&mut *conn)
        .await?;
    nudge::send(conn, Topic::Sweep).await
}

/// Ends uploads that nobody goes on with, and whose image is gone or has its content.
pub(in crate::images) async fn end_abandoned(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let abandoned = sqlx::query_scalar!(
        "SELECT id FROM image_uploads u
         WHERE NOT ended
           AND (expires_at <= $1 OR image_id IS NULL
                OR EXISTS (SELECT FROM images i WHERE i.id = u.image_id AND i.blob_id IS NOT NULL))
           AND NOT EXISTS (SELECT FROM image_imports m WHERE m.upload_id = u.id)
         LIMIT 100 FOR UPDATE SKIP LOCKED",
        now
    )
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query!(
        "SELECT lock_quotas(array_agg(DISTINCT project_id)) FROM image_uploads WHERE id = ANY($1)",
        &abandoned
    )
    .execute(&mut *conn)
    .await?;
    for upload in abandoned {
        end(conn, upload).await?;
    }
    Ok(())
}

/// Forgets uploads that have ended and whose parts are gone.
pub(in crate::images) async fn forget_ended(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM image_uploads u WHERE ended AND NOT EXISTS (SELECT FROM blobs b WHERE b.upload_id = u.id)
         AND NOT EXISTS (SELECT FROM image_imports m WHERE m.upload_id = u.id)"
    )
    .execute(conn)
    .await?;
    Ok(())
}

//! SQL of images and blobs.

use protocol::image::Format;
use protocol::{BlobId, HostId, ImageId, Sha256};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{CreateImage, Image, ImageState};
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Selector, Version, violated_constraint};
use crate::nudge::{self, Topic};

/// An image's row with what is known of its bytes.
#[derive(Debug, Clone)]
pub(crate) struct ImageRow {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub labels: Json<Labels>,
    pub architecture: String,
    pub format: String,
    pub expected_sha256: Option<Vec<u8>>,
    pub blob_id: Option<Uuid>,
    pub sha256: Option<Vec<u8>>,
    pub size_bytes: Option<i64>,
    pub virtual_size_bytes: Option<i64>,
    pub generation: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl ImageRow {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> Image {
        Image {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            labels: self.labels.0,
            state: if self.blob_id.is_some() { ImageState::Available } else { ImageState::AwaitingUpload },
            architecture: self.architecture,
            format: self.format,
            sha256: self.sha256.or(self.expected_sha256).and_then(digest),
            size_bytes: self.size_bytes,
            virtual_size_bytes: self.virtual_size_bytes,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

pub(super) fn digest(bytes: Vec<u8>) -> Option<Sha256> {
    bytes.try_into().ok().map(Sha256::from_bytes)
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::CreateImage>,
    id: ImageId,
    new: &CreateImage,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let inserted = sqlx::query!(
        "INSERT INTO images (id, project_id, name, description, labels, architecture, format, expected_sha256,
                             generation, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9, $9)",
        id.as_uuid(),
        allowed.project().as_uuid(),
        new.name.as_str(),
        new.description,
        Json(&new.labels) as _,
        new.architecture.as_str(),
        new.format.as_str(),
        new.sha256.as_ref().map(|digest| &digest.as_bytes()[..]),
        now
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(|error| match violated_constraint(&error) {
        Some("images_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is an image of this name in the project already")
        }
        _ => error.into(),
    })
}

pub(crate) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<ImageRow>, sqlx::Error> {
    sqlx::query_as!(
        ImageRow,
        r#"SELECT i.id, i.name, i.description, i.labels AS "labels: Json<Labels>", i.architecture, i.format,
                  i.expected_sha256, i.blob_id, b.sha256 AS "sha256?", b.size_bytes AS "size_bytes?",
                  b.virtual_size_bytes AS "virtual_size_bytes?", i.generation, i.created_at, i.updated_at
           FROM images i LEFT JOIN blobs b ON b.id = i.blob_id
           WHERE i.project_id = $1 AND (i.id = $2 OR i.name = $3)"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// The image, locked until the transaction ends.
pub(super) async fn lock<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<ImageRow>, sqlx::Error> {
    sqlx::query!(
        "SELECT FROM images WHERE project_id = $1 AND (id = $2 OR name = $3) FOR UPDATE",
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .execute(&mut *conn)
    .await?;
    find(conn, allowed, selector).await
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListImages>,
    after: Uuid,
    name: Option<&str>,
    labels: &LabelSelector,
    rows: i64,
) -> Result<Vec<ImageRow>, sqlx::Error> {
    sqlx::query_as!(
        ImageRow,
        r#"SELECT i.id, i.name, i.description, i.labels AS "labels: Json<Labels>", i.architecture, i.format,
                  i.expected_sha256, i.blob_id, b.sha256 AS "sha256?", b.size_bytes AS "size_bytes?",
                  b.virtual_size_bytes AS "virtual_size_bytes?", i.generation, i.created_at, i.updated_at
           FROM images i LEFT JOIN blobs b ON b.id = i.blob_id
           WHERE i.project_id = $1 AND i.id > $2 AND ($3::text IS NULL OR i.name = $3)
             AND i.labels @> $4 AND i.labels ?& $5 AND NOT i.labels ?| $6
             AND NOT i.labels @> ANY($7)
           ORDER BY i.id LIMIT $8"#,
        allowed.project().as_uuid(),
        after,
        name,
        labels.equal(),
        labels.present(),
        labels.absent(),
        &labels.not_equal(),
        rows
    )
    .fetch_all(conn)
    .await
}

/// Deletes the image, and lets its blob go when no other image has it.
pub(super) async fn delete(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::DeleteImage>,
    image: &ImageRow,
) -> Result<(), ApiError> {
    if let Some(sha256) = image.sha256.clone().and_then(digest) {
        lock_content(conn, sha256).await?;
    }
    let deleted = sqlx::query!("DELETE FROM images WHERE id = $1", image.id).execute(&mut *conn).await;
    deleted.map_err(|error| match violated_constraint(&error) {
        Some("instances_image_id_fkey") => {
            ApiError::because(ErrorCode::InUse, "instances made from this image exist; delete them first")
        }
        Some("volumes_image_id_fkey") => {
            ApiError::because(ErrorCode::InUse, "volumes made from this image exist; delete them first")
        }
        _ => error.into(),
    })?;
    sqlx::query!(
        "UPDATE blobs SET state = 'discarded' WHERE id = $1 AND NOT EXISTS (SELECT FROM images WHERE blob_id = $1)",
        image.blob_id
    )
    .execute(&mut *conn)
    .await?;
    Ok(nudge::send(conn, Topic::Sweep).await?)
}

/// Announces a blob before its first byte, so that no file is without a row.
pub(super) async fn announce_blob(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UploadImage>,
    id: BlobId,
    now: OffsetDateTime,
    lease_until: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO blobs (id, state, created_at, lease_until) VALUES ($1, 'receiving', $2, $3)",
        id.as_uuid(),
        now,
        lease_until
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Says that the receiver still lives.
pub(super) async fn renew_lease(
    conn: &mut PgConnection,
    id: BlobId,
    lease_until: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let renewed = sqlx::query!(
        "UPDATE blobs SET lease_until = $2 WHERE id = $1 AND state = 'receiving'",
        id.as_uuid(),
        lease_until
    )
    .execute(conn)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// What an upload turned out to be.
pub(super) struct Content {
    pub sha256: Sha256,
    pub format: Format,
    pub size_bytes: i64,
    pub virtual_size_bytes: i64,
}

/// Keeps the upload, or discards it for a blob of the same content; the answer is the blob to use. `None`
/// when the upload was given up meanwhile.
pub(super) async fn keep_blob(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UploadImage>,
    id: BlobId,
    content: &Content,
) -> Result<Option<Uuid>, sqlx::Error> {
    lock_content(conn, content.sha256).await?;
    let sha256 = &content.sha256.as_bytes()[..];
    let same = sqlx::query_scalar!(
        "SELECT id FROM blobs WHERE sha256 = $1 AND format = $2 AND state = 'stored'",
        sha256,
        content.format.as_str()
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(same) = same {
        discard_blob(conn, id).await?;
        return Ok(Some(same));
    }
    let kept = sqlx::query!(
        "UPDATE blobs SET state = 'stored', sha256 = $2, format = $3, size_bytes = $4, virtual_size_bytes = $5
         WHERE id = $1 AND state = 'receiving'",
        id.as_uuid(),
        sha256,
        content.format.as_str(),
        content.size_bytes,
        content.virtual_size_bytes
    )
    .execute(conn)
    .await?;
    Ok((kept.rows_affected() == 1).then(|| id.as_uuid()))
}

/// Gives an upload up.
pub(super) async fn discard_blob(conn: &mut PgConnection, id: BlobId) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE blobs SET state = 'discarded' WHERE id = $1 AND state = 'receiving'", id.as_uuid())
        .execute(&mut *conn)
        .await?;
    nudge::send(conn, Topic::Sweep).await
}

/// Whether the blob has a row, in whatever state.
pub(super) async fn is_announced(conn: &mut PgConnection, id: BlobId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM blobs WHERE id = $1) AS "exists!""#, id.as_uuid())
        .fetch_one(conn)
        .await
}

pub(super) async fn set_blob(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UploadImage>,
    image: Uuid,
    blob: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE images SET blob_id = $2, generation = generation + 1, updated_at = $3 WHERE id = $1",
        image,
        blob,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Blobs whose files may go: discarded ones, and uploads whose receiver is dead.
pub(super) async fn sweepable(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<BlobId>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "UPDATE blobs SET state = 'discarded' WHERE id IN (
             SELECT id FROM blobs WHERE state = 'discarded' OR (state = 'receiving' AND lease_until < $1)
             LIMIT 100 FOR UPDATE SKIP LOCKED)
         RETURNING id",
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(BlobId::from).collect())
}

/// The file is gone, and so is the row.
pub(super) async fn forget_blob(conn: &mut PgConnection, id: BlobId) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM blobs WHERE id = $1 AND state = 'discarded'", id.as_uuid())
        .execute(conn)
        .await?;
    Ok(())
}

/// The blob of this content, if the host has a volume that is made from it.
pub(crate) async fn blob_for_host(
    conn: &mut PgConnection,
    host: HostId,
    sha256: Sha256,
) -> Result<Option<(BlobId, i64)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT b.id, b.size_bytes AS "size_bytes!" FROM blobs b
           WHERE b.sha256 = $2 AND b.state = 'stored' AND EXISTS (
               SELECT FROM volumes v JOIN images i ON i.id = v.image_id
               WHERE v.host_id = $1 AND i.blob_id = b.id)
           LIMIT 1"#,
        host.as_uuid(),
        &sha256.as_bytes()[..]
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.id.into(), row.size_bytes)))
}

/// Whoever decides about the blobs of a content does so alone, until the transaction ends.
async fn lock_content(conn: &mut PgConnection, sha256: Sha256) -> Result<(), sqlx::Error> {
    let mut id = [0; 8];
    id.copy_from_slice(&sha256.as_bytes()[..8]);
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", i64::from_be_bytes(id)).execute(conn).await?;
    Ok(())
}

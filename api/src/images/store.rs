//! SQL of images and blobs.

pub(crate) mod disks;
pub(crate) mod imports;
pub(super) mod shares;
pub(super) mod unused;
pub(super) mod uploads;
pub(super) mod usable;

use protocol::agent::Firmware;
use protocol::image::Format;
use protocol::{BlobId, HostId, ImageId, OperationId, Sha256};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{
    CreateImage, Defaults, Deprecated, Image, ImageOwner, ImageReplacement, ImageState, Scope,
};
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Selector, Version, violated_constraint};
use crate::nudge::{self, Topic};
use crate::operations::OperationError;
use crate::quotas;

/// An image's row as a project sees it, with what is known of its bytes.
#[derive(Debug, Clone)]
pub(crate) struct ImageRow {
    pub id: Uuid,
    pub project_id: Uuid,
    pub project_name: String,
    pub name: String,
    pub description: String,
    pub labels: Json<Labels>,
    pub visibility: String,
    pub architecture: String,
    pub firmware: String,
    pub min_disk_gib: i32,
    pub min_memory_mib: i32,
    pub default_user: Option<String>,
    pub format: String,
    pub expected_sha256: Option<Vec<u8>>,
    pub blob_id: Option<Uuid>,
    pub import_state: Option<String>,
    pub failure_code: Option<String>,
    pub failure_detail: Option<String>,
    pub import_operation_id: Option<Uuid>,
    pub sha256: Option<Vec<u8>>,
    pub size_bytes: Option<i64>,
    pub virtual_size_bytes: Option<i64>,
    pub deprecated_at: Option<OffsetDateTime>,
    pub replacement_id: Option<Uuid>,
    pub replacement_name: Option<String>,
    pub generation: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl ImageRow {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> Image {
        let replacement = self.replacement_id.zip(self.replacement_name);
        Image {
            id: self.id.into(),
            name: self.name,
            project: ImageOwner { id: self.project_id.into(), name: self.project_name },
            description: self.description,
            labels: self.labels.0,
            state: ImageState::of(self.blob_id.is_some(), self.import_state.as_deref()),
            visibility: self.visibility,
            failure: self.failure_code.map(|code| OperationError { code, detail: self.failure_detail }),
            operation_id: self.import_operation_id.map(OperationId::from),
            architecture: self.architecture,
            firmware: self.firmware,
            min_disk_gib: self.min_disk_gib,
            min_memory_mib: self.min_memory_mib,
            default_user: self.default_user,
            format: self.format,
            sha256: self.sha256.or(self.expected_sha256).and_then(digest),
            size_bytes: self.size_bytes,
            virtual_size_bytes: self.virtual_size_bytes,
            deprecated_at: self.deprecated_at,
            replacement: replacement.map(|(id, name)| ImageReplacement { id: id.into(), name }),
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
    defaults: &Defaults,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let without_bios = new.architecture.filter(|architecture| !architecture.has_bios());
    let firmware = new.firmware.or(without_bios.map(|_| Firmware::Uefi));
    let inserted = sqlx::query!(
        "INSERT INTO images (id, project_id, name, description, labels, architecture, firmware, min_disk_gib,
                             min_memory_mib, default_user, format, expected_sha256, generation, created_at,
                             updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1, $13, $13)",
        id.as_uuid(),
        allowed.project().as_uuid(),
        new.name.as_str(),
        new.description,
        Json(&new.labels) as _,
        new.architecture.map_or(defaults.architecture.as_str(), |architecture| architecture.as_str()),
        firmware.map_or(defaults.firmware.as_str(), |firmware| firmware.as_str()),
        new.min_disk_gib.map_or(defaults.min_disk_gib, |size| size.0.cast_signed()),
        new.min_memory_mib.map_or(defaults.min_memory_mib, |size| size.0.cast_signed()),
        new.default_user.as_ref().or(defaults.default_user.as_ref()),
        new.format.unwrap_or(Format::Qcow2).as_str(),
        new.sha256.as_ref().map(|digest| &digest.as_bytes()[..]),
        now
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(name_taken)
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("images_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is an image of this name in the project already")
        }
        _ => error.into(),
    }
}

/// An image of the proof's project.
pub(crate) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<ImageRow>, sqlx::Error> {
    let project = allowed.project().as_uuid();
    let id = sqlx::query_scalar!(
        "SELECT id FROM images WHERE project_id = $1 AND (id = $2 OR name = $3)",
        project,
        selector.id(),
        selector.name()
    )
    .fetch_optional(&mut *conn)
    .await?;
    match id {
        Some(id) => usable::find(conn, project, id).await,
        None => Ok(None),
    }
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

/// Which images a list has.
pub(super) struct Filter<'a> {
    pub after: Uuid,
    pub name: Option<&'a str>,
    pub labels: &'a LabelSelector,
    pub scope: Scope,
    pub deprecated: Deprecated,
    pub state: Option<ImageState>,
    pub rows: i64,
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListImages>,
    filter: &Filter<'_>,
) -> Result<Vec<ImageRow>, sqlx::Error> {
    let (others, visibility) = match filter.scope {
        Scope::Own => (false, None),
        Scope::Private => (false, Some("private")),
        Scope::Shared => (true, Some("shared")),
        Scope::Public => (true, Some("public")),
        Scope::All => (true, None),
    };
    let deprecated = match filter.deprecated {
        Deprecated::Exclude => Some(false),
        Deprecated::Include => None,
        Deprecated::Only => Some(true),
    };
    sqlx::query_as!(
        ImageRow,
        r#"SELECT i.id, p.id AS project_id, p.name AS project_name, i.name, i.description,
                  l.labels AS "labels!: Json<Labels>", image_visibility(i) AS "visibility!", i.architecture,
                  i.firmware, i.min_disk_gib, i.min_memory_mib, i.default_user, i.format, i.expected_sha256,
                  i.blob_id, i.import_state, i.failure_code, i.failure_detail, i.import_operation_id,
                  b.sha256 AS "sha256?", b.size_bytes AS "size_bytes?",
                  b.virtual_size_bytes AS "virtual_size_bytes?", i.deprecated_at,
                  r.id AS "replacement_id?", r.name AS "replacement_name?",
                  i.generation, i.created_at, i.updated_at
           FROM images i
           JOIN projects p ON p.id = i.project_id
           -- What its owner calls it is nobody else's business.
           CROSS JOIN LATERAL (SELECT CASE WHEN i.project_id = $1 THEN i.labels ELSE '{}' END) l (labels)
           LEFT JOIN blobs b ON b.id = i.blob_id
           LEFT JOIN images r ON r.id = i.replacement_id AND may_use_image(r, $1)
           -- Those of all other projects are not looked at.
           WHERE i.id IN (SELECT own.id FROM images own WHERE own.project_id = $1
                          UNION SELECT s.image_id FROM image_shares s WHERE $9 AND s.project_id = $1
                          UNION SELECT all_of.id FROM images all_of WHERE $9 AND all_of.public)
             AND (i.project_id = $1 OR $9 AND may_use_image(i, $1))
             AND i.id > $2 AND ($3::text IS NULL OR i.name = $3)
             AND l.labels @> $4 AND l.labels ?& $5 AND NOT l.labels ?| $6
             AND NOT l.labels @> ANY($7)
             AND ($10::text IS NULL OR image_visibility(i) = $10)
             AND ($11::boolean IS NULL OR (i.deprecated_at IS NOT NULL) = $11)
             AND ($12::text IS NULL OR $12 = CASE
                 WHEN i.blob_id IS NOT NULL THEN 'available'
                 ELSE coalesce(i.import_state, 'awaiting_upload') END)
           ORDER BY i.id LIMIT $8"#,
        allowed.project().as_uuid(),
        filter.after,
        filter.name,
        filter.labels.equal(),
        filter.labels.present(),
        filter.labels.absent(),
        &filter.labels.not_equal(),
        filter.rows,
        others,
        visibility,
        deprecated,
        filter.state.map(ImageState::as_str)
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn update(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UpdateImage>,
    row: &ImageRow,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE images SET name = $2, description = $3, labels = $4, architecture = $5, firmware = $6,
                min_disk_gib = $7, min_memory_mib = $8, default_user = $9, generation = $10, updated_at = $11
         WHERE id = $1",
        row.id,
        row.name,
        row.description,
        Json(&row.labels.0) as _,
        row.architecture,
        row.firmware,
        row.min_disk_gib,
        row.min_memory_mib,
        row.default_user,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(name_taken)
}

pub(super) async fn set_public<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    _allowed: &Allowed<A>,
    id: Uuid,
    public: bool,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE images SET public = $2, generation = generation + 1, updated_at = $3
         WHERE id = $1 AND public <> $2",
        id,
        public,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deprecates an image, or no longer. What was deprecated before stays so from the same time.
pub(super) async fn set_deprecated<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    _allowed: &Allowed<A>,
    id: Uuid,
    deprecated: bool,
    replacement: Option<Uuid>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE images SET deprecated_at = CASE WHEN $2 THEN coalesce(deprecated_at, $4) END, replacement_id = $3,
                generation = generation + 1, updated_at = $4
         WHERE id = $1
           AND (deprecated_at IS NOT NULL, replacement_id) IS DISTINCT FROM ($2::boolean, $3::uuid)",
        id,
        deprecated,
        replacement,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the image from everybody. Its row and its bytes stay for the instances that are made from it, and the
/// sweeper removes them after the last one.
pub(super) async fn delete(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::DeleteImage>,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE images SET project_id = NULL, deleted_at = $2, generation = generation + 1, updated_at = $2
         WHERE id = $1",
        id,
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM image_shares WHERE image_id = $1", id).execute(&mut *conn).await?;
    // An import of it ends, and so do uploads.
    let held = sqlx::query_scalar!("DELETE FROM image_imports WHERE image_id = $1 RETURNING layer_id", id)
        .fetch_optional(&mut *conn)
        .await?;
    disks::release(conn, held.flatten(), now).await?;
    sqlx::query!("UPDATE image_uploads SET image_id = NULL WHERE image_id = $1", id)
        .execute(&mut *conn)
        .await?;
    nudge::send_all(conn, &[Topic::Imports, Topic::Sweep]).await
}

/// Announces a blob before its first byte, so that no file is without a row. What comes is charged to the project, if one
/// is named: see [`hold`].
pub(super) async fn announce_blob(
    conn: &mut PgConnection,
    id: BlobId,
    project: Option<Uuid>,
    now: OffsetDateTime,
    lease_until: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO blobs (id, state, project_id, created_at, lease_until) VALUES ($1, 'receiving', $2, $3, $4)",
        id.as_uuid(),
        project,
        now,
        lease_until
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Charges the project of a blob on its way for so many GiB, until the blob is kept or given up. Beyond a limit that fails.
pub(super) async fn hold(conn: &mut PgConnection, id: BlobId, gib: i32) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE blobs SET held_gib = $2 WHERE id = $1 AND state = 'receiving' AND held_gib < $2",
        id.as_uuid(),
        gib
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
#[derive(Debug)]
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

/// Gives an image its content, for which its project has been charged while that came.
pub(super) async fn set_blob(
    conn: &mut PgConnection,
    image: Uuid,
    blob: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    quotas::store::charge_anyway(conn, true).await?;
    sqlx::query!(
        "UPDATE images SET blob_id = $2, generation = generation + 1, updated_at = $3, import_state = NULL,
                failure_code = NULL, failure_detail = NULL WHERE id = $1",
        image,
        blob,
        now
    )
    .execute(&mut *conn)
    .await?;
    quotas::store::charge_anyway(conn, false).await
}

/// Blobs whose files may go: discarded ones, and uploads whose receiver is dead.
pub(super) async fn sweepable(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<BlobId>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "WITH due AS MATERIALIZED (
             SELECT id, project_id FROM blobs
             WHERE state = 'discarded' OR (state = 'receiving' AND lease_until < $1)
             LIMIT 100 FOR UPDATE SKIP LOCKED),
         held AS MATERIALIZED (
             SELECT lock_quotas(array_agg(project_id) FILTER (WHERE project_id IS NOT NULL)) FROM due)
         UPDATE blobs b SET state = 'discarded' FROM due, held WHERE b.id = due.id RETURNING b.id",
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

/// The blob of this content, if the host has a volume or a snapshot that is made from it.
pub(crate) async fn blob_for_host(
    conn: &mut PgConnection,
    host: HostId,
    sha256: Sha256,
) -> Result<Option<(BlobId, i64)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT b.id, b.size_bytes AS "size_bytes!" FROM blobs b
           WHERE b.sha256 = $2 AND b.state = 'stored' AND EXISTS (
               SELECT FROM volumes v JOIN images i ON i.id = v.image_id WHERE v.host_id = $1 AND i.blob_id = b.id
               UNION ALL
               SELECT FROM instances n JOIN volumes v ON v.instance_id = n.id JOIN images i ON i.id = v.image_id
               WHERE n.host_id = $1 AND v.pool_id IS NOT NULL AND i.blob_id = b.id
               UNION ALL
               SELECT FROM migrations g JOIN volumes v USING (instance_id) JOIN images i ON i.id = v.image_id
               WHERE g.destination_host_id = $1 AND g.layers IS NOT NULL AND i.blob_id = b.id
               UNION ALL
               SELECT FROM snapshot_volumes s JOIN layers l ON l.id = s.layer_id JOIN images i ON i.id = s.image_id
               LEFT JOIN pool_hosts h ON h.pool_id = l.pool_id
               WHERE (l.host_id = $1 OR h.host_id = $1) AND i.blob_id = b.id)
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

//! SQL of imports. What controllers call names no caller: the call that began the import has proved its right.

use protocol::{BlobId, ImageId, OperationId, Sha256};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::disks::{self, Disk};
use super::uploads::LIFETIME as UPLOAD_LIFETIME;
use super::{Content, discard_blob, keep_blob, set_blob};
use crate::auth::{Action, Allowed, InProject};
use crate::hosts;
use crate::nudge::{self, Topic};
use crate::operations::store::{self as operations, End};

/// Where the bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::images) enum Origin {
    Url(String),
    /// An upload whose parts are all there.
    Upload(Uuid),
    /// A disk, which its host sends.
    Disk(Disk),
}

pub(in crate::images) struct NewImport<'a> {
    pub operation: OperationId,
    pub image: Uuid,
    pub origin: &'a Origin,
    pub sha256: Option<Sha256>,
    pub now: OffsetDateTime,
}

/// The image, which its caller has locked, is being imported from now on.
pub(in crate::images) async fn insert<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    _allowed: &Allowed<A>,
    new: &NewImport<'_>,
) -> Result<(), sqlx::Error> {
    let (url, upload, disk) = match new.origin {
        Origin::Url(url) => (Some(url.as_str()), None, None),
        Origin::Upload(id) => (None, Some(*id), None),
        Origin::Disk(disk) => (None, None, Some(disk)),
    };
    let revision = match disk {
        Some(disk) => Some(hosts::store::bump_revision(conn, disk.host).await?.0),
        None => None,
    };
    sqlx::query!(
        "INSERT INTO image_imports (operation_id, image_id, url, upload_id, expected_sha256, created_at, not_before,
                                    layer_id, host_id, volume_id, size_gib, base_image_id, desired_revision)
         VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9, $10, $11, $12)",
        new.operation.as_uuid(),
        new.image,
        url,
        upload,
        new.sha256.as_ref().map(|digest| &digest.as_bytes()[..]),
        new.now,
        disk.map(|disk| disk.layer),
        disk.map(|disk| disk.host.as_uuid()),
        disk.map(|disk| disk.volume),
        disk.map(|disk| disk.size_gib),
        disk.and_then(|disk| disk.base_image),
        revision
    )
    .execute(&mut *conn)
    .await?;
    // A sweeper that took it for abandoned looks again.
    sqlx::query!(
        "UPDATE image_uploads SET expires_at = GREATEST(expires_at, $2) WHERE id = $1",
        upload,
        new.now + UPLOAD_LIFETIME
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE images SET import_state = 'importing', failure_code = NULL, failure_detail = NULL,
                import_operation_id = $2, updated_at = $3 WHERE id = $1",
        new.image,
        new.operation.as_uuid(),
        new.now
    )
    .execute(&mut *conn)
    .await?;
    nudge::send(conn, disk.map_or(Topic::Imports, |disk| Topic::Host(disk.host))).await
}

/// Where an attempt gets its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::images) enum Source {
    Url(String),
    Upload(Uuid),
    /// The host sends a disk of at most this size.
    Host {
        size_gib: i32,
    },
}

/// An attempt at an import, which this replica has taken.
#[derive(Debug, Clone)]
pub(in crate::images) struct Claimed {
    pub operation: OperationId,
    pub image: ImageId,
    /// What this attempt fills; also its proof that it has not been overtaken.
    pub blob: BlobId,
    pub source: Source,
    pub format: String,
    pub sha256: Option<Sha256>,
    /// 1 at the first.
    pub attempt: i32,
}

/// An import that can be taken, locked.
pub(super) struct Due {
    pub operation_id: Uuid,
    pub image_id: Uuid,
    pub project_id: Option<Uuid>,
    pub url: Option<String>,
    pub upload_id: Option<Uuid>,
    pub size_gib: Option<i32>,
    pub expected_sha256: Option<Vec<u8>>,
    pub attempts: i32,
    pub blob_id: Option<Uuid>,
    pub lease_until: Option<OffsetDateTime>,
    pub format: String,
}

/// Takes the oldest import that nobody works on, and announces a blob for it. Disks are taken by their hosts.
pub(in crate::images) async fn claim(
    conn: &mut PgConnection,
    blob: BlobId,
    now: OffsetDateTime,
    lease_until: OffsetDateTime,
) -> Result<Option<Claimed>, sqlx::Error> {
    let due = sqlx::query_as!(
        Due,
        "SELECT m.operation_id, m.image_id, i.project_id, m.url, m.upload_id, m.size_gib, m.expected_sha256, m.attempts, m.blob_id,
                m.lease_until, i.format
         FROM image_imports m JOIN images i ON i.id = m.image_id JOIN operations o ON o.id = m.operation_id
         WHERE m.not_before <= $1 AND (m.lease_until IS NULL OR m.lease_until <= $1) AND o.status = 'running'
           AND m.layer_id IS NULL
         ORDER BY m.not_before, m.operation_id LIMIT 1 FOR UPDATE OF m SKIP LOCKED",
        now
    )
    .fetch_optional(&mut *conn)
    .await?;
    match due {
        Some(due) => take(conn, due, blob, now, lease_until).await.map(Some),
        None => Ok(None),
    }
}

/// Begins an attempt with a blob of its own; one before it is over.
pub(super) async fn take(
    conn: &mut PgConnection,
    due: Due,
    blob: BlobId,
    now: OffsetDateTime,
    lease_until: OffsetDateTime,
) -> Result<Claimed, sqlx::Error> {
    if let Some(dead) = due.blob_id {
        discard_blob(conn, dead.into()).await?;
    }
    // The parts of an upload are charged for already.
    let charged = due.project_id.filter(|_| due.upload_id.is_none());
    super::announce_blob(conn, blob, charged, now, lease_until).await?;
    sqlx::query!(
        "UPDATE image_imports SET blob_id = $2, lease_until = $3, attempts = attempts + 1 WHERE operation_id = $1",
        due.operation_id,
        blob.as_uuid(),
        lease_until
    )
    .execute(&mut *conn)
    .await?;
    let source = match (due.url, due.upload_id, due.size_gib) {
        (Some(url), _, _) => Source::Url(url),
        (None, Some(upload), _) => Source::Upload(upload),
        (None, None, Some(size_gib)) => Source::Host { size_gib },
        (None, None, None) => return Err(sqlx::Error::RowNotFound),
    };
    Ok(Claimed {
        operation: due.operation_id.into(),
        image: due.image_id.into(),
        blob,
        source,
        format: due.format,
        sha256: due.expected_sha256.and_then(super::digest),
        attempt: due.attempts + 1,
    })
}

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::images) struct Progress {
    pub bytes: i64,
    pub total_bytes: Option<i64>,
}

/// Says that the attempt lives, and how far it is. False when it has been overtaken or is not wanted any more.
pub(in crate::images) async fn renew(
    conn: &mut PgConnection,
    claimed: &Claimed,
    progress: Progress,
    lease_until: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let wanted =
        operations::set_progress(conn, claimed.operation, progress.bytes, progress.total_bytes).await?;
    let mine = sqlx::query!(
        "UPDATE image_imports SET lease_until = $3 WHERE operation_id = $1 AND blob_id = $2",
        claimed.operation.as_uuid(),
        claimed.blob.as_uuid(),
        lease_until
    )
    .execute(&mut *conn)
    .await?;
    let announced = super::renew_lease(conn, claimed.blob, lease_until).await?;
    Ok(wanted && mine.rows_affected() == 1 && announced)
}

/// How an import ends.
#[derive(Debug)]
pub(in crate::images) enum Ending<'a> {
    Filled(&'a Content),
    Failed { code: &'static str, detail: &'a str },
}

/// Ends an import with its operation. False when it has been overtaken or cancelled: then nothing has changed.
pub(in crate::images) async fn end(
    conn: &mut PgConnection,
    claimed: &Claimed,
    ending: Ending<'_>,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let image = claimed.image.as_uuid();
    if !give_over(conn, claimed.operation, image, Some(claimed.blob), now).await? {
        return Ok(false);
    }
    let end = match ending {
        Ending::Filled(content) => {
            let Some(blob) = keep_blob(conn, claimed.blob, content).await? else { return Ok(false) };
            set_blob(conn, image, blob, now).await?;
            operations::set_progress(conn, claimed.operation, content.size_bytes, Some(content.size_bytes))
                .await?;
            End::Succeeded
        }
        Ending::Failed { code, detail } => {
            discard_blob(conn, claimed.blob).await?;
            fail_image(conn, image, code, detail, now).await?;
            End::Failed { code, detail: Some(detail.to_owned()) }
        }
    };
    operations::finish(conn, claimed.operation, &end, now).await?;
    Ok(true)
}

/// Ends an import that has failed before anybody made an attempt, or whatever becomes of the present one. False when it
/// is over.
pub(in crate::images) async fn fail(
    conn: &mut PgConnection,
    operation: OperationId,
    image: Uuid,
    code: &'static str,
    detail: &str,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    if !give_over(conn, operation, image, None, now).await? {
        return Ok(false);
    }
    fail_image(conn, image, code, detail, now).await?;
    operations::finish(conn, operation, &End::Failed { code, detail: Some(detail.to_owned()) }, now).await?;
    Ok(true)
}

/// Locks the imports of these images, which are locked, with the blobs of their attempts, and then what their projects have
/// used: an attempt that runs locks its blob and charges for that. Letting a disk go locks hosts, which come after that.
async fn lock_quotas(conn: &mut PgConnection, images: &[Uuid]) -> Result<(), sqlx::Error> {
    let blobs = sqlx::query_scalar!(
        "SELECT blob_id FROM image_imports WHERE image_id = ANY($1) ORDER BY operation_id FOR UPDATE",
        images
    )
    .fetch_all(&mut *conn)
    .await?;
    let blobs: Vec<_> = blobs.into_iter().flatten().collect();
    sqlx::query!("SELECT FROM blobs WHERE id = ANY($1) ORDER BY id FOR UPDATE", &blobs)
        .execute(&mut *conn)
        .await?;
    sqlx::query!("SELECT lock_quotas(array_agg(DISTINCT project_id)) FROM images WHERE id = ANY($1)", images)
        .execute(conn)
        .await?;
    Ok(())
}

/// Takes an import away, with operation and image locked, for whoever ends it. False when it is over or, if an attempt
/// is named, that one has been overtaken.
async fn give_over(
    conn: &mut PgConnection,
    operation: OperationId,
    image: Uuid,
    of_attempt: Option<BlobId>,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    if !operations::lock_running(conn, operation).await? {
        return Ok(false);
    }
    sqlx::query!("SELECT FROM images WHERE id = $1 FOR UPDATE", image).execute(&mut *conn).await?;
    lock_quotas(conn, &[image]).await?;
    forget(conn, operation, of_attempt, now).await
}

/// Gives an attempt back, for whoever comes then. It does not count if `counts` is false.
pub(in crate::images) async fn give_back(
    conn: &mut PgConnection,
    claimed: &Claimed,
    not_before: OffsetDateTime,
    counts: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE image_imports SET blob_id = NULL, lease_until = NULL, not_before = $3, attempts = attempts - $4
         WHERE operation_id = $1 AND blob_id = $2",
        claimed.operation.as_uuid(),
        claimed.blob.as_uuid(),
        not_before,
        i32::from(!counts)
    )
    .execute(&mut *conn)
    .await?;
    discard_blob(conn, claimed.blob).await?;
    nudge::send(conn, Topic::Imports).await
}

/// Takes an import back whose operation the caller has locked and ends: the image is as before it.
pub(crate) async fn cancel_import(
    conn: &mut PgConnection,
    operation: OperationId,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let image = sqlx::query_scalar!(
        "SELECT i.id FROM images i JOIN image_imports m ON m.image_id = i.id WHERE m.operation_id = $1
         FOR UPDATE OF i",
        operation.as_uuid()
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(image) = image
        && forget(conn, operation, None, now).await?
    {
        sqlx::query!("UPDATE images SET import_state = NULL, updated_at = $2 WHERE id = $1", image, now)
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Removes the row with what hangs on it: the blob of an attempt, the parts of an upload, the hold on a disk.
async fn forget(
    conn: &mut PgConnection,
    operation: OperationId,
    of_attempt: Option<BlobId>,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let gone = sqlx::query!(
        "DELETE FROM image_imports WHERE operation_id = $1 AND ($2::uuid IS NULL OR blob_id = $2)
         RETURNING blob_id, upload_id, layer_id",
        operation.as_uuid(),
        of_attempt.map(BlobId::as_uuid)
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(gone) = gone else { return Ok(false) };
    if let Some(upload) = gone.upload_id {
        super::uploads::end(conn, upload).await?;
    }
    if let (None, Some(blob)) = (of_attempt, gone.blob_id) {
        discard_blob(conn, blob.into()).await?;
    }
    disks::release(conn, gone.layer_id, now).await?;
    Ok(true)
}

async fn fail_image(
    conn: &mut PgConnection,
    image: Uuid,
    code: &str,
    detail: &str,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE images SET import_state = 'failed', failure_code = $2, failure_detail = $3, updated_at = $4
         WHERE id = $1 AND blob_id IS NULL",
        image,
        code,
        detail,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends imports whose operations have ended, by their deadline, and operations whose images have gone.
pub(in crate::images) async fn settle(pool: &PgPool, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    let mut tx = crate::database::begin(pool).await?;
    let overdue = sqlx::query!(
        "SELECT m.operation_id, m.image_id, m.layer_id FROM image_imports m
         JOIN operations o ON o.id = m.operation_id JOIN images i ON i.id = m.image_id
         WHERE o.status <> 'running' LIMIT 100 FOR UPDATE OF i SKIP LOCKED"
    )
    .fetch_all(&mut *tx)
    .await?;
    let images: Vec<_> = overdue.iter().map(|import| import.image_id).collect();
    lock_quotas(&mut tx, &images).await?;
    for import in overdue {
        if forget(&mut tx, import.operation_id.into(), None, now).await? {
            let detail = match import.layer_id {
                None => "the file was not there in time; try again, or use a source that is faster",
                Some(_) => "its host did not send the disk in time; make another image when the host is well",
            };
            fail_image(&mut tx, import.image_id, "deadline_exceeded", detail, now).await?;
        }
    }
    tx.commit().await?;
    // Another transaction: images are never locked before operations.
    let mut tx = crate::database::begin(pool).await?;
    let orphans = sqlx::query_scalar!(
        "SELECT id FROM operations o WHERE status = 'running' AND kind IN ('import_image', 'finish_image_upload', 'create_image')
         AND NOT EXISTS (SELECT FROM image_imports m WHERE m.operation_id = o.id)
         LIMIT 100 FOR UPDATE SKIP LOCKED"
    )
    .fetch_all(&mut *tx)
    .await?;
    for operation in orphans {
        let end = End::Cancelled { code: "image_deleted", detail: "the image was deleted meanwhile" };
        operations::finish(&mut tx, operation.into(), &end, now).await?;
    }
    tx.commit().await
}

/// Addresses of the cloud itself: of its hosts, and those that it gives out.
pub(in crate::images) async fn own_ranges(conn: &mut PgConnection) -> Result<Vec<ipnet::IpNet>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT host(underlay_address)::inet AS "range!: ipnet::IpNet" FROM hosts WHERE underlay_address IS NOT NULL
           UNION SELECT cidr::inet FROM address_pools"#
    )
    .fetch_all(conn)
    .await
}

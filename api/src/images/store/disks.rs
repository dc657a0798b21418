//! SQL of disks on their way from their hosts into images.

use protocol::agent::{DesiredBody, DesiredObject, ImageSource, VolumeSpec};
use protocol::image::Format;
use protocol::{BlobId, Generation, HostId, LayerId, OperationId, Revision, SizeGib, TransferId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::imports::{Claimed, Due, take};
use crate::auth::{Action, Allowed, InProject};
use crate::http::Selector;
use crate::images::types::Defaults;
use crate::volumes::store::layers;

/// A disk that an image is made of: a layer with everything that it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::images) struct Disk {
    pub layer: Uuid,
    pub host: HostId,
    pub volume: Uuid,
    pub size_gib: i32,
    /// What the lowest layer stands on.
    pub base_image: Option<Uuid>,
}

/// The volume that an instance of the project, which is locked, boots from.
pub(in crate::images) async fn root_of<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    instance: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    let Some(selector) = Selector::parse(instance) else { return Ok(None) };
    sqlx::query_scalar!(
        "SELECT v.id FROM volumes v JOIN instances i ON i.id = v.instance_id
         WHERE i.project_id = $1 AND (i.id = $2 OR i.name = $3) AND v.position = 0",
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// What an image gets that is made of a volume: as in the image that the volume was made from, which may be deleted, and
/// as in the instance that boots from it.
pub(in crate::images) async fn defaults_of_volume(
    conn: &mut PgConnection,
    volume: Uuid,
) -> Result<Defaults, sqlx::Error> {
    sqlx::query_as!(
        Defaults,
        r#"SELECT coalesce(i.architecture, m.architecture, 'x86_64') AS "architecture!",
                  coalesce(i.firmware, m.firmware, 'bios') AS "firmware!",
                  coalesce(m.min_disk_gib, 0) AS "min_disk_gib!", coalesce(m.min_memory_mib, 0) AS "min_memory_mib!",
                  m.default_user
           FROM volumes v LEFT JOIN images m ON m.id = v.image_id
           LEFT JOIN instances i ON i.id = v.instance_id AND v.position = 0
           WHERE v.id = $1"#,
        volume
    )
    .fetch_one(conn)
    .await
}

/// The same for what a snapshot holds of a volume.
pub(in crate::images) async fn defaults_of_snapshot(
    conn: &mut PgConnection,
    snapshot: Uuid,
    position: i32,
) -> Result<Defaults, sqlx::Error> {
    sqlx::query_as!(
        Defaults,
        r#"SELECT coalesce(m.architecture, 'x86_64') AS "architecture!",
                  coalesce(CASE WHEN v.position = 0 THEN s.firmware END, m.firmware, 'bios') AS "firmware!",
                  coalesce(m.min_disk_gib, 0) AS "min_disk_gib!", coalesce(m.min_memory_mib, 0) AS "min_memory_mib!",
                  m.default_user
           FROM snapshot_volumes v JOIN snapshots s ON s.id = v.snapshot_id
           LEFT JOIN images m ON m.id = v.image_id
           WHERE v.snapshot_id = $1 AND v.position = $2"#,
        snapshot,
        position
    )
    .fetch_one(conn)
    .await
}

/// What hosts are ordered to send, newer than the revision. An order is named after its operation.
pub(crate) async fn orders_after(
    conn: &mut PgConnection,
    host: HostId,
    after: Revision,
) -> Result<Vec<DesiredObject>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT m.operation_id, m.volume_id AS "volume_id!", m.size_gib AS "size_gib!",
                  m.desired_revision AS "desired_revision!", chain_of(m.layer_id) AS "layers!",
                  b.sha256 AS "sha256?", b.format AS "format?", b.size_bytes AS "size_bytes?",
                  b.virtual_size_bytes AS "virtual_size_bytes?",
                  (SELECT p.name FROM layers l JOIN pools p ON p.id = l.pool_id WHERE l.id = m.layer_id) AS pool
           FROM image_imports m
           JOIN operations o ON o.id = m.operation_id
           LEFT JOIN images i ON i.id = m.base_image_id
           LEFT JOIN blobs b ON b.id = i.blob_id
           WHERE m.host_id = $1 AND m.desired_revision > $2 AND o.status = 'running'
           ORDER BY m.desired_revision"#,
        host.as_uuid(),
        after.0
    )
    .fetch_all(conn)
    .await?;
    let objects = rows.into_iter().map(|row| {
        let image = row.sha256.and_then(super::digest).zip(row.size_bytes).zip(row.virtual_size_bytes);
        let format = row.format.as_deref().and_then(Format::from_name);
        let image = image.zip(format).map(|(((sha256, size), virtual_size), format)| ImageSource {
            sha256,
            format,
            size_bytes: size.cast_unsigned(),
            virtual_size_bytes: virtual_size.cast_unsigned(),
        });
        let source = VolumeSpec {
            id: row.volume_id.into(),
            generation: Generation(1),
            pool: row.pool.and_then(|name| name.parse().ok()),
            size_gib: SizeGib(row.size_gib.unsigned_abs()),
            image,
            layers: row.layers.into_iter().map(LayerId::from).collect(),
            merges: Vec::new(),
        };
        DesiredObject {
            revision: Revision(row.desired_revision),
            body: DesiredBody::SendImage {
                transfer_id: TransferId::from(row.operation_id),
                source: Box::new(source),
            },
        }
    });
    Ok(objects.collect())
}

/// An order to this host that is not over.
pub(in crate::images) struct Order {
    pub operation: OperationId,
    pub image: Uuid,
}

pub(in crate::images) async fn find_order(
    conn: &mut PgConnection,
    host: HostId,
    id: TransferId,
) -> Result<Option<Order>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT m.operation_id, m.image_id FROM image_imports m JOIN operations o ON o.id = m.operation_id
         WHERE m.operation_id = $1 AND m.host_id = $2 AND o.status = 'running'",
        id.as_uuid(),
        host.as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Order { operation: row.operation_id.into(), image: row.image_id }))
}

/// What a host that wants to send finds.
pub(in crate::images) enum Taken {
    Begun(Box<Claimed>),
    /// Another attempt lasts until then, or for longer.
    Busy(OffsetDateTime),
    /// It was never ordered, or the order is over.
    Gone,
}

/// Begins an attempt at an order.
pub(in crate::images) async fn take_order(
    conn: &mut PgConnection,
    host: HostId,
    id: TransferId,
    blob: BlobId,
    now: OffsetDateTime,
    lease_until: OffsetDateTime,
) -> Result<Taken, sqlx::Error> {
    let due = sqlx::query_as!(
        Due,
        "SELECT m.operation_id, m.image_id, i.project_id, m.url, m.upload_id, m.size_gib, m.expected_sha256, m.attempts, m.blob_id,
                m.lease_until, i.format
         FROM image_imports m JOIN images i ON i.id = m.image_id JOIN operations o ON o.id = m.operation_id
         WHERE m.operation_id = $1 AND m.host_id = $2 AND o.status = 'running' FOR UPDATE OF m",
        id.as_uuid(),
        host.as_uuid()
    )
    .fetch_optional(&mut *conn)
    .await?;
    match due {
        None => Ok(Taken::Gone),
        Some(Due { lease_until: Some(until), .. }) if until > now => Ok(Taken::Busy(until)),
        Some(due) => Ok(Taken::Begun(Box::new(take(conn, due, blob, now, lease_until).await?))),
    }
}

/// The layer of an import that is over is needed by its image no more.
pub(in crate::images) async fn release(
    conn: &mut PgConnection,
    layer: Option<Uuid>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    match layer {
        Some(layer) => layers::give_up(conn, &[layer], now).await,
        None => Ok(()),
    }
}

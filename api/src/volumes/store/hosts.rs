//! SQL of volumes as their host's agent sees them. Every function is scoped to one host or one of its instances.

use protocol::agent::{
    DesiredBody, DesiredObject, Disk, ImageSource, InstanceReport, IoLimits, ObservedState, VolumeReport,
    VolumeSpec, VolumeState,
};
use protocol::image::Format;
use protocol::{
    Generation, HostId, InstanceId, LayerId, Name, OperationId, RemovalId, Revision, Sha256, SizeGib,
    VolumeId,
};
use serde::Deserialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::attachments::release;
use super::layers;
use crate::operations::store::{self as operations, End};
use crate::volumes::AttachmentState;

/// A disk as `instance_disks()` of the database gives it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DiskRow {
    id: VolumeId,
    generation: i64,
    size_gib: u32,
    pool: Option<Name>,
    layers: Vec<LayerId>,
    merges: Vec<LayerId>,
    iops: Option<u64>,
    bytes_per_second: Option<u64>,
    image: Option<ImageRow>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ImageRow {
    sha256: Option<Sha256>,
    format: Option<String>,
    size_bytes: Option<u64>,
    virtual_size_bytes: Option<u64>,
}

impl ImageRow {
    /// `None` when it has no content.
    pub(crate) fn into_source(self) -> Option<ImageSource> {
        Some(ImageSource {
            sha256: self.sha256?,
            format: Format::from_name(&self.format?)?,
            size_bytes: self.size_bytes?,
            virtual_size_bytes: self.virtual_size_bytes?,
        })
    }
}

impl DiskRow {
    /// As its host is told; `None` when its image has no content.
    pub(crate) fn into_disk(self) -> Option<Disk> {
        let image = match self.image {
            None => None,
            Some(image) => Some(image.into_source()?),
        };
        Some(Disk {
            volume: VolumeSpec {
                id: self.id,
                generation: Generation(self.generation),
                pool: self.pool,
                size_gib: SizeGib(self.size_gib),
                image,
                layers: self.layers,
                merges: self.merges,
            },
            limits: IoLimits { iops: self.iops, bytes_per_second: self.bytes_per_second },
        })
    }
}

/// What the host is to remove, newer than the revision.
pub(crate) async fn removals_after(
    conn: &mut PgConnection,
    host: HostId,
    after: Revision,
) -> Result<Vec<DesiredObject>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT id, desired_revision AS "desired_revision!",
                  coalesce(r.copies, ARRAY(SELECT l.id FROM layers l WHERE l.removal_id = r.id ORDER BY l.id)) AS "layers!",
                  (SELECT p.name FROM pools p WHERE p.id = r.pool_id) AS pool
           FROM layer_removals r WHERE host_id = $1 AND desired_revision > $2"#,
        host.as_uuid(),
        after.0
    )
    .fetch_all(conn)
    .await?;
    let objects = rows.into_iter().map(|row| DesiredObject {
        revision: Revision(row.desired_revision),
        body: DesiredBody::RemoveLayers {
            removal_id: row.id.into(),
            layers: row.layers.into_iter().map(LayerId::from).collect(),
            pool: row.pool.and_then(|name| name.parse().ok()),
        },
    });
    Ok(objects.collect())
}

/// Removals that were carried out, locked with the volumes that end with them. Names that the host was never told to
/// remove mean nothing.
pub(crate) async fn lock_removed(
    conn: &mut PgConnection,
    host: HostId,
    removals: &[RemovalId],
) -> Result<Vec<Uuid>, sqlx::Error> {
    if removals.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = removals.iter().map(|id| id.as_uuid()).collect();
    sqlx::query!(
        "SELECT FROM volumes WHERE removal_id = ANY($1) AND (host_id = $2 OR pool_id IS NOT NULL)
         ORDER BY id FOR UPDATE",
        &ids,
        host.as_uuid()
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query_scalar!(
        "SELECT id FROM layer_removals
         WHERE id = ANY($2) AND host_id = $1 AND desired_revision IS NOT NULL ORDER BY id FOR UPDATE",
        host.as_uuid(),
        &ids
    )
    .fetch_all(conn)
    .await
}

/// Their rows go, and with them what they were counted for.
pub(crate) async fn forget(
    conn: &mut PgConnection,
    removed: &[Uuid],
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let operations =
        sqlx::query_scalar!("SELECT operation_id FROM volumes WHERE removal_id = ANY($1)", removed)
            .fetch_all(&mut *conn)
            .await?;
    for operation in operations {
        finish(conn, operation, now).await?;
    }
    layers::forget_removals(conn, removed).await
}

/// A volume of an instance, as far as a report may change it.
struct Known {
    id: Uuid,
    spec_generation: i64,
    attachment_state: String,
    observed_generation: Option<i64>,
    observed_state: Option<String>,
    operation_id: Option<Uuid>,
}

impl Known {
    /// Whether the host has seen the newest of it through.
    fn settled(&self) -> bool {
        AttachmentState::parse(&self.attachment_state) == AttachmentState::Attached
            && self.observed_state.as_deref() == Some(VolumeState::Ready.as_str())
            && self.observed_generation >= Some(self.spec_generation)
    }
}

/// Folds in what a report says of the volumes of its instance, which is locked and asked for at `generation`. Of other
/// volumes the report has nothing to say.
pub(crate) async fn fold(
    conn: &mut PgConnection,
    report: &InstanceReport,
    generation: i64,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let known = sqlx::query_as!(
        Known,
        r#"SELECT id, spec_generation, attachment_state AS "attachment_state!", observed_generation,
                  observed_state, operation_id
           FROM volumes WHERE instance_id = $1 ORDER BY id FOR UPDATE"#,
        report.id.as_uuid()
    )
    .fetch_all(&mut *conn)
    .await?;
    for volume in known {
        // Of what is gone nothing is attached, whatever else the report says.
        let said = report.volumes.iter().find(|one| one.id == VolumeId::from(volume.id));
        let said = said.filter(|_| report.state != ObservedState::Absent);
        let leaving = AttachmentState::parse(&volume.attachment_state) == AttachmentState::Detaching;
        match said {
            Some(said) if said.generation.0 <= volume.spec_generation => {
                set_observed(conn, &volume, said, leaving, now).await?;
            }
            None if leaving && report.generation.0 >= generation => {
                release(conn, &[volume.id], now).await?;
                finish(conn, volume.operation_id, now).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

async fn set_observed(
    conn: &mut PgConnection,
    volume: &Known,
    said: &VolumeReport,
    leaving: bool,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let ready = said.state == VolumeState::Ready && said.generation.0 >= volume.spec_generation;
    let attachment_state = match ready && !leaving {
        true => "attached",
        false => volume.attachment_state.as_str(),
    };
    let same = attachment_state == volume.attachment_state
        && volume.observed_generation == Some(said.generation.0)
        && volume.observed_state.as_deref() == Some(said.state.as_str());
    if same {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE volumes SET attachment_state = $2, observed_generation = $3, observed_state = $4, updated_at = $5
         WHERE id = $1",
        volume.id,
        attachment_state,
        said.generation.0,
        said.state.as_str(),
        now
    )
    .execute(&mut *conn)
    .await?;
    if ready && !leaving && !volume.settled() {
        finish(conn, volume.operation_id, now).await?;
    }
    Ok(())
}

async fn finish(
    conn: &mut PgConnection,
    operation: Option<Uuid>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    match operation {
        Some(operation) => operations::finish(conn, OperationId::from(operation), &End::Succeeded, now).await,
        None => Ok(()),
    }
}

/// Locks the volumes that go to a host with one of these instances, before any host is locked.
pub(crate) async fn lock_unplaced(
    conn: &mut PgConnection,
    instances: &[InstanceId],
) -> Result<(), sqlx::Error> {
    let ids: Vec<_> = instances.iter().map(|id| id.as_uuid()).collect();
    sqlx::query!(
        "SELECT FROM volumes WHERE layer_id IN (SELECT layers_to_place(i) FROM unnest($1::uuid[]) i)
         ORDER BY id FOR UPDATE",
        &ids
    )
    .execute(conn)
    .await?;
    Ok(())
}

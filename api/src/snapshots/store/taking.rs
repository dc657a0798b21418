//! SQL of taking a snapshot: one transaction that seals layers and puts new ones over them.

use protocol::{HostId, LayerId, OperationId, ProjectId, SnapshotId};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::model::{Consistency, MAX_CHAIN, taken_within};
use super::broken;
use crate::clock::Clock;
use crate::http::{ApiError, ErrorCode, Labels, Selector};
use crate::instances::store::guests::{self, Activity, Guest};
use crate::volumes::AttachmentState;
use crate::volumes::store::layers;

/// What a snapshot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Volume(Uuid),
    Instance(Uuid),
}

/// A snapshot that is about to be taken.
pub(crate) struct New<'a> {
    pub id: SnapshotId,
    pub project: ProjectId,
    pub name: &'a str,
    pub description: &'a str,
    pub labels: &'a Labels,
    pub consistency: Consistency,
    /// Whether it has the memory of the guest, too.
    pub memory: bool,
    pub source: Source,
    pub now: OffsetDateTime,
}

/// Locks an instance of a project that is named before anything is decided, so it tells nothing but which.
pub(crate) async fn lock_instance(
    conn: &mut PgConnection,
    project: &str,
    instance: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    let (Some(project), Some(instance)) = (Selector::parse(project), Selector::parse(instance)) else {
        return Ok(None);
    };
    sqlx::query_scalar!(
        "SELECT i.id FROM instances i JOIN projects p ON p.id = i.project_id
         WHERE (p.id = $1 OR p.name = $2) AND (i.id = $3 OR i.name = $4) FOR UPDATE OF i",
        project.id(),
        project.name(),
        instance.id(),
        instance.name()
    )
    .fetch_optional(conn)
    .await
}

/// A volume that is taken, locked.
pub(super) struct Taken {
    pub id: Uuid,
    name: String,
    pub size_gib: i32,
    pub image_id: Option<Uuid>,
    pub position: Option<i32>,
    instance_id: Option<Uuid>,
    attachment_state: Option<String>,
    deleting: bool,
    pub layer_id: Uuid,
    layers: i32,
}

pub(super) async fn volumes(conn: &mut PgConnection, source: Source) -> Result<Vec<Taken>, sqlx::Error> {
    let (volume, instance) = match source {
        Source::Volume(volume) => (Some(volume), None),
        Source::Instance(instance) => (None, Some(instance)),
    };
    sqlx::query_as!(
        Taken,
        r#"SELECT id, name, size_gib, image_id, position, instance_id, attachment_state,
                  removal_id IS NOT NULL AS "deleting!", layer_id, cardinality(chain_of(layer_id)) AS "layers!"
           FROM volumes
           WHERE id = $1 OR instance_id = $2 AND attachment_state <> 'detaching' AND position >= 0
           ORDER BY id FOR UPDATE"#,
        volume,
        instance
    )
    .fetch_all(conn)
    .await
}

impl Taken {
    pub(super) fn check(&self) -> Result<(), ApiError> {
        let leaving =
            self.attachment_state.as_deref().map(AttachmentState::parse) == Some(AttachmentState::Detaching);
        let why = if self.deleting {
            "is being deleted"
        } else if leaving {
            "is being detached; wait until its guest has let go of it"
        } else if usize::try_from(self.layers).is_ok_and(|layers| layers > MAX_CHAIN) {
            "has as many snapshots as its chain takes; delete some, and wait until its host has merged them"
        } else {
            return Ok(());
        };
        Err(ApiError::because(ErrorCode::WrongState, format!("the volume {} {why}", self.name)))
    }
}

/// Refuses when a snapshot of the instance is being taken.
pub(crate) async fn refuse_taking(conn: &mut PgConnection, instance: Uuid) -> Result<(), ApiError> {
    let taking = sqlx::query_scalar!("SELECT name FROM snapshots WHERE taking_instance_id = $1", instance)
        .fetch_optional(conn)
        .await?;
    let Some(name) = taking else { return Ok(()) };
    let detail = format!("the snapshot {name} is being taken; try again when it is there, or delete it");
    Err(ApiError::because(ErrorCode::WrongState, detail).retry_after(2))
}

/// Refuses to change disks of a guest that does not run while it is not certain that it does not.
pub(crate) fn check_guest(guest: &Guest, consistency: Consistency) -> Result<(), ApiError> {
    if guest.deleting {
        let detail = format!("the instance {} is being deleted", guest.name);
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    if consistency == Consistency::Filesystem && guest.activity == Activity::Unclear {
        let detail = format!(
            "the guest of {} is on its way up or down, or stands still, and can freeze nothing; try again when it runs or \
             has stopped",
            guest.name
        );
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    Ok(())
}

/// Takes a snapshot of what is locked, with its instance. True when a host has to act before it is there: then somebody
/// has to say which operation tells of that.
pub(crate) async fn take(conn: &mut PgConnection, new: &New<'_>, clock: &Clock) -> Result<bool, ApiError> {
    let taken = volumes(conn, new.source).await?;
    let instance = match new.source {
        Source::Instance(instance) => Some(instance),
        Source::Volume(_) => taken.first().and_then(|volume| volume.instance_id),
    };
    let guest = match instance {
        Some(instance) => {
            refuse_taking(conn, instance).await?;
            Some(guests::find(conn, instance).await?)
        }
        None => None,
    };
    if let Some(guest) = &guest {
        check_guest(guest, new.consistency)?;
    }
    if taken.is_empty() {
        let detail = "it has no volume; attach one first";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    taken.iter().try_for_each(Taken::check)?;
    if new.memory {
        check_memory(guest.as_ref())?;
    }
    let taking = guest.as_ref().filter(|guest| guest.activity != Activity::Off);
    insert(conn, new, taking).await?;
    for volume in &taken {
        add(conn, new, volume, clock).await?;
    }
    if let Some(guest) = taking.filter(|_| new.memory) {
        add_memory(conn, new, guest.id, clock).await?;
    }
    if let Some(guest) = &guest {
        guests::renew(conn, guest.id, new.now).await?;
    }
    Ok(taking.is_some())
}

/// Refuses to keep the memory of a guest that does not run.
fn check_memory(guest: Option<&Guest>) -> Result<(), ApiError> {
    match guest {
        Some(guest) if guest.activity != Activity::Running => {
            let detail = format!(
                "the guest of {} does not run, or stands still: there is no memory to keep; leave `memory` out, or try again \
                 when it runs",
                guest.name
            );
            Err(ApiError::because(ErrorCode::WrongState, detail))
        }
        _ => Ok(()),
    }
}

/// The memory of the guest gets a file where the volume is that the instance boots from. Comes last: hosts and pools are
/// locked after layers.
async fn add_memory(
    conn: &mut PgConnection,
    new: &New<'_>,
    instance: Uuid,
    clock: &Clock,
) -> Result<(), ApiError> {
    let memory: LayerId = clock.new_id();
    let inserted = sqlx::query!(
        "INSERT INTO layers (id, host_id, pool_id, sealed, memory_gib, created_at)
         SELECT $2, CASE WHEN v.pool_id IS NULL THEN i.host_id END, v.pool_id, true, (i.memory_mib + 1023) / 1024, $3
         FROM instances i LEFT JOIN volumes v ON v.instance_id = i.id AND v.position = 0 WHERE i.id = $1",
        instance,
        memory.as_uuid(),
        new.now
    )
    .execute(&mut *conn)
    .await;
    inserted.map_err(broken)?;
    sqlx::query!(
        "UPDATE snapshots s SET with_memory = true, memory_id = l.id, memory_gib = l.memory_gib,
                                hardware = instance_hardware($3)
         FROM layers l WHERE s.id = $1 AND l.id = $2",
        new.id.as_uuid(),
        memory.as_uuid(),
        instance
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert(conn: &mut PgConnection, new: &New<'_>, taking: Option<&Guest>) -> Result<(), ApiError> {
    let instance = match new.source {
        Source::Instance(instance) => Some(instance),
        Source::Volume(_) => None,
    };
    let within = taking.and_then(|guest| taken_within(new.consistency, new.memory, guest.memory_mib));
    let inserted = sqlx::query!(
        "INSERT INTO snapshots (id, project_id, name, description, labels, state, consistency, taken_at,
                                taking_instance_id, taking_boot, due_at, created_at, updated_at,
                                instance_id, instance_name, instance_type_id, instance_type_name, image_id, firmware)
         SELECT $1, $2, $3, $4, $5, CASE WHEN $6::uuid IS NULL THEN 'available' ELSE 'creating' END, $7,
                CASE WHEN $6::uuid IS NULL THEN $10::timestamptz END, $6, $8, $9, $10, $10,
                i.id, i.name, t.id, t.name, i.image_id, i.firmware
         FROM (SELECT) one
         LEFT JOIN instances i ON i.id = $11
         LEFT JOIN instance_types t ON t.id = i.instance_type_id",
        new.id.as_uuid(),
        new.project.as_uuid(),
        new.name,
        new.description,
        Json(new.labels) as _,
        taking.map(|guest| guest.id),
        new.consistency.as_str(),
        taking.map(|guest| guest.boot),
        within.map(|within| new.now + within),
        new.now,
        instance
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(broken)
}

async fn add(
    conn: &mut PgConnection,
    new: &New<'_>,
    volume: &Taken,
    clock: &Clock,
) -> Result<(), sqlx::Error> {
    let above: LayerId = clock.new_id();
    let layer = layers::cover(conn, volume.id, above, new.now).await?;
    let position = match new.source {
        Source::Instance(_) => volume.position.unwrap_or_default(),
        Source::Volume(_) => 0,
    };
    sqlx::query!(
        "INSERT INTO snapshot_volumes (snapshot_id, position, volume_id, volume_name, size_gib, image_id, layer_id,
                                       spec_generation)
         SELECT $1, $2, v.id, $4, $5, $6, $7, v.spec_generation FROM volumes v WHERE v.id = $3",
        new.id.as_uuid(),
        position,
        volume.id,
        volume.name,
        volume.size_gib,
        volume.image_id,
        layer
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Says which operation is over when the snapshot is there.
pub(crate) async fn set_operation(
    conn: &mut PgConnection,
    snapshot: SnapshotId,
    operation: OperationId,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE snapshots SET operation_id = $2 WHERE id = $1",
        snapshot.as_uuid(),
        operation.as_uuid()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Seals what a volume has written until now, for another one that begins with it. The volume is locked with its
/// instance, whose guest must not run.
pub(crate) async fn seal(
    conn: &mut PgConnection,
    volume: Uuid,
    clock: &Clock,
    now: OffsetDateTime,
) -> Result<Sealed, ApiError> {
    let mut taken = volumes(conn, Source::Volume(volume)).await?;
    let taken = taken.pop().ok_or_else(ApiError::not_found)?;
    taken.check()?;
    if let Some(instance) = taken.instance_id {
        refuse_taking(conn, instance).await?;
        let guest = guests::find(conn, instance).await?;
        if guest.activity != Activity::Off {
            let detail = format!(
                "the instance {} may be writing to it; {}, or take a snapshot of the volume and use that",
                guest.name,
                guest.until_off()
            );
            return Err(ApiError::because(ErrorCode::WrongState, detail));
        }
    }
    layers::refuse_merging(conn, taken.layer_id, None).await?;
    let layer = layers::cover(conn, volume, clock.new_id(), now).await?;
    if let Some(instance) = taken.instance_id {
        guests::renew(conn, instance, now).await?;
    }
    let place =
        sqlx::query!("SELECT host_id, pool_id FROM layers WHERE id = $1", layer).fetch_one(conn).await?;
    Ok(Sealed {
        layer,
        host: place.host_id.map(HostId::from),
        pool: place.pool_id,
        size_gib: taken.size_gib,
        image: taken.image_id,
    })
}

/// Data to which nobody writes, for volumes that begin with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealed {
    pub layer: Uuid,
    /// Where it is, if it is anywhere.
    pub host: Option<HostId>,
    /// The shared pool that it is in.
    pub pool: Option<Uuid>,
    pub size_gib: i32,
    /// What its lowest layer stands on.
    pub image: Option<Uuid>,
}

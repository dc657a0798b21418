//! The disk that an image is made of: found, and kept as it is from now on.

use protocol::HostId;
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::store::disks::{self, Disk};
use super::super::types::{Defaults, ImageFrom};
use crate::app::App;
use crate::auth::{New, actions};
use crate::hosts::UNREACHABLE_AFTER;
use crate::http::{ApiError, Entry, ErrorCode, FieldError, Mutation};
use crate::pools::store::orders;
use crate::snapshots;
use crate::snapshots::store::{taking, using};
use crate::volumes;

type Change = Mutation<actions::CreateImage>;

/// A disk of which the caller may make an image, locked.
pub(super) enum Found {
    Volume(Uuid),
    /// What a snapshot holds of a volume, which may be gone.
    Snapshot {
        id: Uuid,
        position: i32,
        volume: Option<Uuid>,
    },
}

/// Finds the disk that the body names, and asks for the rights that it takes.
pub(super) async fn find(
    mut entry: Entry<'_>,
    project: &str,
    place: New<'_>,
    from: &ImageFrom,
) -> Result<(Change, Found), ApiError> {
    let locked = match (&from.snapshot, &from.volume) {
        // Instances are locked before volumes.
        (None, Some(volume)) => volumes::store::lock_instance_of(entry.conn(), project, volume).await?,
        _ => None,
    };
    let change = entry.decide::<actions::CreateImage>((project, place)).await?;
    match (&from.snapshot, &from.volume, &from.instance) {
        (Some(snapshot), volume, _) => by_snapshot(change, project, snapshot, volume.as_deref()).await,
        (None, Some(volume), _) => by_volume(change, project, volume, locked).await,
        (None, None, instance) => by_instance(change, project, instance.as_deref().unwrap_or_default()).await,
    }
}

async fn by_snapshot(
    change: Change,
    project: &str,
    name: &str,
    volume: Option<&str>,
) -> Result<(Change, Found), ApiError> {
    let held = snapshots::hold::<actions::ExportSnapshot, _>(change, project, name, "/source/snapshot");
    let (change, row) = held.await?;
    let root = row.volumes.iter().find(|one| volume.is_none() && one.position == 0);
    let shown = match root {
        Some(root) => root,
        None => using::choose(&row, volume, "/source/volume")?,
    };
    let found = Found::Snapshot { id: row.id, position: shown.position, volume: shown.id };
    Ok((change, found))
}

async fn by_volume(
    change: Change,
    project: &str,
    name: &str,
    locked: Option<Uuid>,
) -> Result<(Change, Found), ApiError> {
    let missing = || missing("/source/volume", "this project has no such volume");
    let mut change = change.also::<actions::ExportVolume>((project, name), missing).await?;
    let (conn, allowed) = change.parts();
    let volume = volumes::store::identify(conn, allowed, name).await?.ok_or_else(missing)?;
    if volume.instance_id != locked {
        // Attached or detached a moment ago.
        return Err(ApiError::new(ErrorCode::Busy).retry_after(1));
    }
    Ok((change, Found::Volume(volume.id)))
}

/// The volume that an instance boots from.
async fn by_instance(change: Change, project: &str, name: &str) -> Result<(Change, Found), ApiError> {
    let missing = || missing("/source/instance", "this project has no such instance");
    // This locks the instance.
    let mut change = change.also::<actions::ExportInstance>((project, name), missing).await?;
    let (conn, allowed) = change.parts();
    let root = disks::root_of(conn, allowed, name).await?.ok_or_else(|| {
        ApiError::because(ErrorCode::WrongState, "it has no volume that it boots from; name a volume")
    })?;
    Ok((change, Found::Volume(root)))
}

fn missing(pointer: &str, message: &str) -> ApiError {
    ApiError::invalid(vec![FieldError::new(pointer, "not_found", message)])
}

impl Found {
    /// What the image gets that is not given.
    pub(super) async fn defaults(&self, conn: &mut PgConnection) -> Result<Defaults, sqlx::Error> {
        match self {
            Self::Volume(volume) => disks::defaults_of_volume(conn, *volume).await,
            Self::Snapshot { id, position, .. } => disks::defaults_of_snapshot(conn, *id, *position).await,
        }
    }

    /// Seals what was written until now: whoever starts a guest with the disk writes to a new layer over it.
    pub(super) async fn seal(self, app: &App, conn: &mut PgConnection) -> Result<Disk, ApiError> {
        let clock = &app.clock;
        let (sealed, volume) = match self {
            Self::Volume(volume) => (taking::seal(conn, volume, clock, clock.now()).await?, Some(volume)),
            Self::Snapshot { id, position, volume } => {
                (using::sealed(conn, id, position, None).await?, volume)
            }
        };
        let host = match sealed.pool {
            Some(pool) => {
                let host = orders::host_for(conn, pool, clock.now() - UNREACHABLE_AFTER).await?;
                host.map(HostId::from).ok_or("no host has the pool of the disk now; try again later")
            }
            None => sealed.host.ok_or(
                "the disk has no data yet: no instance with it has come to a host; start one, or use the image that it \
                 is made from",
            ),
        };
        let host = host.map_err(|detail| ApiError::because(ErrorCode::WrongState, detail))?;
        let size_gib = sealed.size_gib;
        // A name for a volume that is gone.
        let volume = volume.unwrap_or(sealed.layer);
        Ok(Disk { layer: sealed.layer, host, volume, size_gib, base_image: sealed.image })
    }
}

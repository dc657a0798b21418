//! The disk that an image is made of: found, and kept as it is from now on.

use protocol::LayerId;
use protocol::agent::MAX_LAYERS;
use uuid::Uuid;

use super::super::store;
use super::super::store::disks::Disk;
use super::super::types::{Defaults, ImageFrom};
use crate::app::App;
use crate::auth::{New, actions};
use crate::hosts::UNREACHABLE_AFTER;
use crate::http::{ApiError, Entry, ErrorCode, FieldError, Mutation, Selector};
use crate::instances::rest;
use crate::pools::store::orders;
use crate::volumes::store::exports::{self, Exported};
use crate::volumes::store::{layers, lock_instance_of};

/// What an image is made of.
pub(super) struct Source {
    pub disk: Disk,
    pub defaults: Defaults,
    /// The instance whose disks have one layer more, for its host to hear.
    pub renewed: Option<Uuid>,
}

/// Finds the disk that the body names and asks for the rights to make an image of it. The layer with its data gets a new
/// one over it, so that whoever starts a guest with it writes to that.
pub(super) async fn take(
    app: &App,
    mut entry: Entry<'_>,
    project: &str,
    place: New<'_>,
    from: &ImageFrom,
) -> Result<(Mutation<actions::CreateImage>, Source), ApiError> {
    let of_volume = match &from.volume {
        // Instances are locked before volumes.
        Some(volume) => lock_instance_of(entry.conn(), project, volume).await?,
        None => None,
    };
    let change = entry.decide::<actions::CreateImage>((project, place)).await?;
    let (mut change, volume) = match (&from.volume, &from.instance) {
        (Some(volume), _) => by_volume(change, project, volume, of_volume).await?,
        (None, instance) => by_instance(change, project, instance.as_deref().unwrap_or_default()).await?,
    };
    let now = change.now;
    let (conn, allowed) = change.parts();
    let rest = match volume.instance_id {
        Some(instance) => Some(rest::require(conn, allowed, instance).await?),
        None => None,
    };
    let host = match volume.pool_id {
        Some(pool) => orders::host_for(conn, pool, now - UNREACHABLE_AFTER).await?,
        None => volume.host_id,
    };
    let host = check(&volume, host)?;
    let mut defaults = match volume.image_id {
        Some(image) => store::defaults_of(conn, image).await?,
        None => Defaults::default(),
    };
    if let Some(rest) = rest.filter(|_| volume.position == Some(0)) {
        (defaults.architecture, defaults.firmware) = (rest.architecture, rest.firmware);
    }
    let new: LayerId = app.clock.new_id();
    let disk = Disk {
        layer: layers::cover(conn, volume.id, new, now).await?,
        host: host.into(),
        volume: volume.id,
        size_gib: volume.size_gib,
        base_image: volume.image_id,
    };
    Ok((change, Source { disk, defaults, renewed: volume.instance_id }))
}

type Found = (Mutation<actions::CreateImage>, Exported);

async fn by_volume(
    change: Mutation<actions::CreateImage>,
    project: &str,
    name: &str,
    of_instance: Option<Uuid>,
) -> Result<Found, ApiError> {
    let missing = || missing("/source/volume", "this project has no such volume");
    let mut change = change.also::<actions::ExportVolume>((project, name), missing).await?;
    let selector = Selector::parse(name).ok_or_else(missing)?;
    let (conn, allowed) = change.parts();
    let volume = exports::lock(conn, allowed, &selector).await?.ok_or_else(missing)?;
    if volume.instance_id != of_instance {
        // Attached or detached a moment ago.
        return Err(ApiError::new(ErrorCode::Busy).retry_after(1));
    }
    Ok((change, volume))
}

/// The volume that an instance boots from.
async fn by_instance(
    change: Mutation<actions::CreateImage>,
    project: &str,
    name: &str,
) -> Result<Found, ApiError> {
    let missing = || missing("/source/instance", "this project has no such instance");
    // This locks the instance.
    let mut change = change.also::<actions::ExportInstance>((project, name), missing).await?;
    let selector = Selector::parse(name).ok_or_else(missing)?;
    let (conn, allowed) = change.parts();
    let volume = exports::lock_root(conn, allowed, &selector).await?.ok_or_else(|| {
        ApiError::because(ErrorCode::WrongState, "it has no volume that it boots from; name a volume")
    })?;
    Ok((change, volume))
}

fn missing(pointer: &str, message: &str) -> ApiError {
    ApiError::invalid(vec![FieldError::new(pointer, "not_found", message)])
}

/// Refuses a volume of which no image can be made now; gives the host of its data, or one that reaches them.
fn check(volume: &Exported, host: Option<Uuid>) -> Result<Uuid, ApiError> {
    let wrong = |detail: String| ApiError::because(ErrorCode::WrongState, detail);
    if volume.deletion_requested {
        return Err(wrong(format!("the volume {} is being deleted", volume.name)));
    }
    if volume.is_detaching {
        let detail = format!("the volume {} is being detached; wait until its guest has let go", volume.name);
        return Err(ApiError::because(ErrorCode::InUse, detail));
    }
    if usize::try_from(volume.layers).unwrap_or(usize::MAX) >= MAX_LAYERS {
        let detail = format!(
            "the data of the volume {} is in {MAX_LAYERS} layers, the most that there are; run an instance with it for \
             a while, so that its host merges them, then try again",
            volume.name
        );
        return Err(wrong(detail));
    }
    host.ok_or_else(|| {
        if volume.pool_id.is_some() {
            return wrong(format!("no host has the pool of the volume {} now; try again later", volume.name));
        }
        let detail = format!(
            "the volume {} has no data yet: no instance with it has come to a host; start one, or use the image that \
             the volume is made from",
            volume.name
        );
        wrong(detail)
    })
}

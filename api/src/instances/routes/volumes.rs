//! Plugging volumes in and pulling them out, also while the guest runs.

use axum::extract::State;
use axum::response::Response;
use protocol::HostId;
use protocol::agent::{DiskBus, Power};
use sqlx::PgConnection;

use super::super::model::{InstanceState, shown};
use super::super::recovery;
use super::super::store::{Row, departures, rebuilding, system_of};
use super::super::types::{AttachVolume, DetachVolume, Instance};
use super::power::next_intent;
use super::{accept, as_new, change_intent, lock, refuse_deleting};
use crate::app::App;
use crate::auth::actions;
use crate::hosts;
use crate::http::{ApiError, Call, ErrorCode, FieldError, Mutation, MutationQuery, Path, Selector};
use crate::instance_types;
use crate::operations::store::{End, finish};
use crate::snapshots::store::taking::refuse_taking;
use crate::volumes::AttachmentState;
use crate::volumes::disks::{self, Prepared, Wanted, WantedDisk};
use crate::volumes::store::{attachments, set_operation};

/// Give an instance a volume that is attached to nothing. A running guest finds it at once; one of a type with the
/// `disk_bus` `sata` has to be stopped. One to boot from, with `root`, needs `compute:CreateInstance` for an instance from
/// that volume, too.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/attach_volume", tag = "instances",
    params(MutationQuery), request_body = AttachVolume, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn attach_volume(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: AttachVolume = call.json()?;
    let mut change = call.changing::<actions::AttachVolume>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    if body.root {
        refuse_second_root(&row)?;
    }
    refuse_unpluggable(change.conn(), &row).await?;
    let wanted = Wanted {
        what: WantedDisk::Existing(&body.volume),
        position: body.root.then_some(0),
        delete_with_instance: body.delete_with_instance,
        pointer: String::new(),
    };
    let (mut change, prepared) = disks::prepare(change, &project, vec![wanted]).await?;
    if body.root {
        change = boot_from(change, &project, &row, &prepared, &body.volume).await?;
    }
    let now = change.now;
    let (conn, allowed) = change.parts();
    let attached = disks::attach(conn, allowed, &prepared, row.id.into(), &app.clock, now).await?;
    recovery::refuse_another_local(conn, &row).await?;
    let next = next_intent(&app, &call, &change, &row);
    let (conn, allowed) = change.parts();
    change_intent(conn, allowed, &row, "attach_volume", &next).await?;
    for volume in attached {
        set_operation(conn, volume, next.operation_id).await?;
    }
    accept(&app, change, row.id).await
}

/// The instance becomes one with the system on this volume, if the caller may make such a one.
async fn boot_from(
    change: Mutation<actions::AttachVolume>,
    project: &str,
    row: &Row,
    prepared: &Prepared,
    volume: &str,
) -> Result<Mutation<actions::AttachVolume>, ApiError> {
    let (image, architecture) = prepared.boot_image()?;
    let volume = Selector::parse(volume).ok_or_else(ApiError::not_found)?;
    let mut change = as_new::ask_with_root(change, project, row, &volume).await?;
    if architecture != row.architecture {
        let message =
            format!("the volume's system is for {architecture}, the instance for {}", row.architecture);
        return Err(ApiError::invalid(vec![FieldError::new("/volume", "architecture", message)]));
    }
    let system = system_of(change.conn(), image).await?;
    rebuilding::set_system(change.conn(), row.id, &system).await?;
    Ok(change)
}

/// What an instance boots from is decided while it does not run.
fn refuse_second_root(row: &Row) -> Result<(), ApiError> {
    if row.volumes.iter().any(|volume| volume.position == 0) {
        let detail = "it has a volume to boot from; detach that one first";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    refuse_running(row)
}

pub(super) fn refuse_running(row: &Row) -> Result<(), ApiError> {
    if is_stopped(row) {
        return Ok(());
    }
    let detail =
        "the volume that an instance boots from comes and goes only while it is stopped; stop it first";
    Err(ApiError::because(ErrorCode::WrongState, detail))
}

fn is_stopped(row: &Row) -> bool {
    let (state, _) = shown(&row.intent(), row.observed().as_ref(), true, false);
    row.intent().power == Power::Stopped && matches!(state, InstanceState::Stopped | InstanceState::Pending)
}

/// Nothing is plugged into SATA or pulled out of it while the guest runs.
async fn refuse_unpluggable(conn: &mut PgConnection, row: &Row) -> Result<(), ApiError> {
    if is_stopped(row) || row.host_id.is_none() {
        return Ok(());
    }
    let of_it = instance_types::find(conn, &Selector::Id(row.instance_type_id)).await?;
    if of_it.is_none_or(|of_it| of_it.hardware.disk_bus != DiskBus::Sata) {
        return Ok(());
    }
    let detail = format!(
        "its type {} has its disks on SATA, where volumes come and go only while it is stopped; stop it first",
        row.instance_type_name
    );
    Err(ApiError::because(ErrorCode::WrongState, detail))
}

/// Take a volume away from an instance. It may be attached elsewhere as soon as its guest has let go of it. An instance of
/// a type with the `disk_bus` `sata` has to be stopped.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/detach_volume", tag = "instances",
    params(MutationQuery), request_body = DetachVolume, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn detach_volume(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: DetachVolume = call.json()?;
    let mut change = call.changing::<actions::DetachVolume>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    let (conn, allowed) = change.parts();
    let volume = attachments::find_attached(conn, allowed, row.id, &body.volume).await?;
    if volume.position < 0 {
        let detail = "it is rescued from this volume; unrescue it instead";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    let mut change =
        change.also::<actions::ReturnVolume>((&project, &body.volume), ApiError::not_found).await?;
    if volume.state == AttachmentState::Detaching {
        // Asking twice is asking once.
        return accept(&app, change, row.id).await;
    }
    let lost = match row.host_id.map(HostId::from).filter(|_| volume.shared) {
        Some(host) => hosts::store::is_declared_dead(change.conn(), host).await?,
        None => false,
    };
    if volume.position == 0 && !lost {
        refuse_running(&row)?;
    }
    if !lost {
        refuse_unpluggable(change.conn(), &row).await?;
    }
    refuse_taking(change.conn(), row.id).await?;
    let next = next_intent(&app, &call, &change, &row);
    let (conn, allowed) = change.parts();
    change_intent(conn, allowed, &row, "detach_volume", &next).await?;
    set_operation(conn, volume.id, next.operation_id).await?;
    if row.host_id.is_some() && !lost {
        attachments::leave(conn, volume.id, next.now).await?;
    } else {
        // No host has it, or the one that had it is dead: that one hears of it before it starts its guest again.
        departures::forget_volumes(conn, row.id).await?;
        attachments::release(conn, &[volume.id], next.now).await?;
        finish(conn, next.operation_id, &End::Succeeded, next.now).await?;
    }
    accept(&app, change, row.id).await
}

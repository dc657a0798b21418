//! Making the root disk of an instance anew, and booting it from another one for a while.

use axum::extract::State;
use axum::response::Response;
use protocol::agent::Power;
use sqlx::PgConnection;

use super::super::custom_size::{CustomSize, SizedType};
use super::super::fit::misfits;
use super::super::model::InstanceState;
use super::super::recovery;
use super::super::store::{self, NewIntent, Row, System, rebuilding};
use super::super::types::{Instance, RebuildInstance, RescueInstance, StopInstance};
use super::super::verbs::{refuse_deleting, state_of};
use super::power::next_intent;
use super::{accept, as_new, change_intent, lock};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, ErrorCode, FieldError, MutationQuery, Path, Selector};
use crate::images::{self, ImageRow};
use crate::instance_types;
use crate::snapshots::store::taking::refuse_taking;
use crate::volumes::disks::{self, MAX_DISKS, NewDisk, Wanted, WantedDisk};
use crate::volumes::gib_for;

/// Make the disk that an instance boots from anew from an image. Its id, ports, addresses and other volumes stay, and
/// cloud-init sets it up as on its first boot. What was on the disk is lost at once, unless a snapshot holds it. One that
/// runs is shut down and started again. Needs `compute:CreateInstance` for an instance from that image, too.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/rebuild", tag = "instances",
    params(MutationQuery), request_body = RebuildInstance, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn rebuild_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: RebuildInstance = call.json()?;
    ApiError::reject(body.validate())?;
    let mut change = call.changing::<actions::RebuildInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    check(&row)?;
    let present = row.image_id.to_string();
    let (conn, allowed) = change.parts();
    let image = hold(conn, allowed.project(), body.image.as_deref().unwrap_or(&present)).await?;
    let mut change = as_new::ask(change, &project, &row, Some(&image), None).await?;
    let (now, layer) = (change.now, app.clock.new_id());
    let conn = change.conn();
    refuse_taking(conn, row.id).await?;
    let root = rebuilding::lock_root(conn, row.id).await?;
    let sized = size_of(conn, &row).await?;
    if root.size_gib < least_gib(&image)? {
        let message = format!(
            "it needs a disk of {} GiB, and the volume {} has {}; grow that first",
            least_gib(&image)?,
            root.name,
            root.size_gib
        );
        return Err(ApiError::invalid(vec![FieldError::new("/image", "disk_too_small", message)]));
    }
    let size = root.size_gib.max(sized.instance_type.root_disk_gib);
    ApiError::reject(misfits(conn, &image, &sized, Some(size)).await?)?;
    let system =
        System { image_id: image.id, image_name: image.name.clone(), firmware: image.firmware.clone() };
    rebuilding::rebuild(conn, row.id, &root, &system, layer, now).await?;
    let next = with_boot(next_intent(&app, &call, &change, &row), &row, false, &body.stop());
    let (conn, allowed) = change.parts();
    change_intent(conn, allowed, &row, "rebuild_instance", &next).await?;
    accept(&app, change, row.id).await
}

/// Boot an instance from another image, to repair it: its own disks come after the one that is made for this. It runs
/// like that until `unrescue`. Needs `compute:CreateInstance` for an instance from that image, too.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/rescue", tag = "instances",
    params(MutationQuery), request_body = RescueInstance, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn rescue_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: RescueInstance = call.json()?;
    ApiError::reject(body.validate())?;
    let mut change = call.changing::<actions::RescueInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    check(&row)?;
    if row.volumes.len() >= MAX_DISKS {
        let detail = format!("it has {MAX_DISKS} volumes, and a rescue takes one more; detach one first");
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    let (conn, allowed) = change.parts();
    let image = hold(conn, allowed.project(), &body.image).await?;
    let size_gib = least_gib(&image)?;
    let mut change = as_new::ask(change, &project, &row, Some(&image), None).await?;
    let conn = change.conn();
    refuse_taking(conn, row.id).await?;
    let sized = size_of(conn, &row).await?;
    let size = size_gib.max(sized.instance_type.root_disk_gib);
    ApiError::reject(misfits(conn, &image, &sized, Some(size)).await?)?;
    if image.firmware != row.firmware {
        let message = format!("the image boots with {}, the instance with {}", image.firmware, row.firmware);
        return Err(ApiError::invalid(vec![FieldError::new("/image", "firmware", message)]));
    }
    let disk = NewDisk {
        name: None,
        of: None,
        size_gib,
        image: Some(image.id),
        below: None,
        pool: None,
        ask: false,
    };
    let wanted = Wanted {
        what: WantedDisk::New(disk),
        position: Some(-1),
        delete_with_instance: true,
        pointer: "/image".to_owned(),
    };
    let (mut change, prepared) = disks::prepare(change, &project, vec![wanted]).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    disks::attach(conn, allowed, &prepared, row.id.into(), &app.clock, now).await?;
    recovery::refuse_another_local(conn, &row).await?;
    let next = with_boot(next_intent(&app, &call, &change, &row), &row, true, &body.stop());
    let (conn, allowed) = change.parts();
    change_intent(conn, allowed, &row, "rescue_instance", &next).await?;
    accept(&app, change, row.id).await
}

/// End the rescue of an instance: it boots from its own disk again, and the one that was made for the rescue goes. One that
/// is stopped stays so.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/unrescue", tag = "instances",
    params(MutationQuery), request_body = StopInstance, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn unrescue_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: StopInstance = call.json()?;
    ApiError::reject(body.validate())?;
    let mut change = call.changing::<actions::RescueInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    if !row.is_rescued() {
        return Err(ApiError::because(ErrorCode::WrongState, "it is not rescued; reboot it instead"));
    }
    let now = change.now;
    refuse_taking(change.conn(), row.id).await?;
    rebuilding::end_rescue(change.conn(), row.id, now).await?;
    let next = with_boot(next_intent(&app, &call, &change, &row), &row, false, &body);
    let (conn, allowed) = change.parts();
    change_intent(conn, allowed, &row, "unrescue_instance", &next).await?;
    accept(&app, change, row.id).await
}

/// Refuses while what it boots from must not change.
fn check(row: &Row) -> Result<(), ApiError> {
    refuse_deleting(row)?;
    let refused = |why| Err(ApiError::because(ErrorCode::WrongState, why));
    if row.is_rescued() {
        return refused("it is rescued; unrescue it first");
    }
    if row.volumes.iter().any(|volume| volume.position < 0) {
        return refused(
            "its guest has not let go yet of the disk that it was rescued from; try again in a moment",
        );
    }
    if !row.boots() {
        return refused("it has no volume to boot from; attach one with `root` set to true instead");
    }
    if row.intent().power == Power::Paused && state_of(row) != InstanceState::Stopped {
        return refused("it is paused; resume or stop it first");
    }
    Ok(())
}

/// Another boot for one that is to run, or that has to.
fn with_boot(present: NewIntent, row: &Row, must_run: bool, stop: &StopInstance) -> NewIntent {
    let runs = row.intent().power == Power::Running && state_of(row) != InstanceState::Stopped;
    if !must_run && !runs {
        return present;
    }
    NewIntent {
        power: Power::Running,
        boot: row.boot + i64::from(row.host_id.is_some()),
        stop_mode: stop.mode(),
        stop_timeout_seconds: stop.timeout_seconds(),
        ..present
    }
}

/// The image that the body names.
async fn hold(
    conn: &mut PgConnection,
    project: protocol::ProjectId,
    image: &str,
) -> Result<ImageRow, ApiError> {
    let found = images::hold(conn, project, image).await?;
    found.ok_or_else(|| ApiError::invalid(vec![store::no_image()]))
}

/// How large a disk the image needs.
fn least_gib(image: &ImageRow) -> Result<i32, ApiError> {
    let bytes = image.virtual_size_bytes.ok_or_else(|| {
        let message = "nothing has been uploaded to this image yet";
        ApiError::invalid(vec![FieldError::new("/image", "not_ready", message)])
    })?;
    Ok(gib_for(bytes).max(image.min_disk_gib))
}

/// Its type, in the size that it has.
async fn size_of(conn: &mut PgConnection, row: &Row) -> Result<SizedType, ApiError> {
    let found = instance_types::find(conn, &Selector::Id(row.instance_type_id)).await?;
    let size = CustomSize::of(row.vcpus, row.memory_mib);
    size.of_type(found.ok_or_else(ApiError::not_found)?).map_err(|wrong| ApiError::invalid(vec![wrong]))
}

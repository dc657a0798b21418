//! Changing the size of an instance, with a way back until that is confirmed.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::HostId;
use protocol::agent::Power;
use sqlx::{Acquire, PgConnection};
use time::OffsetDateTime;

use super::super::custom_size::{CustomSize, SizedType};
use super::super::model::InstanceState;
use super::super::store::{self, NewIntent, Row, departures, placement, resizing};
use super::super::types::{Instance, Plan, ResizeInstance, StopInstance};
use super::super::verbs::{refuse_deleting, state_of};
use super::moving::{has_stopped, merging};
use super::power::next_intent;
use super::{accept, as_new, change_intent, lock};
use crate::app::App;
use crate::auth::actions;
use crate::hosts;
use crate::http::{
    ApiError, Call, ErrorCode, FieldError, Mutation, MutationQuery, NoFields, Path, Selector,
    violated_constraint,
};
use crate::instance_types::{self, InstanceTypeRow};
use crate::quotas::{self, Resource};
use crate::scheduler::{Explanation, Occupied, Placement, Rejection, place, rejections};
use crate::volumes::store::attachments;

type Change = Mutation<actions::ResizeInstance>;

/// Give an instance another type or another size, with its next boot. It stays on its host if that has room; if not, a stopped one all of
/// whose volumes are in shared pools goes to another host. Its disks stay as they are. Until the resize is confirmed, by a
/// call or by itself, it can be reverted, and quota and host hold the larger of both sizes. One that waits for a host looks
/// for one in its new size at once, and has nothing to revert. Needs `compute:CreateInstance` for an instance of the new
/// type and size, too, and `compute:UseCustomSize` for a size that is not the type's own.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/resize", tag = "instances",
    params(MutationQuery), request_body = ResizeInstance, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn resize_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: ResizeInstance = call.json()?;
    ApiError::reject(body.validate())?;
    let mut change = call.changing::<actions::ResizeInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    let wanted = wanted(change.conn(), &row, &body).await?;
    let mut change = as_new::ask(change, &project, &row, None, Some(&wanted)).await?;
    check(change.conn(), &row, &wanted).await?;
    let wanted = wanted.instance_type;
    let reboots = check_power(&row, body.reboot)?;
    let next = with_boot(next_intent(&app, &call, &change, &row), &row, reboots, &body.stop());
    let before = change_size(&mut change, &row, &wanted, body.confirm_at(next.now), &next).await?;
    if change.query.dry_run {
        return answer_plan(change, &before, next.now).await;
    }
    accept(&app, change, row.id).await
}

/// Confirm the resize of an instance: there is no way back any more, and nothing is held for it.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/confirm_resize", tag = "instances",
    params(MutationQuery), responses(
        (status = 200, body = Instance),
))]
pub(super) async fn confirm_resize(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    call.json::<NoFields>()?;
    let mut change = call.changing::<actions::ResizeInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_unresized(&row, change.now)?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    resizing::confirm(conn, row.id, now).await?;
    placement::retry_now(conn, now).await?;
    let row = store::find(conn, allowed, &Selector::Id(row.id)).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire(now)).await
}

/// Give an instance the type back that it had before its last resize. One that runs is shut down and started again. It
/// stays where it is: the room for it was held.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/revert_resize", tag = "instances",
    params(MutationQuery), request_body = StopInstance, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn revert_resize(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: StopInstance = call.json()?;
    ApiError::reject(body.validate())?;
    let mut change = call.changing::<actions::ResizeInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    refuse_unresized(&row, change.now)?;
    // Whatever it does, it comes up in its old size.
    let reboots = row.intent().power != Power::Stopped && state_of(&row) != InstanceState::Stopped;
    let next = with_boot(next_intent(&app, &call, &change, &row), &row, reboots, &body);
    let (conn, allowed) = change.parts();
    resizing::revert(conn, row.id, next.now).await?;
    change_intent(conn, allowed, &row, "revert_instance_resize", &next).await?;
    accept(&app, change, row.id).await
}

fn refuse_unresized(row: &Row, now: OffsetDateTime) -> Result<(), ApiError> {
    match row.resize(now) {
        Some(_) => Ok(()),
        None => {
            let detail =
                "it has no resize that waits to be confirmed or reverted; resize it to change its type";
            Err(ApiError::because(ErrorCode::WrongState, detail))
        }
    }
}

/// The type and the size that it shall have.
async fn wanted(conn: &mut PgConnection, row: &Row, body: &ResizeInstance) -> Result<SizedType, ApiError> {
    let (selector, size) = match &body.instance_type {
        Some(other) => (Selector::parse(other), body.size()),
        None => {
            let present = CustomSize::of(row.vcpus, row.memory_mib);
            (Some(Selector::Id(row.instance_type_id)), body.size().or(present))
        }
    };
    let found = match selector {
        Some(selector) => instance_types::find(conn, &selector).await?,
        None => None,
    };
    let found = found.ok_or_else(|| ApiError::invalid(vec![store::no_instance_type()]))?;
    size.of_type(found).map_err(|wrong| ApiError::invalid(vec![wrong]))
}

/// What the instance is does not stand in the way of the type and the size.
async fn check(conn: &mut PgConnection, row: &Row, sized: &SizedType) -> Result<(), ApiError> {
    let wanted = &sized.instance_type;
    refuse_deleting(row)?;
    if row.resized_from_type_id.is_some() {
        let detail =
            "its last resize is not over; confirm or revert that, or wait until its host has made it so";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    let wrong = |pointer, code, message: String| {
        Err(ApiError::invalid(vec![FieldError::new(pointer, code, message)]))
    };
    let becomes = (wanted.id, wanted.vcpus, wanted.memory_mib);
    if becomes == (row.instance_type_id, row.vcpus, row.memory_mib) {
        let message = format!("it is of the type {} and of this size already", wanted.name);
        return wrong("/instance_type", "unchanged", message);
    }
    if wanted.architecture != row.architecture {
        let message =
            format!("the instance is for {}, the type for {}", row.architecture, wanted.architecture);
        return wrong("/instance_type", "architecture", message);
    }
    let least = resizing::least_memory_mib(conn, row.image_id).await?;
    if wanted.memory_mib < least {
        let what = if sized.is_custom { "size" } else { "type" };
        let message =
            format!("its image needs {least} MiB of memory, this {what} has {} MiB", wanted.memory_mib);
        return wrong(sized.memory_pointer(), "memory_too_small", message);
    }
    Ok(())
}

/// Whether it has to be rebooted.
fn check_power(row: &Row, may_reboot: bool) -> Result<bool, ApiError> {
    let refused = |why| Err(ApiError::because(ErrorCode::WrongState, why));
    match (row.intent().power, state_of(row)) {
        (_, InstanceState::Stopped | InstanceState::Pending) => Ok(false),
        (Power::Stopped, _) => refused("it is on its way down; try again when it is stopped"),
        (Power::Paused, _) => refused("it is paused; resume or stop it first"),
        (Power::Running, _) if may_reboot => Ok(true),
        (Power::Running, _) => refused("it runs; stop it first, or allow a reboot with `reboot`"),
    }
}

/// With another boot if it has to go down for it. Its metadata tells its type, so its host's networks change, too.
fn with_boot(present: NewIntent, row: &Row, reboots: bool, stop: &StopInstance) -> NewIntent {
    let present = NewIntent { cards_change: true, ..present };
    if !reboots {
        return present;
    }
    NewIntent {
        power: Power::Running,
        boot: row.boot + 1,
        stop_mode: stop.mode(),
        stop_timeout_seconds: stop.timeout_seconds(),
        ..present
    }
}

/// What it was before.
struct Before {
    id: uuid::Uuid,
    vcpus: i32,
    memory_mib: i32,
    /// Why no other host takes it that would have to.
    nowhere: Option<Explanation>,
}

/// Gives it the size where it is, or on another host.
async fn change_size(
    change: &mut Change,
    row: &Row,
    wanted: &InstanceTypeRow,
    confirm_at: OffsetDateTime,
    next: &NewIntent,
) -> Result<Before, ApiError> {
    const KIND: &str = "resize_instance";
    let mut before = Before { id: row.id, vcpus: row.vcpus, memory_mib: row.memory_mib, nowhere: None };
    let dry_run = change.query.dry_run;
    let (conn, allowed) = change.parts();
    if row.host_id.is_none() {
        resizing::set_unplaced(conn, row.id, wanted, next.now).await?;
        change_intent(conn, allowed, row, KIND, next).await?;
        before.nowhere = nowhere(conn, row.id, next.now).await?;
        return Ok(before);
    }
    let mut savepoint = conn.begin().await?;
    let made = resizing::set(&mut savepoint, row, wanted, confirm_at).await;
    let why = match made {
        Ok(()) => {
            let Some(why) = why_not_of_type(&mut savepoint, row, next.now).await? else {
                savepoint.commit().await?;
                change_intent(conn, allowed, row, KIND, next).await?;
                return Ok(before);
            };
            why
        }
        Err(error) if violated_constraint(&error).is_some_and(|name| name.starts_with("hosts_")) => {
            "its host has no room for that"
        }
        Err(error) => return Err(error.into()),
    };
    savepoint.rollback().await?;
    let host = movable(conn, row, why).await?;
    departures::leave(conn, row.id, host, next.now).await?;
    resizing::set(conn, row, wanted, confirm_at).await?;
    change_intent(conn, allowed, &Row { host_id: None, ..row.clone() }, KIND, next).await?;
    before.nowhere = nowhere(conn, row.id, next.now).await?;
    match &before.nowhere {
        // It would be on no host.
        Some(explanation) if !dry_run => {
            let detail = format!(
                "{why}, and {}; choose another type, or ask an operator for room",
                explanation.summary
            );
            Err(ApiError::because(ErrorCode::InsufficientCapacity, detail))
        }
        _ => Ok(before),
    }
}

/// What of its new type is not for its host, if it has one.
async fn why_not_of_type(
    conn: &mut PgConnection,
    row: &Row,
    now: OffsetDateTime,
) -> Result<Option<&'static str>, ApiError> {
    let Some(host) = row.host_id.map(HostId::from) else { return Ok(None) };
    let request = placement::request(conn, row.id.into()).await?.ok_or_else(ApiError::not_found)?;
    let fleet = placement::fleet(conn, now).await?;
    let Some(home) = fleet.hosts().iter().find(|candidate| candidate.id == host) else { return Ok(None) };
    let occupied = Occupied::of(&fleet, &request);
    Ok(rejections(home, &request, &occupied).find_map(|rejection| match rejection {
        Rejection::Features => Some("its host cannot give its guest what that type asks for"),
        Rejection::HostLabels | Rejection::Tainted => Some("its host takes no instances of that type"),
        _ => None,
    }))
}

/// The host that it can leave for another one, with everything locked for that. `why` says what keeps it from staying.
async fn movable(conn: &mut PgConnection, row: &Row, why: &str) -> Result<HostId, ApiError> {
    let refused = |what: String| {
        let detail = format!("{why}, and {what}");
        Err(ApiError::because(ErrorCode::InsufficientCapacity, detail))
    };
    let Some(host) = row.host_id.map(HostId::from) else {
        return refused("it is on none".to_owned());
    };
    if let Some(name) = attachments::lock_all_shared(conn, row.id).await? {
        return refused(format!(
            "its volume {name} is on the disk of that host, so that it cannot go to another one; choose another type, \
             ask an operator for room, or make a new instance from a snapshot of this one"
        ));
    }
    if !has_stopped(row) {
        return refused("it goes to another one only while it is stopped; stop it first".to_owned());
    }
    // Before the row of its host.
    quotas::store::lock_before_going(conn, &[row.id], &[], &[]).await?;
    match attachments::merging(conn, row.id).await? {
        Some(name) if !hosts::store::is_declared_dead(conn, host).await? => refused(merging(&name)),
        _ => Ok(host),
    }
}

/// Why no host would take it now, if none does.
async fn nowhere(
    conn: &mut PgConnection,
    id: uuid::Uuid,
    now: OffsetDateTime,
) -> Result<Option<Explanation>, ApiError> {
    let request = placement::request(conn, id.into()).await?.ok_or_else(ApiError::not_found)?;
    let fleet = placement::fleet(conn, now).await?;
    Ok(match place(&fleet, &request) {
        Placement::Host(_) => None,
        Placement::Nowhere(explanation) => Some(explanation),
    })
}

/// The answer to a dry run: the instance as it would be, whether a host would have it, and what it would use more.
async fn answer_plan(mut change: Change, before: &Before, now: OffsetDateTime) -> Result<Response, ApiError> {
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed, &Selector::Id(before.id)).await?.ok_or_else(ApiError::not_found)?;
    let more = [
        (Resource::Vcpus, i64::from((row.vcpus - before.vcpus).max(0))),
        (Resource::MemoryMib, i64::from((row.memory_mib - before.memory_mib).max(0))),
    ];
    let quota = quotas::store::effect(conn, allowed, &more).await?;
    let mut instance = row.into_wire(now);
    let placement = before.nowhere.clone();
    instance.plan = Some(Plan { placeable: placement.is_none(), placement, quota });
    change.commit(StatusCode::OK, None, &instance).await
}

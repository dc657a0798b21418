//! Handlers of instances.

mod as_new;
mod clone;
mod create;
mod create_from;
mod deciding;
mod force_detach;
mod inherit;
mod lists;
mod many;
mod migrating;
mod moving;
mod ports;
mod power;
mod rebuild;
mod resize;
mod serial;
mod update;
mod volumes;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use protocol::agent::Power;
use protocol::{OperationId, RequestId};
use serde::Deserialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::deeds::intend;
use super::store::{self, NewIntent, Row};
use super::types::Instance;
use super::verbs::refuse_deleting;
use crate::app::App;
use crate::auth::{Action, Allowed, InProject, OfResource, actions};
use crate::http::{ApiError, Call, Mutation, Path, Selector};
use crate::operations::{check_wait, wait_for_end};

pub(in crate::instances) use power::present_intent;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create::create_instance, lists::list_instances))
        .routes(routes!(lists::list_cloud_instances))
        .routes(routes!(get_instance, update::update_instance, power::delete_instance))
        .routes(routes!(power::start_instance))
        .routes(routes!(power::stop_instance))
        .routes(routes!(power::reboot_instance))
        .routes(routes!(power::pause_instance))
        .routes(routes!(power::resume_instance))
        .routes(routes!(many::act_on_instances))
        .routes(routes!(resize::resize_instance))
        .routes(routes!(resize::confirm_resize))
        .routes(routes!(resize::revert_resize))
        .routes(routes!(rebuild::rebuild_instance))
        .routes(routes!(rebuild::rescue_instance))
        .routes(routes!(rebuild::unrescue_instance))
        .routes(routes!(moving::move_instance))
        .routes(routes!(migrating::migrate_instance))
        .routes(routes!(ports::attach_port))
        .routes(routes!(ports::detach_port))
        .routes(routes!(volumes::attach_volume))
        .routes(routes!(volumes::detach_volume))
        .routes(routes!(force_detach::force_detach_volume))
        .routes(routes!(serial::get_instance_serial))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WaitQuery {
    /// Wait for its operation to end, at most this many seconds.
    #[serde(default)]
    #[param(maximum = 300)]
    wait: u16,
}

/// Get an instance.
#[utoipa::path(get, path = "/v1/projects/{project}/instances/{instance}", tag = "instances", params(WaitQuery), responses(
    (status = 200, body = Instance),
))]
async fn get_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let query: WaitQuery = call.query()?;
    check_wait(query.wait)?;
    let mut reading = call.reading::<actions::GetInstance>(&app, (&project, &instance)).await?;
    let (conn, allowed) = reading.parts();
    let mut row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    let allowed = allowed.clone();
    let caller = reading.finish();
    if query.wait > 0 {
        wait_for_end(&app, &allowed, row.operation_id.into(), query.wait).await?;
        let mut conn = app.pool.acquire().await?;
        row =
            store::find(&mut conn, &allowed, &Selector::Id(row.id)).await?.ok_or_else(ApiError::not_found)?;
    }
    call.answer(row.version(), &row.into_wire_with_host(caller.knows_hosts(), app.clock.now()))
}

/// Locks the instance of the path, checks `If-Match`, and keeps it as it was for the audit log.
async fn lock<A: Action<On: InProject + OfResource>>(change: &mut Mutation<A>) -> Result<Row, ApiError> {
    let (conn, allowed) = change.parts();
    let row = store::lock(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire(change.now));
    Ok(row)
}

/// Begins the operation, stores the next intent and tells the host.
async fn change_intent<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    row: &Row,
    kind: &'static str,
    intent: &NewIntent,
) -> Result<(), sqlx::Error> {
    intend(conn, allowed.into(), row, kind, intent).await
}

/// A change of one of an instance's volumes, and the operation that tells of it.
pub(crate) struct OfVolume {
    pub kind: &'static str,
    pub operation: OperationId,
    pub request: RequestId,
    pub now: OffsetDateTime,
}

/// Gives the host of an instance, which is locked, the next generation of it: its disks have changed.
pub(crate) async fn change_volumes<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    instance: Uuid,
    of: &OfVolume,
) -> Result<(), ApiError> {
    let row = store::find(conn, allowed, &Selector::Id(instance)).await?.ok_or_else(ApiError::not_found)?;
    refuse_deleting(&row)?;
    let intent = power::present_intent(&row, of.operation, of.request, of.now);
    Ok(change_intent(conn, allowed, &row, of.kind, &intent).await?)
}

/// A guest that goes on from the memory of a snapshot.
pub(crate) struct Resume {
    pub instance: Uuid,
    pub snapshot: Uuid,
    pub operation: OperationId,
    pub request: RequestId,
    pub now: OffsetDateTime,
}

/// Starts an instance, which is locked and stopped, so that its guest goes on from there.
pub(crate) async fn resume_instance<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    of: &Resume,
) -> Result<(), ApiError> {
    let selector = Selector::Id(of.instance);
    let row = store::find(conn, allowed, &selector).await?.ok_or_else(ApiError::not_found)?;
    refuse_deleting(&row)?;
    let present = power::present_intent(&row, of.operation, of.request, of.now);
    let next = NewIntent { power: Power::Running, boot: row.boot + 1, ..present };
    change_intent(conn, allowed, &row, "restore_snapshot", &next).await?;
    Ok(store::set_resume(conn, allowed, row.id, of.snapshot, next.boot).await?)
}

/// Commits, and waits for the operation when the caller asked to: the answer then shows the end.
async fn accept<A: Action<On: InProject>>(
    app: &App,
    mut change: Mutation<A>,
    row_id: uuid::Uuid,
) -> Result<Response, ApiError> {
    let (conn, allowed) = change.parts();
    let selector = Selector::Id(row_id);
    let row = store::find(conn, allowed, &selector).await?.ok_or_else(ApiError::not_found)?;
    let (version, operation) = (row.version(), OperationId::from(row.operation_id));
    let wait = if change.query.dry_run { 0 } else { change.query.wait };
    let (allowed, now) = (change.allowed.clone(), change.now);
    let answer = change.commit(StatusCode::ACCEPTED, Some(version), &row.into_wire(now)).await?;
    if wait == 0 {
        return Ok(answer);
    }
    wait_for_end(app, &allowed, operation, wait).await?;
    let mut conn = app.pool.acquire().await?;
    match store::find(&mut conn, &allowed, &selector).await? {
        Some(row) => crate::http::tagged(StatusCode::OK, row.version(), &row.into_wire(app.clock.now())),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

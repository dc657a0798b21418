//! Handlers of maintenance.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::store;
use super::types::{DrainHost, Evacuation, EvacuationQuery, HostDrain, MaintenanceState};
use crate::app::App;
use crate::auth::actions;
use crate::hosts::store as hosts;
use crate::hosts::types::Host;
use crate::http::{ApiError, Call, ErrorCode, MutationQuery, NoFields, Page, PageQuery, Path};
use crate::instances::evacuation;
use crate::instances::store::placement;
use crate::nudge::{self, Topic};

/// Evacuations in one answer.
const MOST: i64 = 500;

pub(in crate::hosts) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(drain_host))
        .routes(routes!(end_host_maintenance))
        .routes(routes!(list_host_evacuations))
}

/// Take a host into maintenance: no new instance goes there, and those that are there leave it, a few at a time. A stopped
/// one goes to another host as it is, with those of its disks that are in no shared pool, a running one while it runs. One that cannot is
/// shut down, goes and starts there, if `stop_running` says so. What cannot leave stays, with a reason, and is tried again.
/// With `dry_run` the answer says what would become of each.
#[utoipa::path(post, path = "/v1/hosts/{host}/drain", tag = "hosts", params(MutationQuery),
    request_body = DrainHost, responses(
        (status = 202, body = HostDrain),
))]
async fn drain_host(
    State(app): State<App>,
    Path(host): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: DrainHost = call.json()?;
    ApiError::reject(body.validate())?;
    let mut change = call.changing::<actions::DrainHost>(&app, &host).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let row = hosts::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    let id = row.id;
    change.note_before(&row.into_wire(now));
    let (conn, allowed) = change.parts();
    store::begin(conn, allowed, id, &body, now).await?;
    evacuation::plan(conn, id.into(), now).await?;
    nudge::send(conn, Topic::Drains).await?;
    let row = hosts::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    let mut evacuations = store::list(conn, id, None, Uuid::nil(), MOST + 1).await?;
    let most = usize::try_from(MOST).unwrap_or(usize::MAX);
    let more = evacuations.len() > most;
    evacuations.truncate(most);
    let version = row.version();
    let answer = HostDrain { host: row.into_wire(now), evacuations, more };
    change.commit(StatusCode::ACCEPTED, Some(version), &answer).await
}

/// End the maintenance of a host, or stop emptying it. What has left does not come back. What was being shut down to be
/// moved is started again where it is. New instances go there again, unless the host was cordoned for another reason.
#[utoipa::path(post, path = "/v1/hosts/{host}/end_maintenance", tag = "hosts", params(MutationQuery),
    responses(
        (status = 200, body = Host),
))]
async fn end_host_maintenance(
    State(app): State<App>,
    Path(host): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    call.json::<NoFields>()?;
    let mut change = call.changing::<actions::EndHostMaintenance>(&app, &host).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let row = hosts::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    let id = row.id;
    let before = row.into_wire(now);
    change.note_before(&before);
    if before.maintenance.state == MaintenanceState::None {
        return Err(ApiError::because(ErrorCode::WrongState, "it is not in maintenance"));
    }
    let (conn, allowed) = change.parts();
    store::end(conn, allowed, id, now).await?;
    // What waited for room may have found it.
    placement::retry_now(conn, now).await?;
    nudge::send(conn, Topic::Drains).await?;
    let row = hosts::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire(now)).await
}

/// List the instances that a host in maintenance has, and those that have left it since that began.
#[utoipa::path(get, path = "/v1/hosts/{host}/evacuations", tag = "hosts", params(EvacuationQuery), responses(
    (status = 200, body = Page<Evacuation>),
))]
async fn list_host_evacuations(
    State(app): State<App>,
    Path(host): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Evacuation>>, ApiError> {
    let EvacuationQuery { limit, cursor, phase } = call.query()?;
    let query = PageQuery::new(limit, cursor).checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::GetHost>(&app, &host).await?;
    let (conn, allowed) = reading.parts();
    let row = hosts::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    let items = store::list(conn, row.id, phase, after, query.rows()).await?;
    Ok(axum::Json(query.page(items, |one: &Evacuation| one.instance.id)))
}

//! Handlers of operations.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use protocol::OperationId;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::store;
use super::types::{Operation, OperationStatus};
use crate::app::App;
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{ApiError, Call, ErrorCode, MutationQuery, Page, PageQuery, Path};
use crate::images;
use crate::instances::{OF_MIGRATIONS, migration};
use crate::nudge::Topic;

const MAX_WAIT_SECONDS: u16 = 300;
/// Looking again without a nudge, in case one was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_operations))
        .routes(routes!(get_operation))
        .routes(routes!(cancel_operation))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WaitQuery {
    /// Wait for the end, at most this many seconds.
    #[serde(default)]
    #[param(maximum = 300)]
    wait: u16,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    cursor: Option<String>,
    /// Only operations on the resource with this id.
    resource_id: Option<Uuid>,
    /// Only operations that fare so.
    #[param(inline)]
    status: Option<OperationStatus>,
}

/// List the operations of a project, newest first.
#[utoipa::path(get, path = "/v1/projects/{project}/operations", tag = "operations", params(ListQuery), responses(
    (status = 200, body = Page<Operation>),
))]
async fn list_operations(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Operation>>, ApiError> {
    let query: ListQuery = call.query()?;
    let page = PageQuery::new(query.limit, query.cursor).checked()?;
    let before = Some(page.after()?).filter(|id| !id.is_nil());
    let mut reading = call.reading::<actions::ListOperations>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let filter =
        store::Filter { before, resource: query.resource_id, status: query.status, rows: page.rows() };
    let items = store::list(conn, allowed, &filter).await?;
    Ok(axum::Json(page.page(items, |operation| operation.id.as_uuid())))
}

/// Get an operation with its trail.
#[utoipa::path(get, path = "/v1/projects/{project}/operations/{operation}", tag = "operations",
    params(WaitQuery),
    responses(
        (status = 200, body = Operation),
))]
async fn get_operation(
    State(app): State<App>,
    Path((project, operation)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let query: WaitQuery = call.query()?;
    check_wait(query.wait)?;
    let mut reading = call.reading::<actions::GetOperation>(&app, (&project, &operation)).await?;
    let id: OperationId = operation.parse().map_err(|_| ApiError::not_found())?;
    let (conn, allowed) = reading.parts();
    store::find(conn, allowed, id.as_uuid()).await?.ok_or_else(ApiError::not_found)?;
    let allowed = allowed.clone();
    drop(reading);
    let operation = wait_for_end(&app, &allowed, id, query.wait).await?;
    Ok(axum::Json(operation).into_response())
}

/// Cancel an operation that can be: an import, the end of an upload, or the making of an image from a disk. The image is
/// then as before, or empty, and nothing of the file is kept. And a migration until the guest is handed over: it runs on
/// where it was. One that has begun ends when the host says so, and may yet succeed if that was too late.
#[utoipa::path(post, path = "/v1/projects/{project}/operations/{operation}/cancel", tag = "operations",
    params(MutationQuery),
    responses(
        (status = 200, body = Operation),
        (status = 409, description = "`wrong_state`: it has ended, or cannot be cancelled"),
))]
async fn cancel_operation(
    State(app): State<App>,
    Path((project, operation)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::CancelOperation>(&app, (&project, &operation)).await?;
    let id: OperationId = operation.parse().map_err(|_| ApiError::not_found())?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let before = store::find(conn, allowed, id.as_uuid()).await?.ok_or_else(ApiError::not_found)?;
    let refusal = match (before.status, before.kind.as_str()) {
        (OperationStatus::Running, "import_image" | "finish_image_upload" | "create_image") => None,
        (OperationStatus::Running, kind) if OF_MIGRATIONS.contains(&kind) => None,
        (OperationStatus::Running, _) => Some("this kind of operation cannot be cancelled"),
        _ => Some("the operation has ended already"),
    };
    if let Some(refusal) = refusal {
        return Err(ApiError::because(ErrorCode::WrongState, refusal));
    }
    if OF_MIGRATIONS.contains(&before.kind.as_str()) {
        // Its source may have handed the guest over by now: then the operation goes on.
        if !migration::cancel(conn, before.resource_id, id, now).await? {
            let detail = if before.kind.starts_with("migrate") {
                "the guest is handed over already; migrate it back instead"
            } else {
                "the instance has left its host already; move it back instead"
            };
            return Err(ApiError::because(ErrorCode::WrongState, detail));
        }
    } else {
        images::cancel_import(conn, id, now).await?;
        let end = store::End::Cancelled { code: "cancelled", detail: "somebody asked for it" };
        store::finish(conn, id, &end, now).await?;
    }
    let after = store::find(conn, allowed, id.as_uuid()).await?.ok_or_else(ApiError::not_found)?;
    change.note_before(&before);
    change.commit(StatusCode::OK, None, &after).await
}

pub(crate) fn check_wait(seconds: u16) -> Result<(), ApiError> {
    if seconds <= MAX_WAIT_SECONDS {
        return Ok(());
    }
    Err(ApiError::because(ErrorCode::InvalidQuery, "wait: at most 300 seconds"))
}

/// The operation when it has ended, or as it is after so many seconds. Holds no connection while it waits.
pub(crate) async fn wait_for_end<A: Action<On: InProject>>(
    app: &App,
    allowed: &Allowed<A>,
    id: OperationId,
    seconds: u16,
) -> Result<Operation, ApiError> {
    let until = Instant::now() + Duration::from_secs(seconds.into());
    let mut waiter = app.nudges.subscribe(Topic::Operation(id));
    loop {
        let mut conn = app.pool.acquire().await?;
        let operation =
            store::find(&mut conn, allowed, id.as_uuid()).await?.ok_or_else(ApiError::not_found)?;
        drop(conn);
        let left = until.saturating_duration_since(Instant::now());
        if operation.status != OperationStatus::Running || left.is_zero() {
            return Ok(operation);
        }
        waiter.nudged(left.min(LOOK_AGAIN)).await;
    }
}

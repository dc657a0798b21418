//! Handlers of events.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::log::Log;
use super::stream;
use super::types::{EventMessage, EventPage, PageQuery, StreamQuery};
use crate::app::App;
use crate::http::{ApiError, Call, Path};
use crate::nudge::Topic;
use crate::operations::check_wait;

/// Looking again without a nudge, in case one was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_cloud_events))
        .routes(routes!(stream_cloud_events))
        .routes(routes!(list_events))
        .routes(routes!(stream_events))
}

/// List the events of the cloud, oldest first: hosts, instance types and projects.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(PageQuery), responses(
    (status = 200, body = EventPage),
    (status = 410, description = "`cursor_expired`"),
))]
async fn list_cloud_events(State(app): State<App>, call: Call) -> Result<axum::Json<EventPage>, ApiError> {
    page(&app, &call, Log::Cloud).await
}

/// Follow the events of the cloud as Server-Sent Events: `id` is the position, `data` an event. Goes on after
/// `Last-Event-ID`, and ends when the access token expires.
#[utoipa::path(get, path = "/v1/events/stream", tag = "events", params(StreamQuery), responses(
    (status = 200, body = EventMessage, content_type = "text/event-stream"),
    (status = 410, description = "`cursor_expired`"),
))]
async fn stream_cloud_events(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    stream::follow(app, call, Log::Cloud).await
}

/// List the events of a project, oldest first: what became of everything in it.
#[utoipa::path(get, path = "/v1/projects/{project}/events", tag = "events", params(PageQuery), responses(
    (status = 200, body = EventPage),
    (status = 410, description = "`cursor_expired`"),
))]
async fn list_events(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<EventPage>, ApiError> {
    page(&app, &call, Log::Project(project)).await
}

/// Follow the events of a project as Server-Sent Events: `id` is the position, `data` an event. Goes on after
/// `Last-Event-ID`, and ends when the access token expires.
#[utoipa::path(get, path = "/v1/projects/{project}/events/stream", tag = "events", params(StreamQuery), responses(
    (status = 200, body = EventMessage, content_type = "text/event-stream"),
    (status = 410, description = "`cursor_expired`"),
))]
async fn stream_events(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    stream::follow(app, call, Log::Project(project)).await
}

/// Holds no connection while it waits, and decides anew at each look.
async fn page(app: &App, call: &Call, log: Log) -> Result<axum::Json<EventPage>, ApiError> {
    let query: PageQuery = call.query()?;
    let (after, limit) = (query.after()?, query.limit()?);
    check_wait(query.wait)?;
    let until = Instant::now() + Duration::from_secs(query.wait.into());
    let first = log.look(app, call, after, limit).await?;
    if !first.page.items.is_empty() || query.wait == 0 {
        return Ok(axum::Json(first.page));
    }
    let log = log.pinned(first.log_id);
    let mut waiter = app.nudges.subscribe(Topic::EventLog(first.log_id));
    let after = Some(first.page.last_position);
    loop {
        let look = log.look(app, call, after, limit).await?;
        let left = until.saturating_duration_since(Instant::now());
        if !look.page.items.is_empty() || left.is_zero() || app.shutdown.is_cancelled() {
            return Ok(axum::Json(look.page));
        }
        tokio::select! {
            () = waiter.nudged(left.min(LOOK_AGAIN)) => {}
            () = app.shutdown.cancelled() => {}
        }
    }
}

//! Handlers of snapshots.

mod change;
mod create;
mod restore;

use axum::extract::State;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store::{self, Filter};
use super::types::{Snapshot, SnapshotQuery};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, LabelledPageQuery, Page, Path, Selector};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create::create_snapshot, list_snapshots))
        .routes(routes!(get_snapshot, change::update_snapshot, change::delete_snapshot))
        .routes(routes!(restore::restore_snapshot))
}

/// List the snapshots of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/snapshots", tag = "snapshots", params(SnapshotQuery), responses(
    (status = 200, body = Page<Snapshot>),
))]
async fn list_snapshots(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Snapshot>>, ApiError> {
    let query: SnapshotQuery = call.query()?;
    // A text that is neither a name nor an id matches nothing.
    let named = |text: String| Selector::parse(&text).map_or_else(String::new, |_| text);
    let (volume, instance) = (query.volume.map(named), query.instance.map(named));
    let (schedule, state) = (query.schedule.map(named), query.state);
    let (query, labels) =
        LabelledPageQuery::new(query.limit, query.cursor, query.name, query.label_selector).checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListSnapshots>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let filter = Filter {
        after,
        name: query.name(),
        labels: &labels,
        volume: volume.as_deref(),
        instance: instance.as_deref(),
        schedule: schedule.as_deref(),
        state,
        rows: query.rows(),
    };
    let rows = store::list(conn, allowed, &filter).await?;
    let items = rows.into_iter().map(|row| row.into_wire(app.clock.now())).collect();
    Ok(axum::Json(query.page(items, |snapshot: &Snapshot| snapshot.id.as_uuid())))
}

/// Get a snapshot.
#[utoipa::path(get, path = "/v1/projects/{project}/snapshots/{snapshot}", tag = "snapshots", responses(
    (status = 200, body = Snapshot),
))]
async fn get_snapshot(
    State(app): State<App>,
    Path((project, snapshot)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetSnapshot>(&app, (&project, &snapshot)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire(app.clock.now()))
}

//! Handlers of volumes. How they come into instances is in `instances/routes/volumes.rs`.

mod change;
mod create;
mod pool;

use axum::extract::State;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store::{self, Filter};
use super::types::{Volume, VolumeQuery};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, LabelledPageQuery, Page, Path, Selector};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create::create_volume, list_volumes)).routes(routes!(
        get_volume,
        change::update_volume,
        change::delete_volume
    ))
}

/// List the volumes of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/volumes", tag = "volumes", params(VolumeQuery), responses(
    (status = 200, body = Page<Volume>),
))]
async fn list_volumes(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Volume>>, ApiError> {
    let query: VolumeQuery = call.query()?;
    // A text that is neither a name nor an id matches nothing.
    let instance = query.instance.map(|text| Selector::parse(&text).map_or_else(String::new, |_| text));
    let state = query.state;
    let (query, labels) =
        LabelledPageQuery::new(query.limit, query.cursor, query.name, query.label_selector).checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListVolumes>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let (instance, rows) = (instance.as_deref(), query.rows());
    let filter = Filter { after, name: query.name(), labels: &labels, instance, state, rows };
    let rows = store::list(conn, allowed, &filter).await?;
    let items = rows.into_iter().map(|row| row.into_wire(app.clock.now())).collect();
    Ok(axum::Json(query.page(items, |volume: &Volume| volume.id.as_uuid())))
}

/// Get a volume.
#[utoipa::path(get, path = "/v1/projects/{project}/volumes/{volume}", tag = "volumes", responses(
    (status = 200, body = Volume),
))]
async fn get_volume(
    State(app): State<App>,
    Path((project, volume)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetVolume>(&app, (&project, &volume)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire(app.clock.now()))
}

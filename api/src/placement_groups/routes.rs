//! Handlers of placement groups.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::PlacementGroupId;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use super::types::{CreatePlacementGroup, PlacementGroup, UpdatePlacementGroup};
use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{
    ApiError, Call, LabelledPageQuery, MutationQuery, Page, Path, Selector, merge_labels,
    validate_description, validate_labels,
};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_placement_group, list_placement_groups)).routes(routes!(
        get_placement_group,
        update_placement_group,
        delete_placement_group
    ))
}

/// Make a group whose instances go together or stay apart.
#[utoipa::path(post, path = "/v1/projects/{project}/placement_groups", tag = "placement", params(MutationQuery),
    request_body = CreatePlacementGroup, responses(
        (status = 201, body = PlacementGroup),
))]
async fn create_placement_group(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreatePlacementGroup = call.json()?;
    ApiError::reject(new.validate())?;
    let place = New { labels: &new.labels, ..New::named(new.name.as_str()) };
    let mut change = call.changing::<actions::CreatePlacementGroup>(&app, (&project, place)).await?;
    let (id, now): (PlacementGroupId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    store::insert(conn, allowed, id, &new, now).await?;
    let row =
        store::find(conn, allowed, &Selector::Id(id.as_uuid())).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

/// List the placement groups of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/placement_groups", tag = "placement", params(LabelledPageQuery), responses(
    (status = 200, body = Page<PlacementGroup>),
))]
async fn list_placement_groups(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<PlacementGroup>>, ApiError> {
    let (query, labels) = call.query::<LabelledPageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListPlacementGroups>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), &labels, query.rows()).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |group: &PlacementGroup| group.id.as_uuid())))
}

/// Get a placement group.
#[utoipa::path(get, path = "/v1/projects/{project}/placement_groups/{placement_group}", tag = "placement", responses(
    (status = 200, body = PlacementGroup),
))]
async fn get_placement_group(
    State(app): State<App>,
    Path((project, group)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetPlacementGroup>(&app, (&project, &group)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Change the name, the description or the labels of a placement group. Its rule stays.
#[utoipa::path(patch, path = "/v1/projects/{project}/placement_groups/{placement_group}", tag = "placement",
    params(MutationQuery), request_body = UpdatePlacementGroup, responses(
        (status = 200, body = PlacementGroup),
))]
async fn update_placement_group(
    State(app): State<App>,
    Path((project, group)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdatePlacementGroup = call.json()?;
    let mut change = call.changing::<actions::UpdatePlacementGroup>(&app, (&project, &group)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    let mut errors = Vec::new();
    row.name = patch.name.map_or(row.name, |name| name.as_str().to_owned());
    row.description = patch.description.unwrap_or(row.description);
    row.labels.0 = merge_labels(row.labels.0, patch.labels);
    validate_description(&row.description, &mut errors);
    validate_labels(&row.labels, &mut errors);
    ApiError::reject(errors)?;
    row.generation += 1;
    row.updated_at = now;
    let mut change = change.check_renamed(row.id, &row.name, &row.labels).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Delete a placement group that no instance is in any more.
#[utoipa::path(delete, path = "/v1/projects/{project}/placement_groups/{placement_group}", tag = "placement",
    params(MutationQuery), responses(
        (status = 204, description = "Gone"),
))]
async fn delete_placement_group(
    State(app): State<App>,
    Path((project, group)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeletePlacementGroup>(&app, (&project, &group)).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, row.id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

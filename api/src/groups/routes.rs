//! Handlers of groups.

mod members;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::GroupId;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use super::types::{CreateGroup, Group, UpdateGroup};
use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{ApiError, Call, Labels, MutationQuery, Page, PageQuery, Path, reject_description};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_group, list_groups))
        .routes(routes!(get_group, update_group, delete_group))
        .merge(members::router())
}

/// Make a group.
#[utoipa::path(post, path = "/v1/groups", tag = "groups", params(MutationQuery),
    request_body = CreateGroup, responses(
        (status = 201, body = Group),
))]
async fn create_group(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let new: CreateGroup = call.json()?;
    reject_description(&new.description)?;
    let mut change = call.changing::<actions::CreateGroup>(&app, New::named(new.name.as_str())).await?;
    let (id, now): (GroupId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    let row = store::insert(conn, allowed, id, &new, now).await?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

/// List groups.
#[utoipa::path(get, path = "/v1/groups", tag = "groups", params(PageQuery), responses(
    (status = 200, body = Page<Group>),
))]
async fn list_groups(State(app): State<App>, call: Call) -> Result<axum::Json<Page<Group>>, ApiError> {
    let query = call.query::<PageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListGroups>(&app, ()).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), query.rows()).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |group: &Group| group.id.as_uuid())))
}

/// Get a group.
#[utoipa::path(get, path = "/v1/groups/{group}", tag = "groups", responses(
    (status = 200, body = Group),
))]
async fn get_group(
    State(app): State<App>,
    Path(group): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetGroup>(&app, &group).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Change a group's name or description.
#[utoipa::path(patch, path = "/v1/groups/{group}", tag = "groups", params(MutationQuery),
    request_body = UpdateGroup, responses(
        (status = 200, body = Group),
))]
async fn update_group(
    State(app): State<App>,
    Path(group): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateGroup = call.json()?;
    reject_description(patch.description.as_deref().unwrap_or_default())?;
    let mut change = call.changing::<actions::UpdateGroup>(&app, &group).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    if let Some(name) = patch.name {
        row.name = name.as_str().to_owned();
    }
    row.description = patch.description.unwrap_or(row.description);
    row.generation += 1;
    row.updated_at = now;
    let mut change = change.check_renamed(row.id, &row.name, &Labels::new()).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Delete a group to which no policy is attached any more. Its members stay users.
#[utoipa::path(delete, path = "/v1/groups/{group}", tag = "groups", params(MutationQuery), responses(
    (status = 204),
))]
async fn delete_group(
    State(app): State<App>,
    Path(group): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteGroup>(&app, &group).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.into_wire());
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

//! Handlers of the members of groups.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::actions;
use crate::groups::store;
use crate::groups::types::GroupMember;
use crate::http::{ApiError, Call, MutationQuery, Page, Path, PlainQuery, Selector};
use crate::policies::administrators;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_group_members))
        .routes(routes!(add_group_member, remove_group_member))
}

/// List the members of a group.
#[utoipa::path(get, path = "/v1/groups/{group}/members", tag = "groups", params(PlainQuery), responses(
    (status = 200, body = Page<GroupMember>),
))]
async fn list_group_members(
    State(app): State<App>,
    Path(group): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<GroupMember>>, ApiError> {
    let query = call.query::<PlainQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListGroupMembers>(&app, &group).await?;
    let (conn, allowed) = reading.parts();
    store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    let items = store::members(conn, allowed, after, query.rows()).await?;
    Ok(axum::Json(query.page(items, |member: &GroupMember| member.user_id.as_uuid())))
}

/// Put a user into a group. Whoever is in it already stays in it.
#[utoipa::path(put, path = "/v1/groups/{group}/members/{user}", tag = "groups", params(MutationQuery), responses(
    (status = 200, body = GroupMember),
))]
async fn add_group_member(
    State(app): State<App>,
    Path((group, user)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::AddGroupMember>(&app, &group).await?;
    let user = Selector::parse(&user).ok_or_else(ApiError::not_found)?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let member = store::add_member(conn, allowed, &user, now).await?;
    change.commit(StatusCode::OK, None, &member.ok_or_else(ApiError::not_found)?).await
}

/// Take a user out of a group. Says the same for whoever is not in it.
#[utoipa::path(delete, path = "/v1/groups/{group}/members/{user}", tag = "groups", params(MutationQuery), responses(
    (status = 204),
))]
async fn remove_group_member(
    State(app): State<App>,
    Path((group, user)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::RemoveGroupMember>(&app, &group).await?;
    let user = Selector::parse(&user).ok_or_else(ApiError::not_found)?;
    let (conn, allowed) = change.parts();
    if let Some(member) = store::remove_member(conn, allowed, &user).await? {
        change.note_before(&member);
        administrators::keep_one(change.conn()).await?;
    }
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

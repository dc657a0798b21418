//! Handlers of floating IPs.

mod association;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::store;
use super::types::{CreateFloatingIp, FloatingIp, UpdateFloatingIp, validate};
use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{ApiError, Call, LabelledPageQuery, MutationQuery, Page, Path, Selector, merge_labels};
use crate::quotas;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_floating_ip, list_floating_ips))
        .routes(routes!(get_floating_ip, update_floating_ip, delete_floating_ip))
        .merge(association::router())
}

/// Take a public address: that which has been free for longest, unless another is asked for. It stands
/// for nothing until it is associated.
#[utoipa::path(post, path = "/v1/projects/{project}/floating_ips", tag = "floating_ips",
    params(MutationQuery), request_body = CreateFloatingIp, responses(
        (status = 201, body = FloatingIp),
))]
async fn create_floating_ip(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateFloatingIp = call.json()?;
    ApiError::reject(validate(&new.labels))?;
    let place = New { labels: &new.labels, ..New::named(new.name.as_str()) };
    let mut change = call.changing::<actions::CreateFloatingIp>(&app, (&project, place)).await?;
    let (id, now): (Uuid, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    store::allocation::insert(conn, allowed, id, &new, now).await?;
    let row = store::find(conn, allowed, &Selector::Id(id)).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

/// List the floating IPs of a project.
#[utoipa::path(get, path = "/v1/projects/{project}/floating_ips", tag = "floating_ips",
    params(LabelledPageQuery), responses(
        (status = 200, body = Page<FloatingIp>),
))]
async fn list_floating_ips(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<FloatingIp>>, ApiError> {
    let (query, labels) = call.query::<LabelledPageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListFloatingIps>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), &labels, query.rows()).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |floating_ip: &FloatingIp| floating_ip.id.as_uuid())))
}

/// Get a floating IP.
#[utoipa::path(get, path = "/v1/projects/{project}/floating_ips/{floating_ip}", tag = "floating_ips",
    responses(
        (status = 200, body = FloatingIp),
))]
async fn get_floating_ip(
    State(app): State<App>,
    Path((project, floating_ip)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetFloatingIp>(&app, (&project, &floating_ip)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Change a floating IP's name or labels.
#[utoipa::path(patch, path = "/v1/projects/{project}/floating_ips/{floating_ip}", tag = "floating_ips",
    params(MutationQuery), request_body = UpdateFloatingIp, responses(
        (status = 200, body = FloatingIp),
))]
async fn update_floating_ip(
    State(app): State<App>,
    Path((project, floating_ip)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateFloatingIp = call.json()?;
    let mut change = call.changing::<actions::UpdateFloatingIp>(&app, (&project, &floating_ip)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::lock(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    if let Some(name) = patch.name {
        row.name = name.as_str().to_owned();
    }
    row.labels.0 = merge_labels(row.labels.0, patch.labels);
    ApiError::reject(validate(&row.labels))?;
    row.generation += 1;
    row.updated_at = now;
    let mut change = change.check_renamed(row.id, &row.name, &row.labels).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Give a public address back. One that is associated stops to stand for its port. It may be given to somebody else,
/// after all those of its pool that have been free for longer.
#[utoipa::path(delete, path = "/v1/projects/{project}/floating_ips/{floating_ip}", tag = "floating_ips",
    params(MutationQuery), responses(
        (status = 204),
))]
async fn delete_floating_ip(
    State(app): State<App>,
    Path((project, floating_ip)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteFloatingIp>(&app, (&project, &floating_ip)).await?;
    let (conn, allowed) = change.parts();
    quotas::store::lock(conn, allowed.project()).await?;
    let row = store::lock(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    let id = row.id;
    change.note_before(&row.into_wire());
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

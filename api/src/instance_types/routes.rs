//! Handlers of instance types.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store::{self, InstanceTypeRow};
use super::types::{CreateInstanceType, InstanceType};
use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{ApiError, Call, MutationQuery, Page, PageQuery, Path};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_instance_type, list_instance_types))
        .routes(routes!(get_instance_type, delete_instance_type))
}

/// Offer a size of instance.
#[utoipa::path(post, path = "/v1/instance_types", tag = "instance_types", params(MutationQuery),
    request_body = CreateInstanceType, responses(
        (status = 201, body = InstanceType),
))]
async fn create_instance_type(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let new: CreateInstanceType = call.json()?;
    ApiError::reject(new.validate())?;
    let mut change =
        call.changing::<actions::CreateInstanceType>(&app, New::named(new.name.as_str())).await?;
    let (id, now) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    let row = store::insert(conn, allowed, id, &new, now).await?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

/// List instance types.
#[utoipa::path(get, path = "/v1/instance_types", tag = "instance_types", params(PageQuery), responses(
    (status = 200, body = Page<InstanceType>),
))]
async fn list_instance_types(
    State(app): State<App>,
    call: Call,
) -> Result<axum::Json<Page<InstanceType>>, ApiError> {
    let query = call.query::<PageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListInstanceTypes>(&app, ()).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), query.rows()).await?;
    let items = rows.into_iter().map(InstanceTypeRow::into_wire).collect();
    Ok(axum::Json(query.page(items, |item: &InstanceType| item.id.as_uuid())))
}

/// Get an instance type.
#[utoipa::path(get, path = "/v1/instance_types/{instance_type}", tag = "instance_types", responses(
    (status = 200, body = InstanceType),
))]
async fn get_instance_type(
    State(app): State<App>,
    Path(instance_type): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetInstanceType>(&app, &instance_type).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Withdraw an instance type that no instance has any more.
#[utoipa::path(delete, path = "/v1/instance_types/{instance_type}", tag = "instance_types", params(MutationQuery), responses(
    (status = 204),
))]
async fn delete_instance_type(
    State(app): State<App>,
    Path(instance_type): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteInstanceType>(&app, &instance_type).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    let id = row.id;
    change.note_before(&row.into_wire());
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

//! Handlers of pools.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::PoolId;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use super::types::{CreatePool, Pool, UpdatePool};
use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{ApiError, Call, MutationQuery, Page, PageQuery, Path, Selector};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_pool, list_pools)).routes(routes!(
        get_pool,
        update_pool,
        delete_pool
    ))
}

/// Offer a directory that several hosts share for volumes.
#[utoipa::path(post, path = "/v1/pools", tag = "pools", params(MutationQuery), request_body = CreatePool, responses(
    (status = 201, body = Pool),
))]
async fn create_pool(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let new: CreatePool = call.json()?;
    ApiError::reject(new.validate())?;
    let mut change = call.changing::<actions::CreatePool>(&app, New::named(new.name.as_str())).await?;
    let (id, now): (PoolId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    store::insert(conn, allowed, id, &new, now).await?;
    let row = store::read(conn, &Selector::Id(id.as_uuid())).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

/// List pools.
#[utoipa::path(get, path = "/v1/pools", tag = "pools", params(PageQuery), responses(
    (status = 200, body = Page<Pool>),
))]
async fn list_pools(State(app): State<App>, call: Call) -> Result<axum::Json<Page<Pool>>, ApiError> {
    let query = call.query::<PageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListPools>(&app, ()).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), query.rows()).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |pool: &Pool| pool.id.as_uuid())))
}

/// Get a pool.
#[utoipa::path(get, path = "/v1/pools/{pool}", tag = "pools", responses(
    (status = 200, body = Pool),
))]
async fn get_pool(
    State(app): State<App>,
    Path(pool): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetPool>(&app, &pool).await?;
    let (conn, allowed) = reading.parts();
    let row = store::read(conn, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Change a pool's description, how much of it may be given away, or how full it may become.
#[utoipa::path(patch, path = "/v1/pools/{pool}", tag = "pools", params(MutationQuery),
    request_body = UpdatePool, responses(
        (status = 200, body = Pool),
))]
async fn update_pool(
    State(app): State<App>,
    Path(pool): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdatePool = call.json()?;
    ApiError::reject(patch.validate())?;
    let mut change = call.changing::<actions::UpdatePool>(&app, &pool).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let row = store::read(conn, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, row.id, &patch, now).await?;
    let row = store::read(conn, &Selector::Id(row.id)).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Withdraw a pool that has no volumes any more, also none whose files a host still removes. Its directory stays as it is.
#[utoipa::path(delete, path = "/v1/pools/{pool}", tag = "pools", params(MutationQuery), responses(
    (status = 204),
))]
async fn delete_pool(
    State(app): State<App>,
    Path(pool): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeletePool>(&app, &pool).await?;
    let (conn, allowed) = change.parts();
    let row = store::read(conn, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, row.id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

//! Handlers of address pools.

use std::net::IpAddr;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use ipnet::IpNet;
use protocol::AddressPoolId;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::Range;
use super::store;
use super::types::{AddressPool, CreateAddressPool, UpdateAddressPool};
use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{
    ApiError, Call, Labels, MutationQuery, Page, PageQuery, Path, Selector, validate_description,
};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_address_pool, list_address_pools)).routes(routes!(
        get_address_pool,
        update_address_pool,
        delete_address_pool
    ))
}

/// Give out a range of public addresses. Whoever may make floating IPs may have them.
#[utoipa::path(post, path = "/v1/address_pools", tag = "address_pools", params(MutationQuery),
    request_body = CreateAddressPool, responses(
        (status = 201, body = AddressPool),
))]
async fn create_address_pool(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let new: CreateAddressPool = call.json()?;
    let range = new.checked()?;
    let mut change = call.changing::<actions::CreateAddressPool>(&app, New::named(new.name.as_str())).await?;
    let (id, now): (AddressPoolId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    store::insert(conn, allowed, id, &new, range, now).await?;
    let row = store::read(conn, &Selector::Id(id.as_uuid())).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

/// List address pools.
#[utoipa::path(get, path = "/v1/address_pools", tag = "address_pools", params(PageQuery), responses(
    (status = 200, body = Page<AddressPool>),
))]
async fn list_address_pools(
    State(app): State<App>,
    call: Call,
) -> Result<axum::Json<Page<AddressPool>>, ApiError> {
    let query = call.query::<PageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListAddressPools>(&app, ()).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), query.rows()).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |pool: &AddressPool| pool.id.as_uuid())))
}

/// Get an address pool.
#[utoipa::path(get, path = "/v1/address_pools/{address_pool}", tag = "address_pools", responses(
    (status = 200, body = AddressPool),
))]
async fn get_address_pool(
    State(app): State<App>,
    Path(pool): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetAddressPool>(&app, &pool).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Change an address pool's name or description, or which of its addresses are given out.
#[utoipa::path(patch, path = "/v1/address_pools/{address_pool}", tag = "address_pools", params(MutationQuery),
    request_body = UpdateAddressPool, responses(
        (status = 200, body = AddressPool),
))]
async fn update_address_pool(
    State(app): State<App>,
    Path(pool): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateAddressPool = call.json()?;
    let mut change = call.changing::<actions::UpdateAddressPool>(&app, &pool).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    if let Some(name) = patch.name {
        row.name = name.as_str().to_owned();
    }
    row.description = patch.description.unwrap_or(row.description);
    let mut errors = Vec::new();
    validate_description(&row.description, &mut errors);
    if let (IpNet::V4(cidr), IpAddr::V4(first), IpAddr::V4(last)) =
        (row.cidr, row.first_address, row.last_address)
    {
        let first = patch.first_address.unwrap_or(first);
        let last = patch.last_address.unwrap_or(last);
        let range = Range::checked(cidr, Some(first), Some(last), &mut errors);
        (row.first_address, row.last_address) = (range.first.into(), range.last.into());
        row.total = i64::from(u32::from(range.last)) - i64::from(u32::from(range.first)) + 1;
    }
    ApiError::reject(errors)?;
    row.generation += 1;
    row.updated_at = now;
    let mut change = change.check_renamed(row.id, &row.name, &Labels::new()).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Delete an address pool of which nothing is given any more.
#[utoipa::path(delete, path = "/v1/address_pools/{address_pool}", tag = "address_pools", params(MutationQuery),
    responses(
        (status = 204),
))]
async fn delete_address_pool(
    State(app): State<App>,
    Path(pool): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteAddressPool>(&app, &pool).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, &row).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

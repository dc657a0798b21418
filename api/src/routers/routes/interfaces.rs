//! Handlers of where routers stand.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{check_no_floating_ips, load};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, ErrorCode, FieldError, MutationQuery, Path, Selector};
use crate::routers::store::{self, interfaces};
use crate::routers::types::{Router, RouterSubnet};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(add_router_interface)).routes(routes!(remove_router_interface))
}

/// Put a router into a subnet. It takes the subnet's gateway address.
#[utoipa::path(post, path = "/v1/projects/{project}/routers/{router}/add_interface", tag = "routers",
    params(MutationQuery), request_body = RouterSubnet, responses(
        (status = 200, body = Router),
))]
async fn add_router_interface(
    State(app): State<App>,
    Path((project, router)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: RouterSubnet = call.json()?;
    let subnet = Selector::parse(&body.subnet).ok_or_else(interfaces::subnet_not_found)?;
    let mut change = call.changing::<actions::AddRouterInterface>(&app, (&project, &router)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let (mut row, parts) = load(conn, allowed).await?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire(&parts));
    row.generation += 1;
    row.updated_at = now;
    let (conn, allowed) = change.parts();
    let subnet = interfaces::subnet(conn, allowed.project().as_uuid(), &subnet).await?;
    let subnet = subnet.ok_or_else(interfaces::subnet_not_found)?;
    let within = parts.routes.iter().find(|route| subnet.cidr.contains(&route.destination));
    if let Some(route) = within {
        let detail = format!(
            "a static route of the router leads to {}, which is in the subnet {}; remove the route first",
            route.destination, subnet.name
        );
        return Err(ApiError::because(ErrorCode::RangeOverlaps, detail));
    }
    interfaces::add(conn, row.id, app.clock.new_id(), &subnet, now).await?;
    store::update(conn, allowed, &row).await?;
    let parts = store::parts(conn, &[row.id]).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire(&parts)).await
}

/// Take a router out of a subnet. Refused while floating IPs or static routes of the router need it there.
#[utoipa::path(post, path = "/v1/projects/{project}/routers/{router}/remove_interface", tag = "routers",
    params(MutationQuery), request_body = RouterSubnet, responses(
        (status = 200, body = Router),
))]
async fn remove_router_interface(
    State(app): State<App>,
    Path((project, router)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: RouterSubnet = call.json()?;
    let subnet = Selector::parse(&body.subnet).ok_or_else(interfaces::subnet_not_found)?;
    let mut change = call.changing::<actions::RemoveRouterInterface>(&app, (&project, &router)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let (mut row, parts) = load(conn, allowed).await?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire(&parts));
    row.generation += 1;
    row.updated_at = now;
    let (conn, allowed) = change.parts();
    let subnet = interfaces::subnet(conn, allowed.project().as_uuid(), &subnet).await?;
    let subnet = subnet.ok_or_else(interfaces::subnet_not_found)?;
    let interface = parts.interfaces.iter().find(|interface| interface.subnet_id == subnet.id);
    let interface = interface.ok_or_else(|| {
        let message = "the router has no interface in this subnet";
        ApiError::invalid(vec![FieldError::new("/subnet", "not_found", message)])
    })?;
    check_no_floating_ips(conn, row.id, Some(subnet.id)).await?;
    if let Some(route) = parts.routes.iter().find(|route| subnet.cidr.contains(&route.next_hop)) {
        let detail =
            format!("the static route to {} leads through this subnet; remove it first", route.destination);
        return Err(ApiError::because(ErrorCode::InUse, detail));
    }
    interfaces::remove(conn, allowed, interface.id).await?;
    store::update(conn, allowed, &row).await?;
    let parts = store::parts(conn, &[row.id]).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire(&parts)).await
}

//! Handlers of what floating IPs stand for.

use std::net::IpAddr;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::actions;
use crate::floating_ips::store::{self, association};
use crate::floating_ips::types::{AssociateFloatingIp, FloatingIp};
use crate::http::{ApiError, Call, FieldError, MutationQuery, Path, Selector};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(associate_floating_ip)).routes(routes!(disassociate_floating_ip))
}

/// What the body names.
enum Named {
    Port(Selector),
    Instance(Selector),
}

impl Named {
    fn of(body: &AssociateFloatingIp) -> Result<Self, ApiError> {
        match (&body.port, &body.instance) {
            (Some(port), None) => Selector::parse(port)
                .map(Self::Port)
                .ok_or_else(|| association::not_found("/port", "the project has no such port")),
            (None, Some(instance)) => Selector::parse(instance)
                .map(Self::Instance)
                .ok_or_else(|| association::not_found("/instance", "the project has no such instance")),
            _ => Err(ApiError::invalid(vec![FieldError::new(
                "/port",
                "invalid",
                "give either port or instance",
            )])),
        }
    }
}

/// Let a floating IP stand for an address of a port, where an external router leads out. One that stands for
/// another address moves.
#[utoipa::path(post, path = "/v1/projects/{project}/floating_ips/{floating_ip}/associate",
    tag = "floating_ips", params(MutationQuery), request_body = AssociateFloatingIp, responses(
        (status = 200, body = FloatingIp),
))]
async fn associate_floating_ip(
    State(app): State<App>,
    Path((project, floating_ip)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: AssociateFloatingIp = call.json()?;
    let named = Named::of(&body)?;
    let mut change = call.changing::<actions::AssociateFloatingIp>(&app, (&project, &floating_ip)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    let (conn, allowed) = change.parts();
    let port = match named {
        Named::Port(port) => port,
        Named::Instance(instance) => association::first_port(conn, allowed, &instance).await?,
    };
    let target = association::target(conn, allowed, &port, body.fixed_address.map(IpAddr::V4)).await?;
    association::hold_way_out(conn, &target).await?;
    row.port_id = Some(target.port_id);
    row.fixed_address = Some(target.address);
    row.instance_id = target.instance_id;
    row.generation += 1;
    row.updated_at = now;
    store::update(conn, allowed, &row).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Let a floating IP stand for nothing. The project keeps it. Says the same of one that stands for nothing
/// already.
#[utoipa::path(post, path = "/v1/projects/{project}/floating_ips/{floating_ip}/disassociate",
    tag = "floating_ips", params(MutationQuery), responses(
        (status = 200, body = FloatingIp),
))]
async fn disassociate_floating_ip(
    State(app): State<App>,
    Path((project, floating_ip)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DisassociateFloatingIp>(&app, (&project, &floating_ip)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    if row.port_id.is_some() {
        (row.port_id, row.fixed_address, row.instance_id) = (None, None, None);
        row.generation += 1;
        row.updated_at = now;
        let (conn, allowed) = change.parts();
        store::update(conn, allowed, &row).await?;
    }
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

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
use crate::http::{ApiError, Call, ErrorCode, FieldError, Mutation, MutationQuery, Path, Selector};

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
            (Some(port), None) => Selector::parse(port).map(Self::Port).ok_or_else(association::no_port),
            (None, Some(instance)) => {
                Selector::parse(instance).map(Self::Instance).ok_or_else(association::no_instance)
            }
            _ => Err(ApiError::invalid(vec![FieldError::new(
                "/port",
                "invalid",
                "give either port or instance",
            )])),
        }
    }
}

/// Let a floating IP stand for an address of a port, where an external router leads out. One that stands for
/// another address moves. It also needs `network:UpdatePort` on the port and, if that is the card of an instance,
/// `compute:AttachPort` on the instance.
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
    let change = call.changing::<actions::AssociateFloatingIp>(&app, (&project, &floating_ip)).await?;
    let now = change.now;
    let (mut change, port) = check_target(change, &project, named).await?;
    let (conn, allowed) = change.parts();
    let target = association::target(conn, allowed, &port, body.fixed_address.map(IpAddr::V4)).await?;
    association::hold_way_out(conn, &target).await?;
    let mut row = store::lock(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    let (conn, allowed) = change.parts();
    row.port_id = Some(target.port_id);
    row.fixed_address = Some(target.address);
    row.instance_id = target.instance_id;
    row.generation += 1;
    row.updated_at = now;
    store::update(conn, allowed, &row).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Asks for the rights on what the floating IP is to stand for: whoever reaches the address reaches that. The instance is
/// locked before its port, as everywhere.
async fn check_target(
    mut change: Mutation<actions::AssociateFloatingIp>,
    project: &str,
    named: Named,
) -> Result<(Mutation<actions::AssociateFloatingIp>, Selector), ApiError> {
    let (conn, allowed) = change.parts();
    let (instance, port, missing): (_, _, fn() -> ApiError) = match named {
        Named::Port(port) => {
            let instance = association::instance_of(conn, allowed, &port).await?;
            (instance.map(Selector::Id), Some(port), association::no_port)
        }
        Named::Instance(instance) => (Some(instance), None, association::no_instance),
    };
    if let Some(instance) = &instance {
        change = change.also::<actions::AttachPort>((project, &instance.to_string()), missing).await?;
    }
    let (conn, allowed) = change.parts();
    let is_named = port.is_some();
    let port = match (port, &instance) {
        (Some(port), _) => port,
        (None, Some(instance)) => Selector::Id(association::first_port(conn, allowed, instance).await?),
        (None, None) => return Err(missing()),
    };
    let mut change = change.also::<actions::UpdatePort>((project, &port.to_string()), missing).await?;
    let (conn, allowed) = change.parts();
    let now = association::instance_of(conn, allowed, &port).await?.map(Selector::Id);
    if is_named && now != instance {
        let detail = "the port has become the card of another instance just now; ask again";
        return Err(ApiError::because(ErrorCode::Busy, detail).retry_after(1));
    }
    Ok((change, port))
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
    let mut row = store::lock(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
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

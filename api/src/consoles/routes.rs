//! Handlers of consoles.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::ConsoleId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::connect;
use super::model::{TICKET_LIFETIME, Ticket};
use super::types::{Console, CreateConsole};
use super::{screenshot, store};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, MutationQuery, Path};
use crate::instances::Reference;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_console))
        .routes(routes!(connect::open_console))
        .routes(routes!(screenshot::get_instance_screenshot))
}

/// Ask for a console of a running instance: a ticket that opens one WebSocket within 60 seconds.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/consoles", tag = "instances",
    params(MutationQuery), request_body = CreateConsole, responses(
        (status = 201, body = Console),
        (status = 503, description = "`host_unreachable`"),
))]
async fn create_console(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateConsole = call.json()?;
    let mut change = call.changing::<actions::OpenConsole>(&app, (&project, &instance)).await?;
    let (ticket, id, now) = (Ticket::generate(), app.clock.new_id::<ConsoleId>(), change.now);
    let (caller, resource) = (change.caller.clone(), change.allowed.decided().resource.clone());
    let (conn, allowed) = change.parts();
    let found = store::instance(conn, allowed, allowed.selector(), now).await?;
    let found = found.ok_or_else(ApiError::not_found)?;
    found.host()?;
    let expires_at = now + TICKET_LIFETIME;
    let row = store::New {
        id,
        instance: found.id,
        kind: new.kind,
        resource: &resource,
        ticket_hash: ticket.hash(),
        principal_name: &caller.principal.name,
        credential_kind: caller.credential.kind,
        credential_id: caller.credential.id,
        request_id: call.request_id(),
        now,
        expires_at,
    };
    store::insert(conn, allowed, row).await?;
    let scheme = if caller.client.secure_transport { "wss" } else { "ws" };
    let console = |subprotocols| Console {
        id,
        kind: new.kind,
        instance: Reference { id: found.id, name: found.name.clone() },
        url: format!("{scheme}://{}/v1/consoles/{id}", call.authority().unwrap_or("localhost")),
        subprotocols,
        expires_at,
    };
    change.commit_secret(StatusCode::CREATED, &console(Some(ticket.subprotocols())), &console(None)).await
}

//! Plugging network cards in and pulling them out, also while the guest runs.

use axum::extract::State;
use axum::response::Response;

use super::super::store::NewIntent;
use super::super::types::{DetachPort, Instance};
use super::power::{apply, next_intent};
use super::{accept, lock, refuse_deleting};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, MutationQuery, Path};
use crate::ports::cards::{self, WantedCard};

/// Give an instance a network card more: a new port in a network, or one that is there, which needs
/// `network:UpdatePort` on the port, too.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/attach_port", tag = "instances",
    params(MutationQuery), request_body = WantedCard, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn attach_port(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let wanted: WantedCard = call.json()?;
    let mut errors = Vec::new();
    wanted.validate("", &mut errors);
    ApiError::reject(errors)?;
    let mut change = call.changing::<actions::AttachPort>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    let wanted = [wanted];
    let mut change = cards::check_ports(change, &project, &wanted, |_| String::new()).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let prepared = cards::prepare(conn, allowed, &wanted, |_| String::new()).await?;
    cards::attach(conn, allowed, &prepared, row.id.into(), &app.clock, now).await?;
    let next = NewIntent { cards_change: true, ..next_intent(&app, &call, &change, &row) };
    apply(&app, change, &row, "attach_port", next).await
}

/// Take a network card away from an instance. As soon as its guest has let go of it, a port that was made with the
/// instance is deleted, and another may be attached elsewhere.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/detach_port", tag = "instances",
    params(MutationQuery), request_body = DetachPort, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn detach_port(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: DetachPort = call.json()?;
    let mut change = call.changing::<actions::DetachPort>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let placed = row.host_id.is_some();
    if !cards::detach(conn, allowed, row.id.into(), placed, &body.port, now).await? {
        // Asking twice is asking once.
        return accept(&app, change, row.id).await;
    }
    let next = NewIntent { cards_change: true, ..next_intent(&app, &call, &change, &row) };
    apply(&app, change, &row, "detach_port", next).await
}

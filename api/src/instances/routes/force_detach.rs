//! Taking a volume away from a guest that does not let go, or from a host that is lost. INVARIANT: it is let go by the word of
//! its host, or by the operator's that the host is dead, and by no other.

use axum::extract::State;
use axum::response::Response;
use protocol::HostId;

use super::super::store::{NewIntent, Row, departures};
use super::super::types::{ForceDetachVolume, Instance, StopInstance};
use super::super::verbs::Verb;
use super::power::next_intent;
use super::volumes::refuse_running;
use super::{accept, change_intent, lock, refuse_deleting};
use crate::app::App;
use crate::auth::actions;
use crate::hosts::store::{Standing, standing};
use crate::http::{ApiError, Call, ErrorCode, Mutation, MutationQuery, Path};
use crate::operations::store::{End, finish};
use crate::snapshots::store::taking::refuse_taking;
use crate::volumes::store::{attachments, set_operation};

/// Take a volume away from an instance whose guest does not let go of it, or whose host is lost. Of a host that is heard the
/// guest is cut off first; of one that is not, nothing is taken until the operator has declared it dead.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/force_detach_volume", tag = "instances",
    params(MutationQuery), request_body = ForceDetachVolume, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn force_detach_volume(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: ForceDetachVolume = call.json()?;
    let mut change = call.changing::<actions::ForceDetachVolume>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    let host = row.host_id.map(HostId::from);
    let host =
        host.ok_or_else(|| refused("it is on no host, so that no guest has the volume; detach it as usual"))?;
    let (conn, allowed) = change.parts();
    let volume = attachments::find_attached(conn, allowed, row.id, &body.volume).await?;
    if volume.position < 0 {
        return Err(refused("it is rescued from this volume; unrescue it instead"));
    }
    let mut change =
        change.also::<actions::ReturnVolume>((&project, &body.volume), ApiError::not_found).await?;
    refuse_taking(change.conn(), row.id).await?;
    let now = change.now;
    let (name, standing) = standing(change.conn(), host, now).await?;
    let is_lost = check(&name, standing, volume.shared, body.stop_instance)?;
    if !is_lost && volume.position == 0 {
        refuse_running(&row)?;
    }
    let next = next_of(&app, &call, &change, &row, is_lost)?;
    let (conn, allowed) = change.parts();
    change_intent(conn, allowed, &row, "force_detach_volume", &next).await?;
    set_operation(conn, volume.id, next.operation_id).await?;
    if is_lost {
        departures::forget_volumes(conn, row.id).await?;
        attachments::release(conn, &[volume.id], next.now).await?;
        finish(conn, next.operation_id, &End::Succeeded, next.now).await?;
    } else {
        attachments::leave(conn, volume.id, next.now).await?;
    }
    accept(&app, change, row.id).await
}

/// A lost host has no guest to be stopped.
fn next_of(
    app: &App,
    call: &Call,
    change: &Mutation<actions::ForceDetachVolume>,
    row: &Row,
    is_lost: bool,
) -> Result<NewIntent, ApiError> {
    let present = next_intent(app, call, change, row);
    if is_lost {
        return Ok(present);
    }
    Verb::Stop.next(row, &StopInstance { force: true, timeout_seconds: None }, present)
}

/// Whether the host is dead; what has to be done first, where it is not safe.
fn check(host: &str, standing: Standing, shared: bool, stop_instance: bool) -> Result<bool, ApiError> {
    match standing {
        Standing::Dead if shared => Ok(true),
        Standing::Dead => Err(refused(format!(
            "its data is on the disk of the host {host} alone, and nobody else can have it; wait for the host, or make a new \
             volume"
        ))),
        Standing::Silent => Err(refused(format!(
            "nothing is heard of the host {host}, and a guest there may be writing to the volume; cut its power, declare it \
             dead (`declare_dead` of the host), and ask again"
        ))),
        Standing::Heard if stop_instance => Ok(false),
        Standing::Heard => Err(refused(format!(
            "the host {host} is heard, and its guest has not let go of the volume; ask again with `stop_instance` set to \
             true: the guest is cut off, and the volume is free when the host has said so"
        ))),
    }
}

fn refused(why: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::because(ErrorCode::WrongState, why)
}

//! Starting, stopping, rebooting and deleting: each stores the next intent, nothing more.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::agent::Power;
use protocol::{HostId, OperationId, RequestId};
use time::OffsetDateTime;

use super::super::model::{InstanceState, shown};
use super::super::store::{self, NewIntent, Row, departures};
use super::super::types::{DEFAULT_STOP_TIMEOUT_SECONDS, Instance, StopInstance};
use super::{accept, change_intent, lock, refuse_deleting};
use crate::app::App;
use crate::auth::{Action, InProject, actions};
use crate::hosts;
use crate::http::{ApiError, Call, ErrorCode, Mutation, MutationQuery, NoFields, Path};
use crate::operations;
use crate::volumes::store::{attachments, ending};

/// Start a stopped instance. Does nothing to one that runs.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/start", tag = "instances",
    params(MutationQuery),
    responses(
        (status = 202, body = Instance),
))]
pub(super) async fn start_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    call.json::<NoFields>()?;
    let mut change = call.changing::<actions::StartInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    if !row.boots() {
        let detail = "it has no volume to boot from; attach one with `root` set to true first";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    let next = next_intent(&app, &call, &change, &row);
    let next = NewIntent { power: Power::Running, boot: row.boot + i64::from(ended(&row)), ..next };
    apply(&app, change, &row, "start_instance", next).await
}

/// Stop an instance: the power button first, the power itself after a time-out.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/stop", tag = "instances",
    params(MutationQuery),
    request_body = StopInstance, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn stop_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: StopInstance = call.json()?;
    ApiError::reject(body.validate())?;
    let mut change = call.changing::<actions::StopInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    let present = next_intent(&app, &call, &change, &row);
    let next = NewIntent {
        power: Power::Stopped,
        stop_mode: body.mode(),
        stop_timeout_seconds: body.timeout_seconds(),
        ..present
    };
    apply(&app, change, &row, "stop_instance", next).await
}

/// Shut an instance down, like a stop, and start it again.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/reboot", tag = "instances",
    params(MutationQuery),
    request_body = StopInstance, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn reboot_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: StopInstance = call.json()?;
    ApiError::reject(body.validate())?;
    let mut change = call.changing::<actions::RebootInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    let (state, _) = shown(&row.intent(), row.observed().as_ref(), true, false);
    if state == InstanceState::Stopped || row.intent().power == Power::Stopped {
        return Err(ApiError::because(ErrorCode::WrongState, "it is stopped; start it instead"));
    }
    let present = next_intent(&app, &call, &change, &row);
    let next = NewIntent {
        power: Power::Running,
        boot: row.boot + 1,
        stop_mode: body.mode(),
        stop_timeout_seconds: body.timeout_seconds(),
        ..present
    };
    apply(&app, change, &row, "reboot_instance", next).await
}

/// Delete an instance with the volumes that go with it; the others stay. It is cut off at once.
#[utoipa::path(delete, path = "/v1/projects/{project}/instances/{instance}", tag = "instances",
    params(MutationQuery),
    responses(
        (status = 202, body = Instance, description = "Stored; its host is removing it"),
        (status = 204, description = "Gone, if the call waited for it"),
))]
pub(super) async fn delete_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    if row.deletion_requested_at.is_some() {
        // Asking twice is asking once.
        return accept(&app, change, row.id).await;
    }
    let next = NewIntent { deletion_requested: true, ..next_intent(&app, &call, &change, &row) };
    if let Some(host) = row.host_id.map(HostId::from) {
        let now = change.now;
        if attachments::lock_all_shared(change.conn(), row.id).await?.is_none()
            && hosts::store::is_declared_dead(change.conn(), host).await?
        {
            // Nothing of it needs that host.
            let (conn, allowed) = change.parts();
            departures::leave(conn, allowed, row.id, host, now).await?;
            return delete_unplaced(change, &Row { host_id: None, ..row }, &next).await;
        }
        ending::request(change.conn(), row.id, now).await?;
        return apply(&app, change, &row, "delete_instance", next).await;
    }
    delete_unplaced(change, &row, &next).await
}

/// No host knows of it: the row is all there is.
async fn delete_unplaced(
    mut change: Mutation<actions::DeleteInstance>,
    row: &Row,
    next: &NewIntent,
) -> Result<Response, ApiError> {
    let now = change.now;
    let (conn, allowed) = change.parts();
    change_intent(conn, allowed, row, "delete_instance", next).await?;
    let selector = crate::http::Selector::Id(row.id);
    let deleting = store::find(conn, allowed, &selector).await?.ok_or_else(ApiError::not_found)?;
    store::delete_unplaced(conn, allowed, row.id, now).await?;
    operations::store::finish(conn, next.operation_id, &operations::store::End::Succeeded, now).await?;
    // Whoever waits has waited long enough.
    let status = if change.query.wait > 0 { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED };
    change.commit(status, None, &deleting.into_wire(now)).await
}

/// The present intent under a new operation.
pub(super) fn next_intent<A: Action>(app: &App, call: &Call, change: &Mutation<A>, row: &Row) -> NewIntent {
    present_intent(row, app.clock.new_id(), call.request_id(), change.now)
}

/// The same under this operation.
pub(super) fn present_intent(
    row: &Row,
    operation_id: OperationId,
    request_id: RequestId,
    now: OffsetDateTime,
) -> NewIntent {
    NewIntent {
        power: row.intent().power,
        boot: row.boot,
        stop_mode: "graceful",
        stop_timeout_seconds: DEFAULT_STOP_TIMEOUT_SECONDS.cast_signed(),
        deletion_requested: false,
        cards_change: false,
        operation_id,
        request_id,
        now,
    }
}

/// Whether the present boot is over or on its way out, so that a start needs another one.
fn ended(row: &Row) -> bool {
    let (state, _) = shown(&row.intent(), row.observed().as_ref(), true, false);
    matches!(state, InstanceState::Stopped | InstanceState::Stopping)
}

pub(super) async fn apply<A: Action<On: InProject>>(
    app: &App,
    mut change: Mutation<A>,
    row: &Row,
    kind: &'static str,
    next: NewIntent,
) -> Result<Response, ApiError> {
    let (conn, allowed) = change.parts();
    change_intent(conn, allowed, row, kind, &next).await?;
    accept(app, change, row.id).await
}

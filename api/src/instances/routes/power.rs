//! Starting, stopping, rebooting, pausing and deleting: each stores the next intent, nothing more.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::{OperationId, RequestId};
use time::OffsetDateTime;

use super::super::deeds::{Deleted, delete};
use super::super::model::stored;
use super::super::store::{NewIntent, Row};
use super::super::types::{Instance, StopInstance};
use super::super::verbs::Verb;
use super::{accept, change_intent, lock};
use crate::app::App;
use crate::auth::{Action, InProject, OfResource, actions};
use crate::http::{ApiError, Call, Mutation, MutationQuery, NoFields, Path};

/// Start a stopped instance, or let a paused one go on. Does nothing to one that runs.
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
    let change = call.changing::<actions::StartInstance>(&app, (&project, &instance)).await?;
    carry_out(&app, &call, change, Verb::Start, &StopInstance::default()).await
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
    let change = call.changing::<actions::StopInstance>(&app, (&project, &instance)).await?;
    carry_out(&app, &call, change, Verb::Stop, &body).await
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
    let change = call.changing::<actions::RebootInstance>(&app, (&project, &instance)).await?;
    carry_out(&app, &call, change, Verb::Reboot, &body).await
}

/// Let a running guest stand still, with all that it has in memory. It uses no processor until it is resumed; its host
/// keeps its memory for it.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/pause", tag = "instances",
    params(MutationQuery),
    responses(
        (status = 202, body = Instance),
))]
pub(super) async fn pause_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    call.json::<NoFields>()?;
    let change = call.changing::<actions::PauseInstance>(&app, (&project, &instance)).await?;
    carry_out(&app, &call, change, Verb::Pause, &StopInstance::default()).await
}

/// Let a paused guest go on where it stood. Does nothing to one that runs.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/resume", tag = "instances",
    params(MutationQuery),
    responses(
        (status = 202, body = Instance),
))]
pub(super) async fn resume_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    call.json::<NoFields>()?;
    let change = call.changing::<actions::ResumeInstance>(&app, (&project, &instance)).await?;
    carry_out(&app, &call, change, Verb::Resume, &StopInstance::default()).await
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
    let present = next_intent(&app, &call, &change, &row);
    let next = Verb::Delete.next(&row, &StopInstance::default(), present)?;
    let (conn, allowed) = change.parts();
    let behalf = allowed.into();
    match delete(conn, behalf, &row, &next).await? {
        Deleted::Requested => accept(&app, change, row.id).await,
        Deleted::Gone(last) => {
            // Whoever waits has waited long enough.
            let status = if change.query.wait > 0 { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED };
            let now = change.now;
            change.commit(status, None, &last.into_wire(now)).await
        }
    }
}

/// The present intent under a new operation.
pub(super) fn next_intent<A: Action>(app: &App, call: &Call, change: &Mutation<A>, row: &Row) -> NewIntent {
    present_intent(row, app.clock.new_id(), call.request_id(), change.now)
}

/// The same under this operation.
pub(in crate::instances) fn present_intent(
    row: &Row,
    operation_id: OperationId,
    request_id: RequestId,
    now: OffsetDateTime,
) -> NewIntent {
    NewIntent {
        power: row.intent().power,
        boot: row.boot,
        stop_mode: stored::parse_stop_mode(&row.stop_mode),
        stop_timeout_seconds: row.stop_timeout_seconds,
        deletion_requested: false,
        cards_change: false,
        operation_id,
        request_id,
        now,
    }
}

async fn carry_out<A: Action<On: InProject + OfResource>>(
    app: &App,
    call: &Call,
    mut change: Mutation<A>,
    verb: Verb,
    stop: &StopInstance,
) -> Result<Response, ApiError> {
    let row = lock(&mut change).await?;
    let present = next_intent(app, call, &change, &row);
    let next = verb.next(&row, stop, present)?;
    apply(app, change, &row, verb.kind(), next).await
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

//! Taking a snapshot.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::{OperationId, SnapshotId};

use crate::app::App;
use crate::auth::{New as NewResource, actions};
use crate::http::{ApiError, Call, ErrorCode, FieldError, Mutation, MutationQuery, Path, Selector, tagged};
use crate::operations::{self, wait_for_end};
use crate::snapshots::store;
use crate::snapshots::store::taking::{self, New, Source};
use crate::snapshots::types::{CreateSnapshot, Snapshot};
use crate::volumes;

/// Take a snapshot of a volume, or of all volumes of an instance at one instant. The guest goes on running.
#[utoipa::path(post, path = "/v1/projects/{project}/snapshots", tag = "snapshots",
    params(MutationQuery), request_body = CreateSnapshot, responses(
        (status = 201, body = Snapshot, description = "Taken: no guest runs that could write to it"),
        (status = 202, body = Snapshot, description = "Stored; the host of the guest is taking it"),
))]
pub(super) async fn create_snapshot(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateSnapshot = call.json()?;
    ApiError::reject(new.validate())?;
    let mut entry = call.entering(&app, Some(&project)).await?;
    let locked = match (&new.volume, &new.instance) {
        (Some(volume), _) => volumes::store::lock_instance_of(entry.conn(), &project, volume).await?,
        (None, Some(instance)) => taking::lock_instance(entry.conn(), &project, instance).await?,
        (None, None) => None,
    };
    let place = NewResource { labels: &new.labels, ..NewResource::named(new.name.as_str()) };
    let change = entry.decide::<actions::CreateSnapshot>((&project, place)).await?;
    let (mut change, source) = source(change, &project, &new, locked).await?;
    let (id, now): (SnapshotId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    let snapshot = New {
        id,
        project: allowed.project(),
        name: new.name.as_str(),
        description: &new.description,
        labels: &new.labels,
        consistency: new.consistency,
        memory: new.memory,
        source,
        now,
    };
    let host_acts = taking::take(conn, &snapshot, &app.clock).await?;
    let operation: Option<OperationId> = host_acts.then(|| app.clock.new_id());
    if let Some(operation) = operation {
        let begin = operations::store::Begin {
            id: operation,
            kind: "create_snapshot",
            resource_id: id.as_uuid(),
            resource_name: new.name.as_str(),
            request_id: call.request_id(),
            now,
        };
        operations::store::begin(conn, allowed, begin).await?;
        taking::set_operation(conn, id, operation).await?;
    }
    answer(&app, change, id, operation).await
}

/// What the body names, locked; the instance of a volume was locked before.
async fn source(
    change: Mutation<actions::CreateSnapshot>,
    project: &str,
    new: &CreateSnapshot,
    locked: Option<uuid::Uuid>,
) -> Result<(Mutation<actions::CreateSnapshot>, Source), ApiError> {
    if let Some(volume) = &new.volume {
        let missing = || invalid("/volume", "this project has no such volume");
        let mut change = change.also::<actions::SnapshotVolume>((project, volume), missing).await?;
        let (conn, allowed) = change.parts();
        let found = volumes::store::identify(conn, allowed, volume).await?.ok_or_else(missing)?;
        if found.instance_id != locked {
            // Attached or detached a moment ago.
            return Err(ApiError::new(ErrorCode::Busy).retry_after(1));
        }
        return Ok((change, Source::Volume(found.id)));
    }
    let instance = new.instance.as_deref().unwrap_or_default();
    let missing = || invalid("/instance", "this project has no such instance");
    let change = change.also::<actions::SnapshotInstance>((project, instance), missing).await?;
    Ok((change, Source::Instance(locked.ok_or_else(missing)?)))
}

fn invalid(pointer: &str, message: &str) -> ApiError {
    ApiError::invalid(vec![FieldError::new(pointer, "not_found", message)])
}

/// Commits, and waits for the operation when the caller asked to: the answer then shows the end.
async fn answer(
    app: &App,
    mut change: Mutation<actions::CreateSnapshot>,
    id: SnapshotId,
    operation: Option<OperationId>,
) -> Result<Response, ApiError> {
    let (conn, allowed) = change.parts();
    let selector = Selector::Id(id.as_uuid());
    let row = store::find(conn, allowed, &selector).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    let wait = if change.query.dry_run { 0 } else { change.query.wait };
    let allowed = change.allowed.clone();
    let status = if operation.is_some() { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    let answer = change.commit(status, Some(version), &row.into_wire(app.clock.now())).await?;
    let Some(operation) = operation.filter(|_| wait > 0) else { return Ok(answer) };
    wait_for_end(app, &allowed, operation, wait).await?;
    let mut conn = app.pool.acquire().await?;
    let row = store::find(&mut conn, &allowed, &selector).await?.ok_or_else(ApiError::not_found)?;
    tagged(StatusCode::OK, row.version(), &row.into_wire(app.clock.now()))
}

//! Changing and deleting volumes: with the transaction where no host has to act, as an operation where one has.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use protocol::OperationId;
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Action, InProject, actions};
use crate::http::{
    ApiError, Call, ErrorCode, FieldError, Mutation, MutationQuery, Path, Selector, merge_labels, tagged,
    validate_description, validate_labels,
};
use crate::instances;
use crate::nudge::{self, Topic};
use crate::operations::{self, wait_for_end};
use crate::volumes::AttachmentState;
use crate::volumes::store::layers::{self, Told};
use crate::volumes::store::{self, Row};
use crate::volumes::types::{UpdateVolume, Volume};

/// Change a volume. Its size and limits reach a guest that has it while it runs. That it goes with its
/// instance needs `volume:DeleteVolume`, too.
#[utoipa::path(patch, path = "/v1/projects/{project}/volumes/{volume}", tag = "volumes",
    params(MutationQuery), request_body = UpdateVolume, responses(
        (status = 200, body = Volume),
        (status = 202, body = Volume, description = "Stored; the host of its instance is making it so"),
))]
pub(super) async fn update_volume(
    State(app): State<App>,
    Path((project, volume)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateVolume = call.json()?;
    ApiError::reject(patch.validate())?;
    let mut entry = call.entering(&app, Some(&project)).await?;
    let locked = store::lock_instance_of(entry.conn(), &project, &volume).await?;
    let mut change = entry.decide::<actions::UpdateVolume>((&project, &volume)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    if row.instance_id != locked {
        // Attached or detached a moment ago.
        return Err(ApiError::new(ErrorCode::Busy).retry_after(1));
    }
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire(app.clock.now()));
    let kept = !row.delete_with_instance;
    let host_acts = apply(&mut row, patch)?;
    let change = match kept && row.delete_with_instance {
        true => change.also::<actions::DeleteVolume>((&project, &volume), ApiError::not_found).await?,
        false => change,
    };
    row.updated_at = now;
    let mut change = change.check_renamed(row.id, &row.name, &row.labels).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    let Some(instance) = row.instance_id.filter(|_| host_acts && row.instance_placed) else {
        if host_acts && row.instance_id.is_some() {
            // It may fit on another host now.
            nudge::send(conn, Topic::Placement).await?;
        }
        let row = store::find(conn, allowed, &Selector::Id(row.id)).await?.ok_or_else(ApiError::not_found)?;
        let version = row.version();
        return change.commit(StatusCode::OK, Some(version), &row.into_wire(app.clock.now())).await;
    };
    let operation: OperationId = app.clock.new_id();
    let of = instances::OfVolume { kind: "update_volume", operation, request: call.request_id(), now };
    instances::change_volumes(conn, allowed, instance, &of).await?;
    store::set_operation(conn, row.id, operation).await?;
    accept(&app, change, row.id, operation).await
}

/// Applies the patch to the row; true when a host has to hear of it.
fn apply(row: &mut Row, patch: UpdateVolume) -> Result<bool, ApiError> {
    if row.deletion_requested_at.is_some() {
        return Err(ApiError::because(ErrorCode::WrongState, "it is being deleted"));
    }
    let before = (row.size_gib, row.iops_limit, row.bytes_per_second_limit);
    let mut errors = Vec::new();
    if let Some(name) = patch.name {
        row.name = name.as_str().to_owned();
    }
    row.description = patch.description.unwrap_or_else(|| row.description.clone());
    row.labels.0 = merge_labels(row.labels.0.clone(), patch.labels);
    validate_description(&row.description, &mut errors);
    validate_labels(&row.labels, &mut errors);
    row.delete_protection = patch.delete_protection.unwrap_or(row.delete_protection);
    if let Some(size) = patch.size_gib {
        if size < row.size_gib {
            let message = format!("a volume only grows, and this one has {} GiB", row.size_gib);
            errors.push(FieldError::new("/size_gib", "too_small", message));
        }
        row.size_gib = size;
    }
    row.iops_limit = patch.iops_limit.unwrap_or(row.iops_limit);
    row.bytes_per_second_limit = patch.bytes_per_second_limit.unwrap_or(row.bytes_per_second_limit);
    ApiError::reject(errors)?;
    if let Some(delete_with_instance) = patch.delete_with_instance {
        if !matches!(row.attachment(), Some(AttachmentState::Attaching | AttachmentState::Attached)) {
            let detail = "it is attached to no instance with which it could go; attach it first";
            return Err(ApiError::because(ErrorCode::WrongState, detail));
        }
        row.delete_with_instance = delete_with_instance;
    }
    row.generation += 1;
    let changes = before != (row.size_gib, row.iops_limit, row.bytes_per_second_limit);
    if changes && row.attachment() == Some(AttachmentState::Detaching) {
        let detail = "it is being detached; wait until its guest has let go of it";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    row.spec_generation += i64::from(changes);
    Ok(changes)
}

/// Delete a volume that is attached to nothing, with its data.
#[utoipa::path(delete, path = "/v1/projects/{project}/volumes/{volume}", tag = "volumes",
    params(MutationQuery), responses(
        (status = 202, body = Volume, description = "Stored; its host is removing the data"),
        (status = 204, description = "Gone: it was on no host, or the call waited for it"),
))]
pub(super) async fn delete_volume(
    State(app): State<App>,
    Path((project, volume)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteVolume>(&app, (&project, &volume)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    if row.deletion_requested_at.is_some() {
        // Asking twice is asking once.
        let operation = row.operation_id.ok_or_else(|| {
            ApiError::because(ErrorCode::WrongState, "it is being deleted with the instance that had it")
        })?;
        return accept(&app, change, row.id, operation.into()).await;
    }
    refuse_needed(&row)?;
    change.note_before(&row.clone().into_wire(app.clock.now()));
    let (conn, allowed) = change.parts();
    if row.host_id.is_none() && row.pool_id.is_none() {
        layers::forget_volume(conn, row.id, now).await?;
        return change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await;
    }
    let operation: OperationId = app.clock.new_id();
    let begin = operations::store::Begin {
        id: operation,
        kind: "delete_volume",
        resource_id: row.id,
        resource_name: &row.name,
        request_id: call.request_id(),
        now,
    };
    operations::store::begin(conn, allowed, begin).await?;
    store::set_operation(conn, row.id, operation).await?;
    layers::remove_volume(conn, row.id, Told::Now, now).await?;
    accept(&app, change, row.id, operation).await
}

/// Refuses to delete what something needs.
fn refuse_needed(row: &Row) -> Result<(), ApiError> {
    let instance = row.instance_name.as_deref().unwrap_or_default();
    let (code, detail) = match row.attachment() {
        Some(AttachmentState::Detaching) => {
            let detail = format!("the instance {instance} may still write to it; wait until it is detached");
            (ErrorCode::InUse, detail)
        }
        Some(_) => {
            let detail = format!("it is attached to the instance {instance}; detach it there first");
            (ErrorCode::InUse, detail)
        }
        None if row.delete_protection => {
            let detail = "it is protected; set its `delete_protection` to false first".to_owned();
            (ErrorCode::WrongState, detail)
        }
        None => return Ok(()),
    };
    Err(ApiError::because(code, detail))
}

/// Commits, and waits for the operation when the caller asked to: the answer then shows the end.
async fn accept<A: Action<On: InProject>>(
    app: &App,
    mut change: Mutation<A>,
    id: Uuid,
    operation: OperationId,
) -> Result<Response, ApiError> {
    let (conn, allowed) = change.parts();
    let selector = Selector::Id(id);
    let row = store::find(conn, allowed, &selector).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    let wait = if change.query.dry_run { 0 } else { change.query.wait };
    let allowed = change.allowed.clone();
    let answer = change.commit(StatusCode::ACCEPTED, Some(version), &row.into_wire(app.clock.now())).await?;
    if wait == 0 {
        return Ok(answer);
    }
    wait_for_end(app, &allowed, operation, wait).await?;
    let mut conn = app.pool.acquire().await?;
    match store::find(&mut conn, &allowed, &selector).await? {
        Some(row) => tagged(StatusCode::OK, row.version(), &row.into_wire(app.clock.now())),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

//! Changing what a snapshot is called, and deleting it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::app::App;
use crate::auth::actions;
use crate::http::{
    ApiError, Call, ErrorCode, MutationQuery, Path, Selector, merge_labels, validate_description,
    validate_labels,
};
use crate::instances::store::guests;
use crate::operations::store::{End, finish};
use crate::snapshots::store;
use crate::snapshots::types::{Snapshot, UpdateSnapshot};

/// Change a snapshot's name, description or labels.
#[utoipa::path(patch, path = "/v1/projects/{project}/snapshots/{snapshot}", tag = "snapshots",
    params(MutationQuery), request_body = UpdateSnapshot, responses(
        (status = 200, body = Snapshot),
))]
pub(super) async fn update_snapshot(
    State(app): State<App>,
    Path((project, snapshot)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateSnapshot = call.json()?;
    let mut change = call.changing::<actions::UpdateSnapshot>(&app, (&project, &snapshot)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire(app.clock.now()));
    let mut errors = Vec::new();
    row.name = patch.name.map_or(row.name, |name| name.as_str().to_owned());
    row.description = patch.description.unwrap_or(row.description);
    row.labels.0 = merge_labels(row.labels.0, patch.labels);
    validate_description(&row.description, &mut errors);
    validate_labels(&row.labels, &mut errors);
    ApiError::reject(errors)?;
    row.generation += 1;
    row.updated_at = now;
    let mut change = change.check_renamed(row.id, &row.name, &row.labels).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    let row = store::find(conn, allowed, &Selector::Id(row.id)).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire(app.clock.now())).await
}

/// Delete a snapshot. Volumes that were made from it, and those that it shows, stay as they are. It is gone at once; the
/// host of its data gives the room back by and by.
#[utoipa::path(delete, path = "/v1/projects/{project}/snapshots/{snapshot}", tag = "snapshots",
    params(MutationQuery), responses(
        (status = 204, description = "Gone"),
))]
pub(super) async fn delete_snapshot(
    State(app): State<App>,
    Path((project, snapshot)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut entry = call.entering(&app, Some(&project)).await?;
    let locked = store::lock_taking_instance(entry.conn(), &project, &snapshot).await?;
    let mut change = entry.decide::<actions::DeleteSnapshot>((&project, &snapshot)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    if row.taking_instance_id.is_some() && row.taking_instance_id != locked {
        return Err(ApiError::new(ErrorCode::Busy).retry_after(1));
    }
    change.note_before(&row.clone().into_wire(app.clock.now()));
    let conn = change.conn();
    store::delete(conn, row.id, now).await.map_err(store::broken)?;
    if let Some(instance) = row.taking_instance_id {
        guests::renew(conn, instance, now).await?;
    }
    if let Some(operation) = row.operation_id {
        let end = End::Cancelled { code: "deleted", detail: "the snapshot was deleted" };
        finish(conn, operation.into(), &end, now).await?;
    }
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

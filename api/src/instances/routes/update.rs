//! Changing what the owner of an instance says of it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::agent::OnHostFailure;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::recovery;
use super::super::store::{self, Metadata, Row, leases};
use super::super::types::{Instance, Times, UpdateInstance};
use super::lock;
use crate::app::App;
use crate::auth::{Action, actions};
use crate::hosts;
use crate::http::{
    ApiError, Call, ErrorCode, Mutation, MutationQuery, Path, Selector, merge_labels, validate_description,
    validate_labels,
};
use crate::nudge::{self, Topic};

/// Change an instance's name, description, labels, protection, lease, or what becomes of it when its host dies.
#[utoipa::path(patch, path = "/v1/projects/{project}/instances/{instance}", tag = "instances",
    params(MutationQuery),
    request_body = UpdateInstance, responses(
        (status = 200, body = Instance),
))]
pub(super) async fn update_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateInstance = call.json()?;
    let mut change = call.changing::<actions::UpdateInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    let now = change.now;
    let name = patch.name.as_ref().map_or(row.name.as_str(), |name| name.as_str());
    let labels = merge_labels(row.labels.0.clone(), patch.labels);
    let description = patch.description.as_deref().unwrap_or(&row.description);
    let mut errors = Vec::new();
    validate_labels(&labels, &mut errors);
    validate_description(description, &mut errors);
    let lease = patch.lease.map(|lease| checked_lease(&row, lease, now, &mut errors));
    ApiError::reject(errors)?;
    // What stays as it is stays on behalf of whoever said so.
    let lease = lease.filter(|times| *times != row.times());
    if let Some(times) = lease {
        change = ask_for_lease(change, &project, row.id, times).await?;
    }
    let mut change = change.check_renamed(row.id, name, &labels).await?;
    let (conn, allowed) = change.parts();
    let before = OnHostFailure::from_name(&row.on_host_failure).unwrap_or_default();
    let on_host_failure = patch.on_host_failure.unwrap_or(before);
    if on_host_failure != before {
        recovery::refuse_local(conn, row.id, on_host_failure).await?;
    }
    let revision = match row.host_id {
        Some(host) => Some(hosts::store::bump_revision(conn, host.into()).await?.0),
        None => None,
    };
    let delete_protection = patch.delete_protection.unwrap_or(row.delete_protection);
    let metadata = Metadata { name, description, labels: &labels, delete_protection, on_host_failure };
    store::update_metadata(conn, allowed, row.id, &metadata, revision, now).await?;
    if let Some(times) = lease {
        leases::set(conn, row.id, times, allowed.principal()).await?;
    } else if row.delete_protection && !delete_protection {
        leases::look_again(conn, row.id, now).await?;
    }
    if let Some(host) = row.host_id {
        nudge::send(conn, Topic::Host(host.into())).await?;
    }
    let row = store::find(conn, allowed, &Selector::Id(row.id)).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire(now)).await
}

fn checked_lease(
    row: &Row,
    patch: Option<super::super::types::PatchedLease>,
    now: OffsetDateTime,
    errors: &mut Vec<crate::http::FieldError>,
) -> Times {
    let before = row.times();
    let times = before.patched(patch);
    times.validate(before, now, errors);
    times
}

/// Whoever sets a time may do now what is done then. The instance is there, if only in this transaction.
pub(super) async fn ask_for_lease<A: Action>(
    mut change: Mutation<A>,
    project: &str,
    id: Uuid,
    times: Times,
) -> Result<Mutation<A>, ApiError> {
    let id = id.to_string();
    if times.stop_at.is_some() {
        change = change.also::<actions::StopInstance>((project, &id), no_right_to_lease).await?;
    }
    if times.delete_at.is_some() {
        change = change.also::<actions::DeleteInstance>((project, &id), no_right_to_lease).await?;
    }
    Ok(change)
}

/// For whoever may not even see the instance.
fn no_right_to_lease() -> ApiError {
    let detail =
        "you may not do to this instance what its lease would; leave that time out, or ask for the right";
    ApiError::because(ErrorCode::Forbidden, detail)
}

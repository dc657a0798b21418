//! Changing what the owner of an instance says of it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use time::OffsetDateTime;

use super::super::store::{self, Metadata, Row, leases};
use super::super::types::{Instance, Times, UpdateInstance};
use super::lock;
use crate::app::App;
use crate::auth::actions;
use crate::hosts;
use crate::http::{
    ApiError, Call, Mutation, MutationQuery, Path, Selector, merge_labels, validate_description,
    validate_labels,
};
use crate::nudge::{self, Topic};

/// Change an instance's name, description, labels, protection or lease.
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
    if let Some(times) = lease {
        change = ask_for_lease(change, &project, &row, times).await?;
    }
    let mut change = change.check_renamed(row.id, name, &labels).await?;
    let (conn, allowed) = change.parts();
    let revision = match row.host_id {
        Some(host) => Some(hosts::store::bump_revision(conn, host.into()).await?.0),
        None => None,
    };
    let delete_protection = patch.delete_protection.unwrap_or(row.delete_protection);
    let metadata = Metadata { name, description, labels: &labels, delete_protection };
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

/// Whoever sets a time may do now what is done then.
async fn ask_for_lease(
    mut change: Mutation<actions::UpdateInstance>,
    project: &str,
    row: &Row,
    times: Times,
) -> Result<Mutation<actions::UpdateInstance>, ApiError> {
    let (id, before) = (row.id.to_string(), row.times());
    if times.stop_at.is_some() && times.stop_at != before.stop_at {
        change = change.also::<actions::StopInstance>((project, &id), ApiError::not_found).await?;
    }
    if times.delete_at.is_some() && times.delete_at != before.delete_at {
        change = change.also::<actions::DeleteInstance>((project, &id), ApiError::not_found).await?;
    }
    Ok(change)
}

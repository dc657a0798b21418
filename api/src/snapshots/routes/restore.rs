//! Going back to a snapshot.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, ErrorCode, FieldError, MutationQuery, Path, Selector, tagged};
use crate::instances::store::guests;
use crate::instances::{Resume, resume_instance};
use crate::operations::wait_for_end;
use crate::snapshots::store::{self, using};
use crate::snapshots::types::{RestoreSnapshot, Snapshot, SnapshotVolume};
use crate::volumes::store::layers;

/// Put volumes back to what they were. What was written since is lost, unless another snapshot holds it. They must be
/// attached to nothing, or their instance stopped. With its memory the instance goes on from there; that is, it is started.
/// Needs `volume:UpdateVolume` on each volume, too, and with memory `compute:StartInstance` on the instance.
#[utoipa::path(post, path = "/v1/projects/{project}/snapshots/{snapshot}/restore", tag = "snapshots",
    params(MutationQuery), request_body = RestoreSnapshot, responses(
        (status = 200, body = Snapshot, description = "Done"),
        (status = 202, body = Snapshot, description = "The volumes are back; the host lets the guest go on from its memory"),
))]
pub(super) async fn restore_snapshot(
    State(app): State<App>,
    Path((project, snapshot)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: RestoreSnapshot = call.json()?;
    let mut entry = call.entering(&app, Some(&project)).await?;
    let locked = using::lock_shown(entry.conn(), &project, &snapshot).await?;
    let mut change = entry.decide::<actions::RestoreSnapshot>((&project, &snapshot)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    row.check_available()?;
    let with_memory = body.with_memory(&row)?;
    change.note_before(&row.clone().into_wire(app.clock.now()));
    let back: Vec<SnapshotVolume> = match &body.volume {
        Some(volume) => vec![using::choose(&row, Some(volume), "/volume")?.clone()],
        None => row.volumes.0.clone(),
    };
    for id in back.iter().filter_map(|volume| volume.id) {
        let busy = || ApiError::new(ErrorCode::Busy).retry_after(1);
        change = change.also::<actions::UpdateVolume>((&project, &id.to_string()), busy).await?;
    }
    let conn = change.conn();
    let (mut given_up, mut instances) = (Vec::new(), BTreeSet::new());
    for volume in &back {
        let (layer, instance) = using::put_back(conn, row.id, volume, &locked, &app.clock, now).await?;
        given_up.push(layer);
        instances.extend(instance);
    }
    let resumed = match with_memory {
        true => Some(using::resumed(conn, &row, &locked).await?),
        false => None,
    };
    layers::give_up(conn, &given_up, now).await?;
    for instance in instances.into_iter().filter(|instance| Some(*instance) != resumed) {
        guests::renew(conn, instance, now).await?;
    }
    let Some(instance) = resumed else {
        let (conn, allowed) = change.parts();
        store::set_restored(conn, allowed, row.id, None, now).await?;
        let row = store::find(conn, allowed, &Selector::Id(row.id)).await?.ok_or_else(ApiError::not_found)?;
        let version = row.version();
        return change.commit(StatusCode::OK, Some(version), &row.into_wire(app.clock.now())).await;
    };
    let gone = || ApiError::new(ErrorCode::Busy).retry_after(1);
    let mut change = change.also::<actions::StartInstance>((&project, &instance.to_string()), gone).await?;
    let wait = if change.query.dry_run { 0 } else { change.query.wait };
    let (operation, request) = (app.clock.new_id(), call.request_id());
    let resume = Resume { instance, snapshot: row.id, operation, request, now };
    let (conn, allowed) = change.parts();
    resume_instance(conn, allowed, &resume).await?;
    store::set_restored(conn, allowed, row.id, Some(operation), now).await?;
    let row = store::find(conn, allowed, &Selector::Id(row.id)).await?.ok_or_else(ApiError::not_found)?;
    let allowed = change.allowed.clone();
    let (id, version) = (row.id, row.version());
    let answer = change.commit(StatusCode::ACCEPTED, Some(version), &row.into_wire(app.clock.now())).await?;
    if wait == 0 {
        return Ok(answer);
    }
    wait_for_end(&app, &allowed, operation, wait).await?;
    let mut conn = app.pool.acquire().await?;
    let row = store::find(&mut conn, &allowed, &Selector::Id(id)).await?.ok_or_else(ApiError::not_found)?;
    tagged(StatusCode::OK, row.version(), &row.into_wire(app.clock.now()))
}

impl RestoreSnapshot {
    /// Whether the guest goes on from its memory.
    fn with_memory(&self, snapshot: &store::Row) -> Result<bool, ApiError> {
        let invalid = |message| Err(ApiError::invalid(vec![FieldError::new("/memory", "invalid", message)]));
        match self.memory {
            Some(true) if !snapshot.with_memory => invalid("the snapshot holds no memory"),
            Some(true) if self.volume.is_some() => invalid("all volumes go back with it; leave `volume` out"),
            asked => Ok(asked.unwrap_or(snapshot.with_memory && self.volume.is_none())),
        }
    }
}

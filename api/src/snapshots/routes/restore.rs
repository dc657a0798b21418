//! Going back to a snapshot.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, ErrorCode, MutationQuery, Path};
use crate::instances::store::guests;
use crate::snapshots::store::{self, using};
use crate::snapshots::types::{RestoreSnapshot, Snapshot, SnapshotVolume};
use crate::volumes::store::layers;

/// Put volumes back to what they were. What was written since is lost, unless another snapshot holds it. They must be
/// attached to nothing, or their instance stopped. Needs `volume:UpdateVolume` on each of them, too.
#[utoipa::path(post, path = "/v1/projects/{project}/snapshots/{snapshot}/restore", tag = "snapshots",
    params(MutationQuery), request_body = RestoreSnapshot, responses(
        (status = 200, body = Snapshot, description = "Done"),
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
    change.note_before(&row.clone().into_wire());
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
    layers::give_up(conn, &given_up, now).await?;
    for instance in instances {
        guests::renew(conn, instance, now).await?;
    }
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

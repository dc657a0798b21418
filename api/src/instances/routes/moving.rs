//! Moving an instance that does not run: it gives its host up, and another one takes it.

use axum::extract::State;
use axum::response::Response;
use protocol::HostId;
use protocol::agent::{ObservedState, Power};

use super::super::store::{Row, departures};
use super::super::types::Instance;
use super::power::next_intent;
use super::{NewIntent, accept, change_intent, lock, refuse_deleting};
use crate::app::App;
use crate::auth::actions;
use crate::hosts;
use crate::http::{ApiError, Call, ErrorCode, MutationQuery, NoFields, Path};
use crate::quotas;
use crate::volumes::store::attachments;

/// When to ask again while layers are merged.
pub(super) const MERGE_SECONDS: u32 = 10;

/// Move a stopped instance, all of whose volumes are in shared pools, to another host that has them. It stays stopped;
/// of a host that the operator has declared dead its instances are taken as they are, and start on another one if they
/// were to run.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/move", tag = "instances",
    params(MutationQuery), responses(
        (status = 202, body = Instance),
))]
pub(super) async fn move_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    call.json::<NoFields>()?;
    let mut change = call.changing::<actions::MoveInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    let host = row.host_id.map(HostId::from).ok_or_else(|| {
        ApiError::because(ErrorCode::WrongState, "it is on no host; it goes to one that takes it")
    })?;
    let now = change.now;
    if let Some(name) = attachments::lock_all_shared(change.conn(), row.id).await? {
        let detail = format!("the data of its volume {name} is on the disk of its host, and does not move");
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    quotas::store::lock_before_going(change.conn(), &[row.id], &[], &[]).await?;
    if !hosts::store::is_declared_dead(change.conn(), host).await? {
        if !has_stopped(&row) {
            return Err(ApiError::because(ErrorCode::WrongState, why_not(&row)));
        }
        if let Some(name) = attachments::merging(change.conn(), row.id).await? {
            let detail = merging(&name);
            return Err(ApiError::because(ErrorCode::WrongState, detail).retry_after(MERGE_SECONDS));
        }
    }
    let present = next_intent(&app, &call, &change, &row);
    let runs = row.intent().power == Power::Running;
    let next = match row.intent().power {
        // What it had in memory is gone with its host.
        Power::Paused => NewIntent { power: Power::Stopped, ..present },
        _ => NewIntent { boot: row.boot + i64::from(runs), ..present },
    };
    let (conn, allowed) = change.parts();
    departures::leave(conn, row.id, host, now).await?;
    let on_no_host = Row { host_id: None, ..row };
    change_intent(conn, allowed, &on_no_host, "move_instance", &next).await?;
    accept(&app, change, on_no_host.id).await
}

/// INVARIANT: its host has said of exactly this intent that no domain runs, so that none will without another wish.
pub(super) fn has_stopped(row: &Row) -> bool {
    let intent = row.intent();
    let said = row.observed().filter(|observed| observed.generation == intent.generation);
    intent.power == Power::Stopped
        && said.is_some_and(|observed| matches!(observed.state, ObservedState::Stopped { .. }))
}

/// INVARIANT: of two hosts, never both write to the layers of a volume: the one that merges them is waited for.
pub(super) fn merging(volume: &str) -> String {
    format!(
        "its host is still merging layers of its volume {volume}, which a deleted snapshot has left; try again when it is \
         done, or if its host is lost, the operator has to declare that dead"
    )
}

fn why_not(row: &Row) -> &'static str {
    if row.intent().power != Power::Stopped {
        "stop it first; if its host is lost, the operator has to declare that dead"
    } else {
        "its host has not confirmed yet that it is stopped; try again, and if its host is lost, the operator has to \
         declare that dead"
    }
}

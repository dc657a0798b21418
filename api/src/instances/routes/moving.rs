//! Moving an instance that does not run: it gives its host up, and another one takes it.

use axum::extract::State;
use axum::response::Response;
use protocol::HostId;
use protocol::agent::{ObservedState, Power};

use super::super::migration;
use super::super::store::migrations::New;
use super::super::store::{Row, departures, placement};
use super::super::types::{Instance, MoveInstance};
use super::power::next_intent;
use super::{NewIntent, accept, change_intent, lock, refuse_deleting};
use crate::app::App;
use crate::auth::actions;
use crate::hosts;
use crate::http::{ApiError, Call, ErrorCode, Mutation, MutationQuery, Path};
use crate::quotas;
use crate::volumes::store::attachments;

/// When to ask again while layers are merged.
pub(super) const MERGE_SECONDS: u32 = 10;

/// Move a stopped instance to another host. It stays stopped. Volumes in shared pools are there at once; what is on the disk
/// of its host is copied first, and the operation tells how far that is. Until it is there the instance is where it was,
/// nothing of it can be changed, and the operation can be cancelled. Of a host that the operator has declared dead,
/// instances all of whose volumes are in shared pools are taken as they are, and start on another one if they were to run.
/// To name the host takes `compute:MigrateInstance`. A dry run says what stands in the way.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/move", tag = "instances",
    params(MutationQuery), request_body = MoveInstance, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn move_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: MoveInstance = call.json()?;
    let mut change = call.changing::<actions::MoveInstance>(&app, (&project, &instance)).await?;
    if body.host.is_some() {
        change = change.also::<actions::MigrateInstance>((&project, &instance), ApiError::not_found).await?;
    }
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    let host = row.host_id.map(HostId::from).ok_or_else(|| {
        ApiError::because(ErrorCode::WrongState, "it is on no host; it goes to one that takes it")
    })?;
    let now = change.now;
    let local = attachments::lock_all_shared(change.conn(), row.id).await?;
    let is_dead = hosts::store::is_declared_dead(change.conn(), host).await?;
    if let Some(name) = local.as_ref().filter(|_| is_dead) {
        let detail =
            format!("the data of its volume {name} is on the disk of its host, which is declared dead");
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    if !is_dead && !has_stopped(&row) {
        return Err(ApiError::because(ErrorCode::WrongState, why_not(&row)));
    }
    if local.is_some() || body.host.is_some() {
        return move_disks(&app, &call, change, row, body.host.as_deref()).await;
    }
    quotas::store::lock_before_going(change.conn(), &[row.id], &[], &[]).await?;
    if !is_dead && let Some(name) = attachments::merging(change.conn(), row.id).await? {
        let detail = merging(&name);
        return Err(ApiError::because(ErrorCode::WrongState, detail).retry_after(MERGE_SECONDS));
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

/// It goes to a host that is chosen now, and its disks before it.
async fn move_disks(
    app: &App,
    call: &Call,
    mut change: Mutation<actions::MoveInstance>,
    row: Row,
    named: Option<&str>,
) -> Result<Response, ApiError> {
    let now = change.now;
    let next = next_intent(app, call, &change, &row);
    let (conn, allowed) = change.parts();
    let source = migration::obstacle_of_disks(conn, &row).await?;
    placement::take_turn(conn).await?;
    let hosts = migration::Hosts::at(now);
    let destination = migration::choose_for_disks(conn, &row, source, named, &hosts).await?;
    migration::hold(conn, source, destination).await?;
    change_intent(conn, allowed, &row, "move_instance", &next).await?;
    let new = New::of_disks(app.clock.new_id(), row.id, next.operation_id, (source, destination), now);
    migration::begin_disks(conn, &row, new, now).await?;
    accept(app, change, row.id).await
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

//! Sending a running guest to another host.

use axum::extract::State;
use axum::response::Response;

use super::super::migration;
use super::super::store::migrations::New;
use super::super::store::placement;
use super::super::types::{Instance, MigrateInstance};
use super::power::next_intent;
use super::{accept, change_intent, lock, refuse_deleting};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, MutationQuery, Path};

/// Send a running guest to another host without stopping it: its connections live on. What is on the disk of its host goes
/// along; of shared pools, both hosts have to have those that its volumes are in. Until the guest is handed over the operation can be cancelled; whatever fails before, it
/// runs on where it was. Meanwhile nothing of the instance can be changed but by deleting it or stopping it by force. A dry
/// run says what stands in the way.
#[utoipa::path(post, path = "/v1/projects/{project}/instances/{instance}/migrate", tag = "instances",
    params(MutationQuery),
    request_body = MigrateInstance, responses(
        (status = 202, body = Instance),
))]
pub(super) async fn migrate_instance(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: MigrateInstance = call.json()?;
    ApiError::reject(body.validate())?;
    let mut change = call.changing::<actions::MigrateInstance>(&app, (&project, &instance)).await?;
    let row = lock(&mut change).await?;
    refuse_deleting(&row)?;
    let now = change.now;
    let next = next_intent(&app, &call, &change, &row);
    let (conn, allowed) = change.parts();
    let (source, hardware) = migration::refuse_now(conn, &row).await?;
    placement::take_turn(conn).await?;
    let hosts = migration::Hosts::at(now);
    let destination =
        migration::choose(conn, &row, (source, &hardware), body.host.as_deref(), &hosts).await?;
    migration::hold(conn, source, destination).await?;
    change_intent(conn, allowed, &row, "migrate_instance", &next).await?;
    let new = New {
        id: app.clock.new_id(),
        instance: row.id.into(),
        operation: next.operation_id,
        source,
        destination,
        max_downtime_ms: body.max_downtime_ms(),
        due_at: now + migration::DUE,
        disk_gib: None,
        runs: true,
    };
    migration::begin_running(conn, &row, new, now).await?;
    accept(&app, change, row.id).await
}

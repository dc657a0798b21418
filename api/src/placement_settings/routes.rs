//! Handlers of the settings.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use super::types::{PlacementSettings, UpdatePlacementSettings};
use crate::app::App;
use crate::auth::actions;
use crate::hosts;
use crate::http::{ApiError, Call, MutationQuery};
use crate::instances::store::placement;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_placement_settings, update_placement_settings))
}

/// Get what placement goes by in the whole cloud.
#[utoipa::path(get, path = "/v1/placement_settings", tag = "placement", responses(
    (status = 200, body = PlacementSettings),
))]
async fn get_placement_settings(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetPlacementSettings>(&app, ()).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed).await?;
    call.answer(row.version(), &row.into_wire())
}

/// Change what placement goes by. Instances that have a host stay there; what is promised of hosts already stays so.
#[utoipa::path(patch, path = "/v1/placement_settings", tag = "placement", params(MutationQuery),
    request_body = UpdatePlacementSettings, responses(
        (status = 200, body = PlacementSettings),
))]
async fn update_placement_settings(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let patch: UpdatePlacementSettings = call.json()?;
    ApiError::reject(patch.validate())?;
    let mut entry = call.entering(&app, None).await?;
    // Before the hosts: whoever places instances holds several of them in an order of its own. Who may not do this waits for
    // nobody, and nobody for him.
    if entry.foresee::<actions::UpdatePlacementSettings>(()).await?.is_some() {
        placement::take_turn(entry.conn()).await?;
    }
    let mut change = entry.decide::<actions::UpdatePlacementSettings>(()).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    hosts::store::hold_all(conn).await?;
    let mut row = store::lock(conn, allowed).await?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    row.strategy = patch.strategy.map_or(row.strategy, |strategy| strategy.as_str().to_owned());
    row.image_weight = patch.image_weight.unwrap_or(row.image_weight);
    row.load_weight = patch.load_weight.unwrap_or(row.load_weight);
    row.vcpu_overcommit = patch.vcpu_overcommit.unwrap_or(row.vcpu_overcommit);
    row.memory_overcommit = patch.memory_overcommit.unwrap_or(row.memory_overcommit);
    row.generation += 1;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    hosts::store::offer_anew(conn, now).await?;
    // What waited for room may have found it.
    placement::retry_now(conn, now).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

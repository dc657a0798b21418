//! How much more fits, and what the loss of hosts would do.

use axum::extract::State;
use protocol::agent::Architecture;

use super::store::{self, OnHost};
use super::types::{CapacityForecast, CapacityQuery, CriticalHost, SurvivalForecast};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, ErrorCode, Selector};
use crate::instance_types;
use crate::instances::Reference;
use crate::instances::store::placement;
use crate::scheduler::capacity::{Placed, Survival, room_for, survival};
use crate::scheduler::{Fleet, Request};

/// Say how many more instances of a type find room, and which losses of hosts the cloud survives.
#[utoipa::path(get, path = "/v1/capacity", tag = "placement", params(CapacityQuery), responses(
    (status = 200, body = CapacityForecast),
))]
pub(super) async fn get_capacity(
    State(app): State<App>,
    call: Call,
) -> Result<axum::Json<CapacityForecast>, ApiError> {
    let mut reading = call.reading::<actions::GetCapacity>(&app, ()).await?;
    let query: CapacityQuery = call.query()?;
    let (conn, allowed) = reading.parts();
    let no_type = || ApiError::because(ErrorCode::InvalidQuery, "type: there is no such instance type");
    let selector = Selector::parse(&query.instance_type).ok_or_else(no_type)?;
    let size = instance_types::find(conn, &selector).await?.ok_or_else(no_type)?;
    let architecture = Architecture::from_name(&size.architecture).ok_or_else(no_type)?;
    let fleet = placement::fleet(conn, app.clock.now()).await?;
    let placed = store::placed(conn, allowed).await?;
    let names = store::host_names(conn).await?;
    drop(reading);
    let request = Request::of_type(architecture, &size.name, size.size(), size.needs());
    // Some seconds of computing in a large cloud.
    let forecast = tokio::task::spawn_blocking(move || {
        let shared = tried(&fleet, placed.iter().filter(|one| one.shared));
        (room_for(&fleet, &request), tried(&fleet, placed.iter()), shared)
    });
    let (room, all, shared) = forecast.await.map_err(ApiError::internal)?;
    let in_words = |(instances, survival): (usize, Survival)| SurvivalForecast {
        instances,
        failures: survival.failures,
        critical: survival
            .critical
            .into_iter()
            .map(|(host, instances)| CriticalHost {
                host: Reference { id: host.as_uuid(), name: names.get(&host).cloned().unwrap_or_default() },
                instances,
            })
            .collect(),
    };
    Ok(axum::Json(CapacityForecast {
        instance_type: Reference { id: size.id, name: size.name },
        room,
        all: all.map(in_words),
        with_shared_disks: shared.map(in_words),
    }))
}

fn tried<'a>(fleet: &Fleet, placed: impl Iterator<Item = &'a OnHost>) -> Option<(usize, Survival)> {
    let placed: Vec<Placed> = placed.map(|one| one.placed.clone()).collect();
    Some((placed.len(), survival(fleet, &placed)?))
}

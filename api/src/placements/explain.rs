//! Why an instance is where it is or waits, host by host.

use axum::extract::State;
use protocol::InstanceId;

use super::store;
use super::types::{HostRejection, HostVerdict, PlacementDetail};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, Path, Selector};
use crate::instances::Reference;
use crate::instances::store::placement;
use crate::scheduler::{Occupied, Placement, detail, place, rejections, score};

/// Say what every host has against an instance of any project, by its id: for operators, since it names hosts.
#[utoipa::path(get, path = "/v1/placements/{instance}", tag = "placement", responses(
    (status = 200, body = PlacementDetail),
))]
pub(super) async fn explain_placement(
    State(app): State<App>,
    Path(instance): Path<String>,
    call: Call,
) -> Result<axum::Json<PlacementDetail>, ApiError> {
    let mut reading = call.reading::<actions::ExplainPlacement>(&app, ()).await?;
    let (conn, allowed) = reading.parts();
    let Some(Selector::Id(id)) = Selector::parse(&instance) else { return Err(ApiError::not_found()) };
    let id = InstanceId::from(id);
    let found = store::find(conn, allowed, id).await?.ok_or_else(ApiError::not_found)?;
    let request = placement::request(conn, id).await?.ok_or_else(ApiError::not_found)?;
    let fleet = placement::fleet(conn, app.clock.now()).await?;
    let names = store::host_names(conn).await?;
    let named = |host: protocol::HostId| Reference {
        id: host.as_uuid(),
        name: names.get(&host).cloned().unwrap_or_default(),
    };
    let occupied = Occupied::of(&fleet, &request);
    let verdict = |host: &crate::scheduler::Candidate| {
        let rejections: Vec<_> = rejections(host, &request, &occupied)
            .map(|reason| HostRejection { reason, detail: detail(reason, host, &request, &occupied) })
            .collect();
        HostVerdict {
            host: named(host.id),
            takes: rejections.is_empty(),
            score: score(host, &request, &fleet.weights),
            rejections,
        }
    };
    let mut hosts: Vec<_> = fleet.hosts().iter().map(verdict).collect();
    hosts.sort_by(|a, b| b.takes.cmp(&a.takes).then(b.score.total_cmp(&a.score)));
    let (chosen, placement) = match place(&fleet, &request) {
        Placement::Host(host) => (Some(host.as_uuid()), None),
        Placement::Nowhere(explanation) => (None, Some(explanation)),
    };
    hosts.sort_by_key(|verdict| Some(verdict.host.id) != chosen);
    Ok(axum::Json(PlacementDetail {
        instance: found.instance,
        project: found.project,
        placement: placement.filter(|_| found.host.is_none()),
        host: found.host.map(named),
        hosts,
    }))
}

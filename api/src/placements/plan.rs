//! Whether many instances would find room together.

use axum::extract::State;
use protocol::agent::Architecture;

use super::types::{PlacementPlan, PlanPlacements, PlannedInstances, PlannedOutcome, QuotaRefusal};
use crate::app::App;
use crate::auth::{Allowed, actions};
use crate::http::{ApiError, Call, FieldError, Path, Selector};
use crate::images;
use crate::instance_types::{self, InstanceTypeRow};
use crate::instances::misfits;
use crate::instances::store::placement;
use crate::placement_groups;
use crate::quotas::{self, Resource};
use crate::scheduler::{Planned, Request, Size, plan};
use crate::volumes::gib_for;

/// Say whether instances would find room, all of them together, without making any. Nothing is kept for them: what
/// fits now may be taken a moment later. A placement group needs `compute:GetPlacementGroup`, too.
#[utoipa::path(post, path = "/v1/projects/{project}/placements/plan", tag = "placement",
    request_body = PlanPlacements, responses(
        (status = 200, body = PlacementPlan),
))]
pub(super) async fn plan_placements(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<PlacementPlan>, ApiError> {
    let asked: PlanPlacements = call.json()?;
    ApiError::reject(asked.validate())?;
    let mut reading = call.reading::<actions::PlanPlacements>(&app, &project).await?;
    let (mut requests, mut errors) = (Vec::new(), Vec::new());
    for (index, entry) in asked.instances.iter().enumerate() {
        let group = match &entry.placement_group {
            Some(group) => reading.foresee::<actions::GetPlacementGroup>((&project, group)).await?,
            None => None,
        };
        let (conn, allowed) = reading.parts();
        match request(conn, allowed, entry, group.as_ref()).await? {
            Ok(request) => requests.push(request),
            Err(faults) => errors.extend(faults.into_iter().map(|fault| FieldError {
                pointer: format!("/instances/{index}{}", fault.pointer),
                ..fault
            })),
        }
    }
    ApiError::reject(errors)?;
    let made = made(&asked, &requests);
    let (conn, allowed) = reading.parts();
    let quota = quotas::store::forecast(conn, allowed, &made).await?;
    let mut fleet = placement::fleet(conn, app.clock.now()).await?;
    drop(reading);
    let counts = asked.instances.iter().map(|entry| entry.count as usize);
    let kinds = requests.into_iter().zip(counts).collect();
    // Some seconds of computing in a large cloud.
    let planned = tokio::task::spawn_blocking(move || plan(&mut fleet, kinds));
    let planned = planned.await.map_err(ApiError::internal)?;
    let outcome = |(entry, planned): (&PlannedInstances, Planned)| PlannedOutcome {
        instance_type: entry.instance_type.clone(),
        count: entry.count,
        placeable: u32::try_from(planned.hosts.len()).unwrap_or(u32::MAX),
        placement: planned.why_not,
    };
    let instances: Vec<_> = asked.instances.iter().zip(planned).map(outcome).collect();
    let placeable = instances.iter().all(|one| one.placeable == one.count);
    let quota_refusal = QuotaRefusal::of(&quota);
    let possible = placeable && quota_refusal.is_none();
    Ok(axum::Json(PlacementPlan { possible, placeable, instances, quota, quota_refusal }))
}

/// What one instance of this entry needs, or what is wrong with the entry.
async fn request(
    conn: &mut sqlx::PgConnection,
    allowed: &Allowed<actions::PlanPlacements>,
    entry: &PlannedInstances,
    may_get_group: Option<&Allowed<actions::GetPlacementGroup>>,
) -> Result<Result<Request, Vec<FieldError>>, ApiError> {
    let not_found = |pointer, message| Ok(Err(vec![FieldError::new(pointer, "not_found", message)]));
    let size = match Selector::parse(&entry.instance_type) {
        Some(selector) => instance_types::find(conn, &selector).await?,
        None => None,
    };
    let Some(size) = size else { return not_found("/instance_type", "there is no such instance type") };
    let sized = match entry.size().of_type(size) {
        Ok(sized) => sized,
        Err(fault) => return Ok(Err(vec![fault])),
    };
    let mut least = Size { vcpus: 1, memory_mib: 0, disk_gib: 1 };
    let mut image_on = Vec::new();
    if let Some(image) = &entry.image {
        let Some(image) = images::hold(conn, allowed.project(), image).await? else {
            return not_found("/image", "this project has no such image");
        };
        let faults = misfits(conn, &image, &sized, entry.root_disk_gib).await?;
        if !faults.is_empty() {
            return Ok(Err(faults));
        }
        least.memory_mib = image.min_memory_mib;
        least.disk_gib = gib_for(image.virtual_size_bytes.unwrap_or_default()).max(image.min_disk_gib);
        image_on = placement::hosts_with_image(conn, image.id).await?;
    }
    let group = match &entry.placement_group {
        None => None,
        Some(_) => {
            let found = match may_get_group {
                Some(allowed) => placement_groups::store::find(conn, allowed, allowed.selector()).await?,
                None => None,
            };
            let Some(row) = found else {
                return not_found("/placement_group", "this project has no such placement group");
            };
            placement_groups::store::of_placement(conn, row.id, None).await?
        }
    };
    let size = sized.instance_type;
    let Some(architecture) = Architecture::from_name(&size.architecture) else {
        return not_found("/instance_type", "the type is of no architecture that is known");
    };
    let further = entry.further_disk_gib.cast_signed();
    let root = entry.root_disk_gib.unwrap_or(size.root_disk_gib);
    let InstanceTypeRow { vcpus, memory_mib, .. } = size;
    let whole = Size { vcpus, memory_mib, disk_gib: root + further };
    let of_type = Request::of_type(architecture, &size.name, whole, size.needs());
    let least = Size { disk_gib: least.disk_gib.min(root) + further, ..least };
    Ok(Ok(Request { least, root_disk_gib: root, group, image_on, ..of_type }))
}

/// What all of them would use of the project's quotas; further disks count as one volume each.
fn made(asked: &PlanPlacements, requests: &[Request]) -> Vec<(Resource, i64)> {
    let sum = |of: fn(&Request) -> i32| {
        let counted = asked.instances.iter().zip(requests);
        counted.map(|(entry, request)| i64::from(entry.count) * i64::from(of(request))).sum::<i64>()
    };
    let of_each = |entry: &PlannedInstances| 1 + i64::from(entry.further_disk_gib > 0);
    let volumes = asked.instances.iter().map(|entry| i64::from(entry.count) * of_each(entry)).sum();
    vec![
        (Resource::Instances, sum(|_| 1)),
        (Resource::Vcpus, sum(|request| request.size.vcpus)),
        (Resource::MemoryMib, sum(|request| request.size.memory_mib)),
        (Resource::DiskGib, sum(|request| request.size.disk_gib)),
        (Resource::Volumes, volumes),
    ]
}

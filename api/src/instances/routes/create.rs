//! Making an instance.

use axum::extract::State;
use axum::response::Response;
use protocol::{InstanceId, ProjectId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::fit::misfits;
use super::super::reconcile::place_at_once;
use super::super::store::{self, New, System, leases, placement};
use super::super::types::{CreateInstance, DEFAULT_STOP_TIMEOUT_SECONDS, Instance, Plan, Times, WhenNoRoom};
use super::accept;
use super::clone::{Inherited, of_instance};
use super::create_from::of_snapshot;
use super::inherit;
use super::update::ask_for_lease;
use crate::app::App;
use crate::auth::{self, Fact, actions, keys};
use crate::http::{ApiError, Call, FieldError, Mutation, MutationQuery, Path, Selector};
use crate::images::{self, ImageRow};
use crate::instance_types::{self, InstanceTypeRow};
use crate::key_pairs;
use crate::nudge::{self, Topic};
use crate::operations;
use crate::placement_groups;
use crate::pools;
use crate::ports::cards;
use crate::quotas::{self, Resource};
use crate::scheduler::{Placement, place};
use crate::snapshots::store::cloning::wait_for;
use crate::volumes::disks::{self, NewDisk, Prepared, Wanted, WantedDisk};

/// Make an instance and start it. A port that becomes its card needs `network:UpdatePort`, too, a lease
/// `compute:StopInstance` and `compute:DeleteInstance` for its times, and a volume that is there and shall go with it
/// `volume:DeleteVolume`.
#[utoipa::path(post, path = "/v1/projects/{project}/instances", tag = "instances",
    params(MutationQuery),
    request_body = CreateInstance, responses(
        (status = 202, body = Instance, description = "Stored; a host is being found"),
))]
pub(super) async fn create_instance(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateInstance = call.json()?;
    let lease = new.lease.map(Times::from).unwrap_or_default();
    let mut errors = new.validate();
    lease.validate(Times::default(), app.clock.now(), &mut errors);
    ApiError::reject(errors)?;
    let mut entry = call.entering(&app, Some(&project)).await?;
    let instance_type = match new.instance_type.as_deref().and_then(Selector::parse) {
        Some(selector) => instance_types::find(entry.conn(), &selector).await?,
        None => None,
    };
    let image = match (entry.project(), &new.image) {
        (Some(project), Some(image)) => images::hold(entry.conn(), project, image).await?,
        _ => None,
    };
    let named = image.as_ref().map(|image| named(image, entry.project()));
    let root_pool = match &new.root_volume.pool {
        Some(pool) => Some(pools::store::called(entry.conn(), pool).await?),
        None => None,
    };
    let heritage = inherit::foresee(&mut entry, &project, &new).await?;
    let inherited_type = match heritage.instance_type_id.filter(|_| new.instance_type.is_none()) {
        Some(id) => instance_types::find(entry.conn(), &Selector::Id(id)).await?,
        None => None,
    };
    let asked_type = instance_type.as_ref().or(inherited_type.as_ref());
    let mut facts = facts(&new, image.as_ref(), named.as_deref(), asked_type);
    facts.extend(heritage.facts());
    facts.extend(root_pool.iter().map(|pool| (keys::ROOT_POOL, Fact::Text(pool))));
    let place = auth::New { name: new.name.as_str(), labels: &new.labels, facts: &facts };
    let mut change = entry.decide::<actions::CreateInstance>((&project, place)).await?;
    let now = change.now;
    let id: InstanceId = app.clock.new_id();
    let mut inherited = Inherited::default();
    let (mut change, disks, system, instance_type) = match (&new.snapshot, &new.source) {
        (Some(snapshot), _) => of_snapshot(change, &project, &new, snapshot, instance_type).await?,
        (None, Some(source)) => {
            let source = &source.instance;
            let (change, clone) = of_instance(&app, change, &project, &new, source, instance_type).await?;
            inherited = clone.inherited;
            (change, clone.disks, clone.system, clone.instance_type)
        }
        (None, None) => {
            let (image, instance_type) = check_parts(change.conn(), &new, image, instance_type).await?;
            let disks = disks_of(&new, image.as_ref(), &instance_type);
            let (mut change, disks) = disks::prepare(change, &project, disks).await?;
            let system = system(change.conn(), image, &disks, &instance_type).await?;
            (change, disks, system, instance_type)
        }
    };
    inherit::check(&mut change, &new, &heritage).await?;
    let named = new.networks.as_deref().unwrap_or_default();
    let pointer = |index| format!("/networks/{index}");
    let change = cards::check_ports(change, &project, named, pointer).await?;
    let (change, key_pairs) = key_pairs::look_up(change, &project, &new.key_pairs, "/key_pairs").await?;
    let keys = key_pairs.iter().map(|key_pair| key_pair.public_key.clone());
    let mut keys: Vec<_> = new.ssh_authorized_keys.iter().cloned().chain(keys).collect();
    let mut key_pairs: Vec<_> = key_pairs.iter().map(|key_pair| key_pair.name.clone()).collect();
    if keys.is_empty() {
        keys = inherited.ssh_authorized_keys;
        key_pairs = inherited.key_pairs;
    }
    let user_data = new.user_data_bytes().or(inherited.user_data);
    let (mut change, group) = group_of(change, &project, &new).await?;
    let (conn, allowed) = change.parts();
    let begin = operations::store::Begin {
        id: app.clock.new_id(),
        kind: "create_instance",
        resource_id: id.as_uuid(),
        resource_name: new.name.as_str(),
        request_id: call.request_id(),
        now,
    };
    let row = New {
        id,
        name: new.name.as_str(),
        hostname: new.hostname.as_ref().unwrap_or(&new.name).as_str(),
        description: &new.description,
        labels: &new.labels,
        delete_protection: new.delete_protection,
        system: &system,
        instance_type: &instance_type,
        placement_group: group,
        user_data: user_data.as_deref(),
        ssh_authorized_keys: &keys,
        key_pairs: &key_pairs,
        stop_timeout_seconds: DEFAULT_STOP_TIMEOUT_SECONDS.cast_signed(),
        operation_id: begin.id,
        request_id: begin.request_id,
        now,
    };
    let operation_id = begin.id;
    let wanted_cards = match &new.networks {
        None => cards::prepare_default(conn, allowed).await?,
        Some(wanted) => cards::prepare(conn, allowed, wanted, pointer).await?,
    };
    operations::store::begin(conn, allowed, begin).await?;
    store::insert(conn, allowed, row).await?;
    let mut change = ask_for_lease(change, &project, id.as_uuid(), lease).await?;
    let (conn, allowed) = change.parts();
    leases::set(conn, id.as_uuid(), lease, allowed.principal()).await?;
    wait_for(conn, id.as_uuid(), &inherited.waits_for).await?;
    disks::attach(conn, allowed, &disks, id, &app.clock, now).await?;
    cards::attach(conn, allowed, &wanted_cards, id, &app.clock, now).await?;
    if change.query.dry_run {
        let mut made = vec![
            (Resource::Instances, 1),
            (Resource::Vcpus, instance_type.vcpus.into()),
            (Resource::MemoryMib, instance_type.memory_mib.into()),
            (Resource::DiskGib, disks.made_gib()),
            (Resource::Volumes, disks.made()),
            (Resource::Ports, wanted_cards.made()),
        ];
        made.retain(|(_, amount)| *amount > 0);
        return answer_plan(change, id, &made).await;
    }
    match new.when_no_room {
        WhenNoRoom::Wait => nudge::send(change.conn(), Topic::Placement).await?,
        WhenNoRoom::Fail => place_at_once(change.conn(), id, operation_id, now).await?,
    }
    accept(&app, change, id.as_uuid()).await
}

/// The placement group that the body names.
async fn group_of(
    change: Mutation<actions::CreateInstance>,
    project: &str,
    new: &CreateInstance,
) -> Result<(Mutation<actions::CreateInstance>, Option<Uuid>), ApiError> {
    let Some(group) = &new.placement_group else { return Ok((change, None)) };
    let missing = || ApiError::invalid(vec![store::no_placement_group()]);
    let mut change = change.also::<actions::GetPlacementGroup>((project, group), missing).await?;
    let selector = Selector::parse(group).ok_or_else(missing)?;
    let (conn, allowed) = change.parts();
    let row = placement_groups::store::find(conn, allowed, &selector).await?.ok_or_else(missing)?;
    Ok((change, Some(row.id)))
}

/// How policies call an image: by its name, and one of another project by that project's name, too.
pub(super) fn named(image: &ImageRow, project: Option<ProjectId>) -> String {
    if project.map(ProjectId::as_uuid) == Some(image.project_id) {
        image.name.clone()
    } else {
        format!("{}/{}", image.project_name, image.name)
    }
}

/// What policies may ask about the instance that is wanted.
fn facts<'a>(
    new: &'a CreateInstance,
    image: Option<&'a ImageRow>,
    named: Option<&'a str>,
    instance_type: Option<&'a InstanceTypeRow>,
) -> Vec<(&'static str, Fact<'a>)> {
    let image_name = named.or(new.image.as_deref());
    let mut facts: Vec<_> = image_name.iter().map(|name| (keys::IMAGE, Fact::Text(name))).collect();
    if let Some(image) = image {
        facts.push((keys::IMAGE_ID, Fact::Id(image.id)));
        facts.push((keys::IMAGE_PROJECT, Fact::Text(&image.project_name)));
    }
    if new.image.is_some()
        && let Some(size) = new.root_disk_gib.or(instance_type.map(|size| size.root_disk_gib))
    {
        facts.push((keys::ROOT_DISK_GIB, Fact::Number(size.into())));
    }
    if let Some(size) = instance_type {
        facts.extend([
            (keys::INSTANCE_TYPE, Fact::Text(&size.name)),
            (keys::VCPUS, Fact::Number(size.vcpus.into())),
            (keys::MEMORY_MIB, Fact::Number(size.memory_mib.into())),
        ]);
    }
    facts
}

/// The volume that it boots from, and the further ones.
fn disks_of<'a>(
    new: &'a CreateInstance,
    image: Option<&ImageRow>,
    instance_type: &InstanceTypeRow,
) -> Vec<Wanted<'a>> {
    let root = &new.root_volume;
    let what = match &root.volume {
        Some(volume) => WantedDisk::Existing(volume),
        None => WantedDisk::New(NewDisk {
            name: None,
            size_gib: new.root_disk_gib.unwrap_or(instance_type.root_disk_gib),
            image: image.map(|image| image.id),
            below: None,
            pool: root.pool.clone(),
            ask: false,
        }),
    };
    let delete_with_instance = root.delete_with_instance.unwrap_or(root.volume.is_none());
    let pointer = "/root_volume".to_owned();
    let root = Wanted { what, position: Some(0), delete_with_instance, pointer };
    std::iter::once(root).chain(Wanted::further(&new.volumes)).collect()
}

/// The operating system that it boots: of the image, or of the image that its volume was made from.
async fn system(
    conn: &mut PgConnection,
    image: Option<ImageRow>,
    disks: &Prepared,
    instance_type: &InstanceTypeRow,
) -> Result<System, ApiError> {
    if let Some(ImageRow { id, name, firmware, .. }) = image {
        return Ok(System { image_id: id, image_name: name, firmware });
    }
    let (id, architecture) = disks.boot_image()?;
    if architecture != instance_type.architecture {
        let message =
            format!("the volume's system is for {architecture}, the type for {}", instance_type.architecture);
        return Err(ApiError::invalid(vec![FieldError::new("/instance_type", "architecture", message)]));
    }
    Ok(store::system_of(conn, id).await?)
}

/// Image and type that the body names, if both are there and go together. There is no image when it boots from a
/// volume.
async fn check_parts(
    conn: &mut PgConnection,
    new: &CreateInstance,
    image: Option<ImageRow>,
    instance_type: Option<InstanceTypeRow>,
) -> Result<(Option<ImageRow>, InstanceTypeRow), ApiError> {
    let no_image = (image.is_none() && new.image.is_some()).then(store::no_image);
    let no_instance_type = instance_type.is_none().then(store::no_instance_type);
    ApiError::reject(no_image.into_iter().chain(no_instance_type).collect())?;
    let instance_type = instance_type.ok_or_else(ApiError::not_found)?;
    if let Some(image) = &image {
        ApiError::reject(misfits(conn, image, &instance_type, new.root_disk_gib).await?)?;
    }
    Ok((image, instance_type))
}

/// The answer to a dry run: the instance as it would be, whether it would find a host, and what it would use.
async fn answer_plan(
    mut change: Mutation<actions::CreateInstance>,
    id: InstanceId,
    made: &[(Resource, i64)],
) -> Result<Response, ApiError> {
    let now = change.now;
    let (conn, allowed) = change.parts();
    let request = placement::request(conn, id).await?.ok_or_else(ApiError::not_found)?;
    let fleet = placement::fleet(conn, now).await?;
    let placement = match place(&fleet, &request) {
        Placement::Host(_) => None,
        Placement::Nowhere(explanation) => Some(explanation),
    };
    let quota = quotas::store::effect(conn, allowed, made).await?;
    let row =
        store::find(conn, allowed, &Selector::Id(id.as_uuid())).await?.ok_or_else(ApiError::not_found)?;
    let mut instance: Instance = row.into_wire(now);
    instance.plan = Some(Plan { placeable: placement.is_none(), placement, quota });
    change.commit(axum::http::StatusCode::OK, None, &instance).await
}

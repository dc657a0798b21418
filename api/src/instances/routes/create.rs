//! Making an instance.

use axum::extract::State;
use axum::response::Response;
use protocol::{InstanceId, OperationId, RequestId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::custom_size::SizedType;
use super::super::fit::misfits;
use super::super::reconcile::place_at_once;
use super::super::recovery;
use super::super::store::{self, New, System, leases, placement};
use super::super::types::{CreateInstance, DEFAULT_STOP_TIMEOUT_SECONDS, Instance, Plan, Times, WhenNoRoom};
use super::accept;
use super::clone::{Inherited, Parts, of_instance};
use super::create_from::of_snapshot;
use super::deciding::decide;
use super::inherit;
use super::update::ask_for_lease;
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, FieldError, Mutation, MutationQuery, Path, Selector};
use crate::images::ImageRow;
use crate::instance_types::InstanceTypeRow;
use crate::key_pairs;
use crate::nudge::{self, Topic};
use crate::operations;
use crate::placement_groups;
use crate::ports::cards;
use crate::quotas::{self, Resource};
use crate::scheduler::{Placement, place};
use crate::snapshots::store::cloning::wait_for;
use crate::volumes::disks::{self, NewDisk, Prepared, Wanted, WantedDisk};

type Change = Mutation<actions::CreateInstance>;

/// Make an instance and start it. A size that is not its type's own needs `compute:UseCustomSize`, too, a port that becomes
/// its card `network:UpdatePort`, a lease `compute:StopInstance` and `compute:DeleteInstance` for its times, and a volume that
/// is there and shall go with it `volume:DeleteVolume`.
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
    let lease = check(&new, app.clock.now())?;
    let (change, named) = decide(&app, &call, &project, &new).await?;
    let (mut change, parts) = parts_of(&app, change, &project, &new, named.image, named.sized).await?;
    inherit::check(&mut change, &new, &named.heritage).await?;
    let change = cards::check_ports(change, &project, new.cards(), pointer_of_card).await?;
    let (change, access) = access_of(change, &project, &new, &parts.inherited).await?;
    let (mut change, placement_group) = group_of(change, &project, &new).await?;
    let (id, operation_id) = (app.clock.new_id(), app.clock.new_id());
    let wanted_cards = cards_of(&mut change, &new).await?;
    let wanted =
        Making { id, operation_id, request_id: call.request_id(), parts: &parts, access, placement_group };
    insert(&mut change, &new, wanted).await?;
    let mut change = ask_for_lease(change, &project, id.as_uuid(), lease).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    leases::set(conn, id.as_uuid(), lease, allowed.principal()).await?;
    wait_for(conn, id.as_uuid(), &parts.inherited.waits_for).await?;
    disks::attach(conn, allowed, &parts.disks, id, &app.clock, now).await?;
    recovery::refuse_local(conn, id.as_uuid(), new.on_host_failure).await?;
    cards::attach(conn, allowed, &wanted_cards, id, &app.clock, now).await?;
    if change.query.dry_run {
        return answer_plan(change, id, &charged(&parts, &wanted_cards)).await;
    }
    match new.when_no_room {
        WhenNoRoom::Wait => nudge::send(change.conn(), Topic::Placement).await?,
        WhenNoRoom::Fail => place_at_once(change.conn(), id, operation_id, now).await?,
    }
    accept(&app, change, id.as_uuid()).await
}

/// Checks the body as far as that needs nothing else; gives the times of its lease.
fn check(new: &CreateInstance, now: OffsetDateTime) -> Result<Times, ApiError> {
    let lease = new.lease.map(Times::from).unwrap_or_default();
    let mut errors = new.validate();
    lease.validate(Times::default(), now, &mut errors);
    ApiError::reject(errors)?;
    Ok(lease)
}

/// Its disks, its system and its size: those of a snapshot, of another instance, or those that the body names.
async fn parts_of(
    app: &App,
    mut change: Change,
    project: &str,
    new: &CreateInstance,
    image: Option<ImageRow>,
    given: Option<SizedType>,
) -> Result<(Change, Parts), ApiError> {
    let its_type = |given: Option<SizedType>| given.map(|given| given.instance_type);
    match (&new.snapshot, &new.source) {
        (Some(snapshot), _) => of_snapshot(change, project, new, snapshot, its_type(given)).await,
        (None, Some(source)) => {
            of_instance(app, change, project, new, &source.instance, its_type(given)).await
        }
        (None, None) => {
            let (image, instance_type) = check_parts(change.conn(), new, image, given).await?;
            let disks = disks_of(new, image.as_ref(), &instance_type);
            let (mut change, disks) = disks::prepare(change, project, disks).await?;
            let system = system(change.conn(), image, &disks, &instance_type).await?;
            Ok((change, Parts { disks, system, instance_type, inherited: Inherited::default() }))
        }
    }
}

/// How its owner gets into the guest.
struct Access {
    ssh_authorized_keys: Vec<String>,
    /// The names of those that are of key pairs.
    key_pairs: Vec<String>,
    user_data: Option<Vec<u8>>,
}

/// What the body says of that, or what a clone takes over.
async fn access_of(
    change: Change,
    project: &str,
    new: &CreateInstance,
    inherited: &Inherited,
) -> Result<(Change, Access), ApiError> {
    let (change, found) = key_pairs::look_up(change, project, &new.key_pairs, "/key_pairs").await?;
    let keys = found.iter().map(|key_pair| key_pair.public_key.clone());
    let mut ssh_authorized_keys: Vec<_> = new.ssh_authorized_keys.iter().cloned().chain(keys).collect();
    let mut key_pairs: Vec<_> = found.iter().map(|key_pair| key_pair.name.clone()).collect();
    if ssh_authorized_keys.is_empty() {
        ssh_authorized_keys.clone_from(&inherited.ssh_authorized_keys);
        key_pairs.clone_from(&inherited.key_pairs);
    }
    let user_data = new.user_data_bytes().or_else(|| inherited.user_data.clone());
    Ok((change, Access { ssh_authorized_keys, key_pairs, user_data }))
}

fn pointer_of_card(index: usize) -> String {
    format!("/networks/{index}")
}

/// The cards that the body asks for, or the one that every instance gets.
async fn cards_of(change: &mut Change, new: &CreateInstance) -> Result<cards::Prepared, ApiError> {
    let (conn, allowed) = change.parts();
    match &new.networks {
        None => cards::prepare_default(conn, allowed).await,
        Some(wanted) => cards::prepare(conn, allowed, wanted, pointer_of_card).await,
    }
}

/// An instance that is about to be written.
struct Making<'a> {
    id: InstanceId,
    operation_id: OperationId,
    request_id: RequestId,
    parts: &'a Parts,
    access: Access,
    placement_group: Option<Uuid>,
}

/// Begins the operation and writes the instance, which has neither disks nor cards yet.
async fn insert(change: &mut Change, new: &CreateInstance, making: Making<'_>) -> Result<(), ApiError> {
    let Making { id, operation_id, request_id, parts, access, placement_group } = making;
    let now = change.now;
    let begin = operations::store::Begin {
        id: operation_id,
        kind: "create_instance",
        resource_id: id.as_uuid(),
        resource_name: new.name.as_str(),
        request_id,
        now,
    };
    let row = New {
        id,
        name: new.name.as_str(),
        hostname: new.hostname.as_ref().unwrap_or(&new.name).as_str(),
        description: &new.description,
        labels: &new.labels,
        delete_protection: new.delete_protection,
        on_host_failure: new.on_host_failure,
        system: &parts.system,
        instance_type: &parts.instance_type,
        placement_group,
        user_data: access.user_data.as_deref(),
        ssh_authorized_keys: &access.ssh_authorized_keys,
        key_pairs: &access.key_pairs,
        stop_timeout_seconds: DEFAULT_STOP_TIMEOUT_SECONDS.cast_signed(),
        operation_id,
        request_id,
        now,
    };
    let (conn, allowed) = change.parts();
    operations::store::begin(conn, allowed, begin).await?;
    store::insert(conn, allowed, row).await
}

/// What it has added to what the project uses.
fn charged(parts: &Parts, cards: &cards::Prepared) -> Vec<(Resource, i64)> {
    let mut charged = vec![
        (Resource::Instances, 1),
        (Resource::Vcpus, parts.instance_type.vcpus.into()),
        (Resource::MemoryMib, parts.instance_type.memory_mib.into()),
        (Resource::DiskGib, parts.disks.made_gib()),
        (Resource::Volumes, parts.disks.made()),
        (Resource::Ports, cards.made()),
    ];
    charged.retain(|(_, amount)| *amount > 0);
    charged
}

/// The placement group that the body names.
async fn group_of(
    change: Change,
    project: &str,
    new: &CreateInstance,
) -> Result<(Change, Option<Uuid>), ApiError> {
    let Some(group) = &new.placement_group else { return Ok((change, None)) };
    let missing = || ApiError::invalid(vec![store::no_placement_group()]);
    let mut change = change.also::<actions::GetPlacementGroup>((project, group), missing).await?;
    let selector = Selector::parse(group).ok_or_else(missing)?;
    let (conn, allowed) = change.parts();
    let row = placement_groups::store::find(conn, allowed, &selector).await?.ok_or_else(missing)?;
    Ok((change, Some(row.id)))
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
            of: None,
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
    sized: Option<SizedType>,
) -> Result<(Option<ImageRow>, InstanceTypeRow), ApiError> {
    let no_image = (image.is_none() && new.image.is_some()).then(store::no_image);
    let no_instance_type = sized.is_none().then(store::no_instance_type);
    ApiError::reject(no_image.into_iter().chain(no_instance_type).collect())?;
    let sized = sized.ok_or_else(ApiError::not_found)?;
    if let Some(image) = &image {
        ApiError::reject(misfits(conn, image, &sized, new.root_disk_gib).await?)?;
    }
    Ok((image, sized.instance_type))
}

/// The answer to a dry run: the instance as it would be, whether it would find a host, and what it would use.
async fn answer_plan(
    mut change: Change,
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

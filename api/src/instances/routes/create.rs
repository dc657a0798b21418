//! Making an instance.

use axum::extract::State;
use axum::response::Response;
use protocol::InstanceId;
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::store::{self, New, placement};
use super::super::types::{CreateInstance, DEFAULT_STOP_TIMEOUT_SECONDS, Instance, Plan};
use super::accept;
use crate::app::App;
use crate::auth::{self, Allowed, Fact, actions, keys};
use crate::http::{ApiError, Call, FieldError, MutationQuery, Path, Selector};
use crate::images;
use crate::instance_types::{self, InstanceTypeRow};
use crate::nudge::{self, Topic};
use crate::operations;
use crate::ports::cards;
use crate::quotas::{self, Resource};
use crate::scheduler::{Placement, place};
use crate::volumes::disks::{self, NewDisk, Prepared, Wanted, WantedDisk};
use crate::volumes::gib_for;

/// Make an instance and start it.
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
    ApiError::reject(new.validate())?;
    let mut entry = call.entering(&app, Some(&project)).await?;
    let instance_type = match Selector::parse(&new.instance_type) {
        Some(selector) => instance_types::find(entry.conn(), &selector).await?,
        None => None,
    };
    let facts = facts(&new, instance_type.as_ref());
    let place = auth::New { name: new.name.as_str(), labels: &new.labels, facts: &facts };
    let mut change = entry.decide::<actions::CreateInstance>((&project, place)).await?;
    let now = change.now;
    let id: InstanceId = app.clock.new_id();
    let (conn, allowed) = change.parts();
    let (image, instance_type) = find_parts(conn, allowed, &new, instance_type).await?;
    let disks = disks_of(&new, image.as_ref(), &instance_type);
    let (mut change, disks) = disks::prepare(change, &project, disks).await?;
    let image_id = boot_image(image.as_ref(), &disks, &instance_type)?;
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
        labels: &new.labels,
        image_id,
        instance_type: &instance_type,
        user_data: new.user_data.as_deref(),
        ssh_authorized_keys: &new.ssh_authorized_keys,
        stop_timeout_seconds: DEFAULT_STOP_TIMEOUT_SECONDS.cast_signed(),
        operation_id: begin.id,
        request_id: begin.request_id,
        now,
    };
    let wanted_cards = match &new.networks {
        None => cards::prepare_default(conn, allowed).await?,
        Some(wanted) => cards::prepare(conn, allowed, wanted, |index| format!("/networks/{index}")).await?,
    };
    operations::store::begin(conn, allowed, begin).await?;
    store::insert(conn, allowed, row).await?;
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
    nudge::send(change.conn(), Topic::Placement).await?;
    accept(&app, change, id.as_uuid()).await
}

/// What policies may ask about the instance that is wanted.
fn facts<'a>(
    new: &'a CreateInstance,
    instance_type: Option<&'a InstanceTypeRow>,
) -> Vec<(&'static str, Fact<'a>)> {
    let mut facts: Vec<_> = new.image.iter().map(|image| (keys::IMAGE, Fact::Text(image))).collect();
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
    image: Option<&images::ImageRow>,
    instance_type: &InstanceTypeRow,
) -> Vec<Wanted<'a>> {
    let root = &new.root_volume;
    let what = match &root.volume {
        Some(volume) => WantedDisk::Existing(volume),
        None => WantedDisk::New(NewDisk {
            name: None,
            size_gib: new.root_disk_gib.unwrap_or(instance_type.root_disk_gib),
            image: image.map(|image| image.id),
            ask: false,
        }),
    };
    let delete_with_instance = root.delete_with_instance.unwrap_or(root.volume.is_none());
    let pointer = "/root_volume".to_owned();
    let root = Wanted { what, position: Some(0), delete_with_instance, pointer };
    std::iter::once(root).chain(Wanted::further(&new.volumes)).collect()
}

/// The image that the instance is made from, or that the volume was which it boots from.
fn boot_image(
    image: Option<&images::ImageRow>,
    disks: &Prepared,
    instance_type: &InstanceTypeRow,
) -> Result<Uuid, ApiError> {
    if let Some(image) = image {
        return Ok(image.id);
    }
    let (id, architecture) = disks.boot_image()?;
    if architecture != instance_type.architecture {
        let message =
            format!("the volume's system is for {architecture}, the type for {}", instance_type.architecture);
        return Err(ApiError::invalid(vec![FieldError::new("/instance_type", "architecture", message)]));
    }
    Ok(id)
}

/// The image that the body names, and whether it goes with the type.
async fn find_parts(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::CreateInstance>,
    new: &CreateInstance,
    instance_type: Option<InstanceTypeRow>,
) -> Result<(Option<images::ImageRow>, InstanceTypeRow), ApiError> {
    let mut errors = Vec::new();
    let image = match new.image.as_deref().and_then(Selector::parse) {
        Some(selector) => images::find(conn, allowed, &selector).await?,
        None => None,
    };
    if let (Some(image), Some(instance_type)) = (&image, &instance_type) {
        check_together(image, instance_type, new.root_disk_gib, &mut errors);
    }
    if image.is_none() && new.image.is_some() {
        errors.push(store::no_image());
    }
    if instance_type.is_none() {
        errors.push(store::no_instance_type());
    }
    match instance_type {
        Some(instance_type) if errors.is_empty() => Ok((image, instance_type)),
        _ => Err(ApiError::invalid(errors)),
    }
}

fn check_together(
    image: &images::ImageRow,
    instance_type: &InstanceTypeRow,
    root_disk_gib: Option<i32>,
    errors: &mut Vec<FieldError>,
) {
    let Some(virtual_size) = image.virtual_size_bytes else {
        errors.push(FieldError::new("/image", "not_ready", "nothing has been uploaded to this image yet"));
        return;
    };
    if image.architecture != instance_type.architecture {
        let message =
            format!("the image is for {}, the type for {}", image.architecture, instance_type.architecture);
        errors.push(FieldError::new("/instance_type", "architecture", message));
    }
    let least = instance_type.root_disk_gib;
    let needed = gib_for(virtual_size);
    match root_disk_gib {
        Some(size) if size < least.max(needed) => {
            let message = format!("the image needs {needed} GiB, and this type has at least {least} GiB");
            errors.push(FieldError::new("/root_disk_gib", "too_small", message));
        }
        None if least < needed => {
            let message = format!(
                "the image needs a root disk of {needed} GiB, this type has {least} GiB; ask for more with \
                 `root_disk_gib`"
            );
            errors.push(FieldError::new("/instance_type", "disk_too_small", message));
        }
        _ => {}
    }
}

/// The answer to a dry run: the instance as it would be, whether it would find a host, and what it would use.
async fn answer_plan(
    mut change: crate::http::Mutation<actions::CreateInstance>,
    id: InstanceId,
    made: &[(Resource, i64)],
) -> Result<Response, ApiError> {
    let now = change.now;
    let (conn, allowed) = change.parts();
    let request = placement::request(conn, id).await?.ok_or_else(ApiError::not_found)?;
    let candidates = placement::candidates(conn, now).await?;
    let placement = match place(&candidates, &request) {
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

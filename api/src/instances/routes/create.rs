//! Making an instance.

use axum::extract::State;
use axum::response::Response;
use protocol::InstanceId;
use protocol::agent::Architecture;
use sqlx::PgConnection;

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
use crate::scheduler::{Placement, Request, Size, place};

/// Make an instance and start it. A port that becomes its card needs `network:UpdatePort`, too.
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
    let change = entry.decide::<actions::CreateInstance>((&project, place)).await?;
    let named = new.networks.as_deref().unwrap_or_default();
    let pointer = |index| format!("/networks/{index}");
    let mut change = cards::check_ports(change, &project, named, pointer).await?;
    let now = change.now;
    let id: InstanceId = app.clock.new_id();
    let (conn, allowed) = change.parts();
    let (image, instance_type) = find_parts(conn, allowed, &new, instance_type).await?;
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
        image_id: image.id,
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
        Some(wanted) => cards::prepare(conn, allowed, wanted, pointer).await?,
    };
    operations::store::begin(conn, allowed, begin).await?;
    store::insert(conn, allowed, row).await?;
    cards::attach(conn, allowed, &wanted_cards, id, &app.clock, now).await?;
    if change.query.dry_run {
        return answer_plan(change, id, &instance_type, wanted_cards.made()).await;
    }
    nudge::send(change.conn(), Topic::Placement).await?;
    accept(&app, change, id.as_uuid()).await
}

/// What policies may ask about the instance that is wanted.
fn facts<'a>(
    new: &'a CreateInstance,
    instance_type: Option<&'a InstanceTypeRow>,
) -> Vec<(&'static str, Fact<'a>)> {
    let mut facts = vec![(keys::IMAGE, Fact::Text(&new.image))];
    if let Some(size) = instance_type {
        facts.extend([
            (keys::INSTANCE_TYPE, Fact::Text(&size.name)),
            (keys::VCPUS, Fact::Number(size.vcpus.into())),
            (keys::MEMORY_MIB, Fact::Number(size.memory_mib.into())),
            (keys::ROOT_DISK_GIB, Fact::Number(size.root_disk_gib.into())),
        ]);
    }
    facts
}

/// The image that the body names, and whether it goes with the type.
async fn find_parts(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::CreateInstance>,
    new: &CreateInstance,
    instance_type: Option<InstanceTypeRow>,
) -> Result<(images::ImageRow, InstanceTypeRow), ApiError> {
    let mut errors = Vec::new();
    let image = match Selector::parse(&new.image) {
        Some(selector) => images::find(conn, allowed, &selector).await?,
        None => None,
    };
    if let (Some(image), Some(instance_type)) = (&image, &instance_type) {
        check_together(image, instance_type, &mut errors);
    }
    if image.is_none() {
        errors.push(store::no_image());
    }
    if instance_type.is_none() {
        errors.push(store::no_instance_type());
    }
    match (image, instance_type) {
        (Some(image), Some(instance_type)) if errors.is_empty() => Ok((image, instance_type)),
        _ => Err(ApiError::invalid(errors)),
    }
}

fn check_together(image: &images::ImageRow, instance_type: &InstanceTypeRow, errors: &mut Vec<FieldError>) {
    let Some(virtual_size) = image.virtual_size_bytes else {
        errors.push(FieldError::new("/image", "not_ready", "nothing has been uploaded to this image yet"));
        return;
    };
    if image.architecture != instance_type.architecture {
        let message =
            format!("the image is for {}, the type for {}", image.architecture, instance_type.architecture);
        errors.push(FieldError::new("/instance_type", "architecture", message));
    }
    if virtual_size > i64::from(instance_type.root_disk_gib) << 30 {
        let needed = (virtual_size + (1 << 30) - 1) >> 30;
        let message = format!(
            "the image needs a root disk of {needed} GiB, this type has {} GiB",
            instance_type.root_disk_gib
        );
        errors.push(FieldError::new("/instance_type", "disk_too_small", message));
    }
}

/// The answer to a dry run: the instance as it would be, whether it would find a host, and what it would use.
async fn answer_plan(
    mut change: crate::http::Mutation<actions::CreateInstance>,
    id: InstanceId,
    instance_type: &InstanceTypeRow,
    ports: i64,
) -> Result<Response, ApiError> {
    let now = change.now;
    let (conn, allowed) = change.parts();
    let size = Size {
        vcpus: instance_type.vcpus,
        memory_mib: instance_type.memory_mib,
        disk_gib: instance_type.root_disk_gib,
    };
    let architecture =
        Architecture::from_name(&instance_type.architecture).ok_or_else(ApiError::not_found)?;
    let candidates = placement::candidates(conn, now).await?;
    let placement = match place(&candidates, &Request { architecture, size }) {
        Placement::Host(_) => None,
        Placement::Nowhere(explanation) => Some(explanation),
    };
    let mut charged = vec![
        (Resource::Instances, 1),
        (Resource::Vcpus, size.vcpus.into()),
        (Resource::MemoryMib, size.memory_mib.into()),
        (Resource::DiskGib, size.disk_gib.into()),
    ];
    if ports > 0 {
        charged.push((Resource::Ports, ports));
    }
    let quota = quotas::store::effect(conn, allowed, &charged).await?;
    let row =
        store::find(conn, allowed, &Selector::Id(id.as_uuid())).await?.ok_or_else(ApiError::not_found)?;
    let mut instance: Instance = row.into_wire(now);
    instance.plan = Some(Plan { placeable: placement.is_none(), placement, quota });
    change.commit(axum::http::StatusCode::OK, None, &instance).await
}

//! Making an instance.

use axum::extract::State;
use axum::response::Response;
use protocol::agent::Architecture;
use protocol::{InstanceId, ProjectId};
use sqlx::PgConnection;

use super::super::fit::misfits;
use super::super::store::{self, New, placement};
use super::super::types::{CreateInstance, DEFAULT_STOP_TIMEOUT_SECONDS, Instance, Plan};
use super::accept;
use crate::app::App;
use crate::auth::{self, Fact, actions, keys};
use crate::http::{ApiError, Call, MutationQuery, Path, Selector};
use crate::images::{self, ImageRow};
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
    let image = match entry.project() {
        Some(project) => images::hold(entry.conn(), project, &new.image).await?,
        None => None,
    };
    let named = image.as_ref().map(|image| named(image, entry.project()));
    let facts = facts(&new, image.as_ref(), named.as_deref(), instance_type.as_ref());
    let place = auth::New { name: new.name.as_str(), labels: &new.labels, facts: &facts };
    let change = entry.decide::<actions::CreateInstance>((&project, place)).await?;
    let named = new.networks.as_deref().unwrap_or_default();
    let pointer = |index| format!("/networks/{index}");
    let mut change = cards::check_ports(change, &project, named, pointer).await?;
    let now = change.now;
    let id: InstanceId = app.clock.new_id();
    let (conn, allowed) = change.parts();
    let (image, instance_type) = check_parts(conn, image, instance_type).await?;
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
        image: &image,
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

/// How policies call an image: by its name, and one of another project by that project's name, too.
fn named(image: &ImageRow, project: Option<ProjectId>) -> String {
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
    let mut facts = vec![(keys::IMAGE, Fact::Text(named.unwrap_or(&new.image)))];
    if let Some(image) = image {
        facts.push((keys::IMAGE_ID, Fact::Id(image.id)));
        facts.push((keys::IMAGE_PROJECT, Fact::Text(&image.project_name)));
    }
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

/// Image and type that the body names, if both are there and go together.
async fn check_parts(
    conn: &mut PgConnection,
    image: Option<ImageRow>,
    instance_type: Option<InstanceTypeRow>,
) -> Result<(ImageRow, InstanceTypeRow), ApiError> {
    match (image, instance_type) {
        (Some(image), Some(instance_type)) => {
            ApiError::reject(misfits(conn, &image, &instance_type).await?)?;
            Ok((image, instance_type))
        }
        (image, instance_type) => {
            let no_image = image.is_none().then(store::no_image);
            let no_instance_type = instance_type.is_none().then(store::no_instance_type);
            Err(ApiError::invalid(no_image.into_iter().chain(no_instance_type).collect()))
        }
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

//! Deciding whether an instance may be made: what policies may ask about it is looked up first.

use protocol::ProjectId;

use super::super::custom_size::SizedType;
use super::super::store::heritage::Heritage;
use super::super::types::CreateInstance;
use super::inherit;
use crate::app::App;
use crate::auth::{self, Fact, actions, keys};
use crate::http::{ApiError, Call, Mutation, Selector};
use crate::images::{self, ImageRow};
use crate::instance_types::{self, InstanceTypeRow};
use crate::pools;

type Change = Mutation<actions::CreateInstance>;

/// What the body names, as it was found before anything was decided.
pub(super) struct Named {
    pub image: Option<ImageRow>,
    /// Of the body or of what it is made from, in the size that it shall have.
    pub sized: Option<SizedType>,
    pub heritage: Heritage,
}

/// Looks up what the decision depends on, and decides.
pub(super) async fn decide(
    app: &App,
    call: &Call,
    project: &str,
    new: &CreateInstance,
) -> Result<(Change, Named), ApiError> {
    let mut entry = call.entering(app, Some(project)).await?;
    let instance_type = match new.instance_type.as_deref().and_then(Selector::parse) {
        Some(selector) => instance_types::find(entry.conn(), &selector).await?,
        None => None,
    };
    let image = match (entry.project(), &new.image) {
        (Some(project), Some(image)) => images::hold(entry.conn(), project, image).await?,
        _ => None,
    };
    let called = image.as_ref().map(|image| named(image, entry.project()));
    let root_pool = match &new.root_volume.pool {
        Some(pool) => Some(pools::store::called(entry.conn(), pool).await?),
        None => None,
    };
    let heritage = inherit::foresee(&mut entry, project, new).await?;
    let sized = match (instance_type, heritage.instance_type_id.filter(|_| new.instance_type.is_none())) {
        (Some(given), _) => Some(new.size().of_type(given)),
        (None, Some(id)) => {
            let inherited = instance_types::find(entry.conn(), &Selector::Id(id)).await?;
            inherited.map(|inherited| new.size().or(heritage.size()).of_type(inherited))
        }
        (None, None) => None,
    };
    let sized = sized.transpose().map_err(|wrong| ApiError::invalid(vec![wrong]));
    let asked_type = sized.as_ref().ok().and_then(Option::as_ref).map(|sized| &sized.instance_type);
    let mut facts = facts(new, image.as_ref(), called.as_deref(), asked_type);
    facts.extend(heritage.facts());
    facts.extend(root_pool.iter().map(|pool| (keys::ROOT_POOL, Fact::Text(pool))));
    let place = auth::New { name: new.name.as_str(), labels: &new.labels, facts: &facts };
    let mut change = entry.decide::<actions::CreateInstance>((project, place)).await?;
    if sized.as_ref().is_ok_and(|sized| sized.as_ref().is_some_and(|sized| sized.is_custom)) {
        change = change.also::<actions::UseCustomSize>((project, place), ApiError::not_found).await?;
    }
    Ok((change, Named { image, sized: sized?, heritage }))
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

//! Rights to what an instance becomes: whoever may not make such an instance may not turn one into it.

use super::super::custom_size::SizedType;
use super::super::store::Row;
use super::super::store::heritage::{Heritage, of_instance, of_volume};
use super::deciding::named;
use crate::auth::{self, Action, Fact, InProject, actions, keys};
use crate::http::{ApiError, Mutation, Selector};
use crate::images::ImageRow;

/// Asks for the right to make an instance of this name and these labels with that image, type and size; what is not given
/// stays.
///
/// # Errors
/// `forbidden`; the refusal is recorded.
pub(super) async fn ask<A: Action<On: InProject>>(
    mut change: Mutation<A>,
    project: &str,
    row: &Row,
    image: Option<&ImageRow>,
    size: Option<&SizedType>,
) -> Result<Mutation<A>, ApiError> {
    let (conn, allowed) = change.parts();
    let present = of_instance(conn, allowed, &Selector::Id(row.id)).await?;
    let becomes = match image {
        Some(image) => present.with_image(image, named(image, Some(allowed.project()))),
        None => present,
    };
    let (name, vcpus, memory_mib) = size
        .map(|size| &size.instance_type)
        .map_or((&row.instance_type_name, row.vcpus, row.memory_mib), |size| {
            (&size.name, size.vcpus, size.memory_mib)
        });
    let facts = facts_of(&becomes, name, vcpus, memory_mib);
    let labels = row.labels.0.clone();
    let place = auth::New { name: &row.name, labels: &labels, facts: &facts };
    let change = change.also::<actions::CreateInstance>((project, place), ApiError::not_found).await?;
    match size {
        Some(size) if size.is_custom => {
            change.also::<actions::UseCustomSize>((project, place), ApiError::not_found).await
        }
        _ => Ok(change),
    }
}

/// The same for one of its present size that boots from this volume, which is locked.
pub(super) async fn ask_with_root<A: Action<On: InProject>>(
    mut change: Mutation<A>,
    project: &str,
    row: &Row,
    volume: &Selector,
) -> Result<Mutation<A>, ApiError> {
    let (conn, allowed) = change.parts();
    let becomes = of_volume(conn, allowed, volume).await?;
    let facts = facts_of(&becomes, &row.instance_type_name, row.vcpus, row.memory_mib);
    let labels = row.labels.0.clone();
    let place = auth::New { name: &row.name, labels: &labels, facts: &facts };
    change.also::<actions::CreateInstance>((project, place), ApiError::not_found).await
}

fn facts_of<'a>(
    becomes: &'a Heritage,
    instance_type: &'a str,
    vcpus: i32,
    memory_mib: i32,
) -> Vec<(&'static str, Fact<'a>)> {
    let mut facts = becomes.facts();
    facts.extend([
        (keys::INSTANCE_TYPE, Fact::Text(instance_type)),
        (keys::VCPUS, Fact::Number(vcpus.into())),
        (keys::MEMORY_MIB, Fact::Number(memory_mib.into())),
    ]);
    facts
}

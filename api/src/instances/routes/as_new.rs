//! Rights to what an instance becomes: whoever may not make such an instance may not turn one into it.

use super::super::store::Row;
use super::create::named;
use crate::auth::{self, Action, Fact, InProject, actions, keys};
use crate::http::{ApiError, Mutation};
use crate::images::ImageRow;
use crate::instance_types::InstanceTypeRow;

/// Asks for the right to make an instance of this name and these labels with that image and type.
///
/// # Errors
/// `forbidden`; the refusal is recorded.
pub(super) async fn ask<A: Action<On: InProject>>(
    change: Mutation<A>,
    project: &str,
    row: &Row,
    image: Option<&ImageRow>,
    instance_type: Option<&InstanceTypeRow>,
) -> Result<Mutation<A>, ApiError> {
    let image_name = image.map(|image| named(image, Some(change.allowed.project())));
    let image_name = image_name.as_deref().unwrap_or(&row.image_name);
    let mut facts = vec![
        (keys::IMAGE, Fact::Text(image_name)),
        (keys::IMAGE_ID, Fact::Id(image.map_or(row.image_id, |image| image.id))),
    ];
    facts.extend(image.map(|image| (keys::IMAGE_PROJECT, Fact::Text(&image.project_name))));
    let root = row.volumes.iter().find(|volume| volume.position == 0);
    facts.extend(root.map(|root| (keys::ROOT_DISK_GIB, Fact::Number(root.size_gib.into()))));
    let (name, vcpus, memory_mib) = instance_type
        .map_or((&row.instance_type_name, row.vcpus, row.memory_mib), |size| {
            (&size.name, size.vcpus, size.memory_mib)
        });
    facts.extend([
        (keys::INSTANCE_TYPE, Fact::Text(name)),
        (keys::VCPUS, Fact::Number(vcpus.into())),
        (keys::MEMORY_MIB, Fact::Number(memory_mib.into())),
    ]);
    let labels = row.labels.0.clone();
    let place = auth::New { name: &row.name, labels: &labels, facts: &facts };
    change.also::<actions::CreateInstance>((project, place), ApiError::not_found).await
}

//! What is in the pools of the host, its own and those that it shares.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use camino::Utf8Path;
use protocol::agent::{DriftCode, DriftSubject, ImageSource, VolumeSpec};
use protocol::{LayerId, Name};
use storage::{Inventory, SharedInventory};

use super::{Difference, Host};
use crate::chain;
use crate::host_storage::Doomed;

/// See the module.
pub(super) struct Pools {
    pub(super) local: Inventory,
    shared: BTreeMap<Name, SharedInventory>,
}

impl Pools {
    /// Looks at them; a shared one that cannot be used is a difference, and counts as empty.
    pub(super) fn of(host: &Host, root: &Utf8Path) -> Result<(Self, Vec<Difference>)> {
        let local = Inventory::of(root).with_context(|| format!("the pool {root} cannot be looked at"))?;
        let (mut shared, mut differences) = (BTreeMap::new(), Vec::new());
        for (name, root) in &host.settings.shared_pools {
            match SharedInventory::of(name, root) {
                Ok(found) => _ = shared.insert(name.clone(), found),
                Err(error) => {
                    let detail = format!("make the shared pool {name} usable: {}", chain(&error));
                    differences.push(Difference::new(DriftCode::PoolUnusable, DriftSubject::Host, detail));
                }
            }
        }
        Ok((Self { local, shared }, differences))
    }

    /// Whether all layers of the volume are there.
    pub(super) fn has_layers(&self, volume: &VolumeSpec) -> bool {
        volume.kept().all(|layer| self.has_layer(volume.pool.as_ref(), layer))
    }

    /// Whether the image is cached where the volume needs it.
    pub(super) fn has_image(&self, volume: &VolumeSpec, image: &ImageSource) -> bool {
        match &volume.pool {
            None => self.local.images.contains(&image.sha256),
            Some(name) => self.shared.get(name).is_some_and(|pool| pool.images.contains(&image.sha256)),
        }
    }

    pub(super) fn has_any(&self, doomed: Doomed<'_>) -> bool {
        let there = |layer: &LayerId| {
            self.has_layer(None, *layer) || doomed.pools.iter().any(|pool| self.has_layer(Some(pool), *layer))
        };
        doomed.layers.iter().any(there)
    }

    fn has_layer(&self, pool: Option<&Name>, layer: LayerId) -> bool {
        match pool {
            None => self.local.layers.contains(&layer),
            Some(name) => self.shared.get(name).is_some_and(|pool| pool.layers.contains(&layer)),
        }
    }
}

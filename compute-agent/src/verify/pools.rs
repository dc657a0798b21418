//! What is in the pools of the host, its own and those that it shares.

use anyhow::{Context, Result};
use camino::Utf8Path;
use protocol::agent::{ImageSource, VolumeSpec};
use protocol::{LayerId, Name};
use storage::Inventory;

use super::shared::{Found, pools_of};
use crate::desired::Wanted;
use crate::host_storage::Doomed;

/// See the module.
pub(super) struct Pools {
    pub(super) local: Inventory,
    /// INVARIANT: what is in a pool that could not be read counts as there. That it were gone is for an operator a reason to
    /// stop a guest, which does nothing but wait for the pool.
    shared: Found,
}

impl Pools {
    /// Looks at the host's own.
    pub(super) fn of(root: &Utf8Path, shared: Found) -> Result<Self> {
        let local = Inventory::of(root).with_context(|| format!("the pool {root} cannot be looked at"))?;
        Ok(Self { local, shared })
    }

    /// Whether all pools could be read that something of it is in. What is to be done about it is not known otherwise.
    pub(super) fn are_known(&self, wanted: &Wanted) -> bool {
        pools_of(wanted).all(|pool| self.shared.contains_key(pool))
    }

    /// Whether all layers of the volume are there.
    pub(super) fn has_layers(&self, volume: &VolumeSpec) -> bool {
        volume.kept().all(|layer| self.has_layer(volume.pool.as_ref(), layer))
    }

    /// Whether the image is cached where the volume needs it.
    pub(super) fn has_image(&self, volume: &VolumeSpec, image: &ImageSource) -> bool {
        match &volume.pool {
            None => self.local.images.contains(&image.sha256),
            Some(name) => self.shared.get(name).is_none_or(|pool| pool.images.contains(&image.sha256)),
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
            Some(name) => self.shared.get(name).is_none_or(|pool| pool.layers.contains(&layer)),
        }
    }
}

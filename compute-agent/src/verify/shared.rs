//! What the shared pools have of what is wanted on this host.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use protocol::Name;
use protocol::agent::{DriftCode, DriftSubject, SharedPoolReport, SharedPoolState};
use storage::patience::{PATIENCE, Turn, within};
use storage::{SharedInventory, Unusable};

use super::{Difference, Host};
use crate::chain;
use crate::desired::Wanted;

/// Of the pools that could be read; nothing is known of what is in another one.
pub(super) type Found = BTreeMap<Name, SharedInventory>;

/// Held by whoever looks into a pool.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<Name, Turn>>);

impl Turns {
    fn of(&self, pool: &Name) -> Turn {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(pool.clone()).or_default())
    }
}

impl Host {
    /// Looks into the shared pools. One that cannot be used, as its `states` say if somebody keeps them, or that does not
    /// answer, is a difference.
    pub(super) async fn shared_pools(&self, states: &[SharedPoolReport]) -> (Found, Vec<Difference>) {
        let looks = self.sought().into_iter().map(async |(name, sought)| {
            let looked = match states.iter().find(|report| report.name == name).map(|report| &report.state) {
                Some(SharedPoolState::Unusable { reason }) => Err(reason.clone()),
                Some(SharedPoolState::Ready { .. }) | None => self.look_into(&name, sought).await,
            };
            (name, looked)
        });
        let (mut found, mut differences) = (Found::new(), Vec::new());
        for (name, looked) in join_all(looks).await {
            match looked {
                Ok(there) => _ = found.insert(name, there),
                Err(why) => {
                    let detail = format!("make the shared pool {name} usable: {why}");
                    differences.push(Difference::new(DriftCode::PoolUnusable, DriftSubject::Host, detail));
                }
            }
        }
        (found, differences)
    }

    /// What is wanted on this host, in each shared pool that it was told of or that something is wanted in.
    fn sought(&self) -> Found {
        let told = self.settings.shared_pools.keys();
        let mut sought: Found = told.map(|name| (name.clone(), SharedInventory::default())).collect();
        for wanted in self.desired.ids().into_iter().filter_map(|id| self.desired.get(id)) {
            for volume in wanted.disks().iter().map(|disk| &disk.volume) {
                let Some(name) = &volume.pool else { continue };
                let pool = sought.entry(name.clone()).or_default();
                pool.layers.extend(volume.kept());
                pool.images.extend(volume.image.as_ref().map(|image| image.sha256));
            }
            let doomed = wanted.doomed();
            for name in doomed.pools {
                sought.entry(name.clone()).or_default().layers.extend(doomed.layers);
            }
        }
        sought
    }

    async fn look_into(&self, name: &Name, sought: SharedInventory) -> Result<SharedInventory, String> {
        let Some(root) = self.settings.shared_pools.get(name).cloned() else {
            return Err("this host was told of none of that name".to_owned());
        };
        let pool = name.clone();
        let look = move || SharedInventory::of(&pool, &root, &sought);
        match within(PATIENCE, self.turns.of(name), look).await {
            Some(looked) => looked.map_err(|error| chain(&error)),
            None => Err(Unusable::Silent.to_string()),
        }
    }
}

/// The shared pools in which something of it is.
pub(super) fn pools_of(wanted: &Wanted) -> impl Iterator<Item = &Name> {
    wanted.disks().iter().filter_map(|disk| disk.volume.pool.as_ref()).chain(wanted.doomed().pools)
}

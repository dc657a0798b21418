//! The same comparison from within the agent, with what it knows: its wishes, its domains, its last look at the networks.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use async_trait::async_trait;
use camino::Utf8Path;
use protocol::InstanceId;
use protocol::agent::HostDifference;
use uuid::Uuid;

use super::shared::Turns;
use super::{Difference, Host, Settings, of_networks};
use crate::clock::SharedClock;
use crate::desired::DesiredStore;
use crate::drift::{Look, Looked};
use crate::guard::Guards;
use crate::host_storage::HostStorage;
use crate::hypervisor::Domain;
use crate::networks::{Keeper, NetworkStore};
use crate::reconcile::Reconciler;
use crate::reconcile::boots::Boots;

/// What of the agent knows.
pub(crate) struct RunningHost {
    host: Arc<Host>,
    /// Held while files are read: what hangs costs one thread, however often a look is begun.
    turn: Arc<tokio::sync::Mutex<()>>,
    storage: Arc<dyn HostStorage>,
    keeper: Arc<Keeper>,
    reconciler: Arc<Reconciler>,
    clock: SharedClock,
    machine_boot: Uuid,
}

impl RunningHost {
    /// `None` when its hypervisor is simulated: there is nothing to look at.
    pub(crate) fn new(
        state_dir: &Utf8Path,
        (desired, boots, guards): (Arc<DesiredStore>, Arc<Boots>, Arc<Guards>),
        (networks, keeper): (Arc<NetworkStore>, Arc<Keeper>),
        storage: Arc<dyn HostStorage>,
        reconciler: Arc<Reconciler>,
        clock: SharedClock,
        machine_boot: Uuid,
    ) -> Option<Self> {
        let settings = Settings::read(state_dir).ok().filter(|settings| settings.libvirt_uri.is_some())?;
        let (state_dir, turns) = (state_dir.to_owned(), Turns::default());
        let host = Arc::new(Host { state_dir, settings, desired, boots, guards, networks, turns });
        Some(Self { host, turn: Arc::default(), storage, keeper, reconciler, clock, machine_boot })
    }

    async fn beside_networks(&self, domains: Arc<HashMap<InstanceId, Domain>>) -> Result<Vec<Difference>> {
        let (shared, mut differences) = self.host.shared_pools(&self.storage.shared_pools().await).await;
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (host, machine_boot, now) = (Arc::clone(&self.host), self.machine_boot, self.clock.now());
        let look = move || {
            let _turn = turn;
            host.beside_networks(&domains, shared, machine_boot, now)
        };
        differences.extend(tokio::task::spawn_blocking(look).await.context("the look was cut off")??);
        Ok(differences)
    }
}

#[async_trait]
impl Look for RunningHost {
    async fn look(&self) -> Result<Looked> {
        ensure!(*self.reconciler.acting().borrow(), "the newest wishes are not known");
        self.reconciler.underway.watch();
        let domains = self.reconciler.view.look().await.map_err(|error| anyhow!(error))?;
        let networks = self.keeper.differences().context("the networks were not compared lately")?;
        let beside = self.beside_networks(Arc::clone(&domains)).await?;
        let mut busy = self.reconciler.underway.touched();
        // A guest that comes or goes is on its way for minutes, without a step.
        let ids = self.host.desired.ids().into_iter();
        busy.extend(ids.filter(|id| self.host.desired.get(*id).is_some_and(|one| one.migration().is_some())));
        let networks = networks.into_iter().map(of_networks);
        let differences = self.host.without_strangers(networks, &domains).chain(beside);
        let found: Vec<HostDifference> = differences.filter_map(Difference::told).collect();
        Ok(Looked { found, busy })
    }
}

//! One simulated host.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use protocol::Name;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::faults::{Faults, until_next};
use super::line::Line;
use super::options::Options;
use crate::agent::{self, StateDir, Surroundings};
use crate::clock::SharedClock;
use crate::control_plane::http::HttpControlPlane;
use crate::guard::Guards;
use crate::guard::clock::KernelClock;
use crate::guard::witness::Witness;
use crate::host_storage::SimulatedStorage;
use crate::hypervisor::simulated::{Simulated, SimulatedMachine, Tally};
use crate::identity::{Identity, renew};
use crate::networks::simulated::SimulatedNetworking;
use crate::verify::Settings;

/// The machine, which outlives its agents.
pub(super) struct SimulatedHost {
    pub name: Name,
    number: usize,
    state_dir: StateDir,
    hypervisor: Arc<Simulated>,
    storage: Arc<SimulatedStorage>,
    faults: Faults,
    seed: u64,
}

impl SimulatedHost {
    pub(super) fn open(options: &Options, number: usize, name: Name, state_dir: StateDir) -> Result<Self> {
        let folder = state_dir.path();
        let identity = Identity::load(folder)?;
        let seed = options.seed ^ (number as u64).rotate_left(32);
        let machine = SimulatedMachine {
            cpus: options.cpus,
            memory_mib: options.memory(),
            disk_gib: options.disk(),
            create_latency: options.create_latency,
            step_latency: options.step_latency,
            failing_creates: options.faults.failing_creates,
            seed,
            // The machine never goes down: whatever ends is an agent.
            ..SimulatedMachine::new(identity.membership.host_id.as_uuid())
        };
        let kept = |name: &str| folder.join(name);
        let hypervisor = Simulated::kept_in(kept("domains.json"), machine);
        let hypervisor = hypervisor.with_context(|| format!("the domains in {folder} cannot be read"))?;
        let storage = SimulatedStorage::kept_in(kept("disks.json"), options.disk(), options.step_latency);
        let storage = storage.with_context(|| format!("the disks in {folder} cannot be read"))?;
        let settings = Settings {
            libvirt_uri: None,
            underlay_address: Some(Options::underlay_address(number).into()),
            external_interface: None,
            protected_networks: Vec::new(),
            shared_pools: Default::default(),
        };
        settings.keep(folder).context("the settings cannot be written down")?;
        let (hypervisor, storage, faults) = (Arc::new(hypervisor), Arc::new(storage), options.faults);
        Ok(Self { name, number, state_dir, hypervisor, storage, faults, seed })
    }

    pub(super) fn tally(&self) -> Tally {
        self.hypervisor.tally()
    }

    /// Is one agent after the other, until `stop`.
    pub(super) async fn run(&self, clock: SharedClock, stop: CancellationToken) -> Result<()> {
        let mut dice = StdRng::seed_from_u64(self.seed);
        while !stop.is_cancelled() {
            let life = stop.child_token();
            self.live(Arc::clone(&clock), &mut dice, life).await?;
        }
        Ok(())
    }

    async fn live(&self, clock: SharedClock, dice: &mut StdRng, life: CancellationToken) -> Result<()> {
        let identity = Identity::load(self.state_dir.path())?;
        let machine_boot = identity.membership.host_id.as_uuid();
        let control_plane = Arc::new(HttpControlPlane::new(&identity)?);
        let line = Arc::new(Line::new(Arc::clone(&control_plane)));
        // It has no pools that others share, so there is nothing to guard.
        let none = BTreeMap::new();
        let guards = Guards::open(self.state_dir.path(), none.clone(), machine_boot, Arc::new(KernelClock));
        let surroundings = Surroundings {
            hypervisor: Arc::clone(&self.hypervisor) as _,
            storage: Arc::clone(&self.storage) as _,
            networking: Box::new(|_| Arc::new(SimulatedNetworking::default())),
            control_plane: Arc::clone(&line) as _,
            clock: Arc::clone(&clock),
            machine_boot,
            underlay_address: Some(Options::underlay_address(self.number).into()),
            guards: Arc::new(guards.context("what is guarded cannot be read")?),
            witness: Witness::start(identity.membership.host_id, none),
        };
        let ends = until_next(self.faults.restart, dice);
        tokio::select! {
            ended = agent::run(&self.state_dir, surroundings, life.clone()) => ended?,
            () = renew::keep_valid(identity, control_plane, clock) => {}
            () = self.be_silent(&line, dice) => {}
            () = end_after(ends, &life) => {}
        }
        Ok(())
    }

    /// Cuts the line now and then; never returns.
    async fn be_silent(&self, line: &Line, dice: &mut StdRng) {
        if let Some((every, lasts)) = self.faults.silence {
            loop {
                tokio::time::sleep(until_next(Some(every), dice).unwrap_or(every)).await;
                tracing::debug!(host = %self.name, "falls silent");
                line.set_cut(true);
                tokio::time::sleep(lasts).await;
                line.set_cut(false);
            }
        }
        std::future::pending::<()>().await;
    }
}

/// Ends the agent after that time; never returns, so that the agent can come to rest.
async fn end_after(time: Option<Duration>, life: &CancellationToken) {
    if let Some(time) = time {
        tokio::time::sleep(time).await;
        life.cancel();
    }
    std::future::pending::<()>().await;
}

//! One simulated host.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use protocol::{HostId, Name};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::faults::{Faults, until_next};
use super::line::Line;
use super::options::Options;
use crate::agent::{self, StateDir, Surroundings};
use crate::clock::SharedClock;
use crate::control_plane::http::HttpControlPlane;
use crate::guard::machine::ThisMachine;
use crate::guard::witness::Witness;
use crate::guard::{Guards, SharedMachine, second};
use crate::host_storage::{HostStorage, SimulatedStorage};
use crate::hypervisor::simulated::{Simulated, SimulatedMachine, Tally};
use crate::identity::{Identity, renew};
use crate::networks::simulated::SimulatedNetworking;
use crate::verify::Settings;

/// The machine, which outlives its agents.
pub(super) struct SimulatedHost {
    pub name: Name,
    number: usize,
    state_dir: StateDir,
    pub hypervisor: Arc<Simulated>,
    pub storage: Arc<SimulatedStorage>,
    /// The line to the control plane.
    pub is_cut: watch::Sender<bool>,
    faults: Faults,
    seed: u64,
    restarts: AtomicU64,
    silences: AtomicU64,
}

/// What an agent has under it.
pub(super) struct Under {
    pub machine_boot: Uuid,
    /// Those that others share.
    pub pools: BTreeMap<Name, Utf8PathBuf>,
    pub machine: SharedMachine,
    pub storage: Arc<dyn HostStorage>,
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
            // Unless it shares a pool, the machine never goes down: whatever ends is an agent.
            ..SimulatedMachine::new(identity.membership.host_id.as_uuid())
        };
        let kept = |name: &str| folder.join(name);
        let hypervisor = Simulated::kept_in(kept("domains.json"), machine);
        let hypervisor = hypervisor.with_context(|| format!("the domains in {folder} cannot be read"))?;
        let storage = SimulatedStorage::kept_in(kept("disks.json"), options.disk(), options.step_latency);
        let storage = storage.with_context(|| format!("the disks in {folder} cannot be read"))?;
        let (hypervisor, storage, faults) = (Arc::new(hypervisor), Arc::new(storage), options.faults);
        let (is_cut, restarts, silences) = (watch::Sender::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let host =
            Self { name, number, state_dir, hypervisor, storage, is_cut, faults, seed, restarts, silences };
        host.keep_settings(BTreeMap::new())?;
        Ok(host)
    }

    /// Its guard and its agent find the shared pool there.
    pub(super) fn share(&self, pool: &Name, root: &Utf8Path) -> Result<()> {
        self.keep_settings([(pool.clone(), root.to_owned())].into())
    }

    fn keep_settings(&self, shared_pools: BTreeMap<Name, Utf8PathBuf>) -> Result<()> {
        let settings = Settings {
            libvirt_uri: None,
            underlay_address: Some(Options::underlay_address(self.number).into()),
            external_interface: None,
            protected_networks: Vec::new(),
            shared_pools,
        };
        settings.keep(self.folder()).context("the settings cannot be written down")
    }

    pub(super) fn folder(&self) -> &Utf8Path {
        self.state_dir.path()
    }

    pub(super) fn host_id(&self) -> Result<HostId> {
        Ok(Identity::load(self.folder())?.membership.host_id)
    }

    /// How often its agent was started anew and nothing was heard of it, as the faults say.
    pub(super) fn struck(&self) -> (u64, u64) {
        (self.restarts.load(Relaxed), self.silences.load(Relaxed))
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
            if !stop.is_cancelled() {
                self.restarts.fetch_add(1, Relaxed);
            }
        }
        Ok(())
    }

    async fn live(&self, clock: SharedClock, dice: &mut StdRng, life: CancellationToken) -> Result<()> {
        let machine_boot = self.host_id()?.as_uuid();
        // It has no pools that others share, so there is nothing to guard.
        let (machine, storage) = (Arc::new(ThisMachine), Arc::clone(&self.storage) as _);
        let under = Under { machine_boot, pools: BTreeMap::new(), machine, storage };
        let ends = until_next(self.faults.restart, dice);
        self.is_cut.send_replace(false);
        tokio::select! {
            ended = self.be_agent(under, clock, life.clone()) => ended?,
            () = self.be_silent(dice) => {}
            () = end_after(ends, &life) => {}
        }
        Ok(())
    }

    /// Is an agent until `life` is cancelled, or this is dropped.
    pub(super) async fn be_agent(
        &self,
        under: Under,
        clock: SharedClock,
        life: CancellationToken,
    ) -> Result<()> {
        let identity = Identity::load(self.folder())?;
        let control_plane = Arc::new(HttpControlPlane::new(&identity)?);
        let line = Line::new(Arc::clone(&control_plane), self.is_cut.clone());
        let Under { machine_boot, pools, machine, storage } = under;
        let guards = Guards::open(self.folder(), pools.clone(), machine_boot, Arc::clone(&machine) as _);
        let guards = Arc::new(guards.context("what is guarded cannot be read")?);
        if !pools.is_empty() {
            let started = second::start_on(Arc::clone(&machine), &guards);
            started.context("no thread to stand in for the guard")?;
        }
        let surroundings = Surroundings {
            hypervisor: Arc::clone(&self.hypervisor) as _,
            storage,
            networking: Box::new(|_| Arc::new(SimulatedNetworking::default())),
            control_plane: Arc::new(line),
            clock: Arc::clone(&clock),
            machine_boot,
            underlay_address: Some(Options::underlay_address(self.number).into()),
            guards,
            witness: Witness::start_on(machine, identity.membership.host_id, pools),
        };
        tokio::select! {
            ended = agent::run(&self.state_dir, surroundings, life) => ended?,
            () = renew::keep_valid(identity, control_plane, clock) => {}
        }
        Ok(())
    }

    /// Cuts the line now and then; never returns.
    async fn be_silent(&self, dice: &mut StdRng) {
        if let Some((every, lasts)) = self.faults.silence {
            loop {
                tokio::time::sleep(until_next(Some(every), dice).unwrap_or(every)).await;
                tracing::debug!(host = %self.name, "falls silent");
                self.silences.fetch_add(1, Relaxed);
                self.is_cut.send_replace(true);
                tokio::time::sleep(lasts).await;
                self.is_cut.send_replace(false);
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

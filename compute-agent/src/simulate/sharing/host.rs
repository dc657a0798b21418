//! A simulated host with a shared pool: its agent and its guard, which live and die for themselves, and its power.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use protocol::{InstanceId, Name};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::host::SimulatedHost;
use super::gate::Gate;
use super::history::{History, Scribe, What};
use super::ordeal::Fault;
use super::pools::{GroupPool, PoolWay, Way};
use crate::guard::state::Over;

/// The machine's current boot.
const BOOT_FILE: &str = "machine-boot";

/// See the module.
pub(super) struct SharingHost {
    pub(super) host: Arc<SimulatedHost>,
    pub(super) pool: Arc<GroupPool>,
    history: Arc<History>,
    pub(super) way: Arc<PoolWay>,
    pub(super) agent_gate: Arc<Gate>,
    pub(super) guard_gate: Arc<Gate>,
    pub(super) kills: bool,
    inside: Mutex<Inside>,
}

/// What runs on the host, and what is wrong around it.
pub(super) struct Inside {
    pub(super) machine_boot: Uuid,
    pub(super) agent: Option<(CancellationToken, JoinHandle<()>)>,
    pub(super) guard: Option<(Over, JoinHandle<()>)>,
    is_on: bool,
    line_is_cut: bool,
    way: Way,
}

impl SharingHost {
    pub(super) fn open(
        host: Arc<SimulatedHost>,
        pool: Arc<GroupPool>,
        history: Arc<History>,
        kills: bool,
    ) -> Result<Self> {
        let folder = host.folder().to_owned();
        let boot = folder.join(BOOT_FILE);
        let machine_boot = match std::fs::read_to_string(&boot) {
            Ok(text) => text.parse().with_context(|| format!("{boot} holds no boot of a machine"))?,
            Err(_) => host.host_id()?.as_uuid(),
        };
        host.share(&pool.name, &pool.root)?;
        let scribe = Scribe { history: Arc::clone(&history), host: host.name.clone(), folder };
        host.hypervisor.tell(Box::new(scribe));
        let inside = Inside {
            machine_boot,
            agent: None,
            guard: None,
            is_on: false,
            line_is_cut: false,
            way: Way::Open,
        };
        let (agent_gate, guard_gate) = (Arc::new(Gate::new()), Arc::new(Gate::new()));
        let (way, inside) = (Arc::default(), Mutex::new(inside));
        Ok(Self { host, pool, history, way, agent_gate, guard_gate, kills, inside })
    }

    pub(super) fn name(&self) -> &Name {
        &self.host.name
    }

    pub(super) fn guests(&self) -> Vec<InstanceId> {
        self.host.hypervisor.processes().into_iter().map(|(id, _)| id).collect()
    }

    pub(super) fn begin(&self, fault: Fault) -> Result<()> {
        let mut inside = self.lock();
        match fault {
            Fault::Line => inside.line_is_cut = true,
            Fault::PoolGone => inside.way = Way::Gone,
            Fault::PoolHangs => inside.way = Way::Hangs,
            Fault::Alone => (inside.line_is_cut, inside.way) = (true, Way::Gone),
            Fault::AgentPaused => self.agent_gate.set_closed(true),
            Fault::GuardPaused => self.guard_gate.set_closed(true),
            Fault::AgentKilled => self.kill_agent(&mut inside),
            Fault::GuardKilled => self.kill_guard(&mut inside),
            Fault::HostPaused => {
                self.set_gates_closed(true);
                // Last: until then its guests may have written.
                self.history.add(&self.host.name, What::StandsStill);
            }
            Fault::HostKilled => self.power_off(&mut inside)?,
        }
        self.set_ways(&inside);
        Ok(())
    }

    pub(super) fn end(&self, fault: Fault) -> Result<()> {
        let mut inside = self.lock();
        match fault {
            Fault::Line => inside.line_is_cut = false,
            Fault::PoolGone | Fault::PoolHangs => inside.way = Way::Open,
            Fault::Alone => (inside.line_is_cut, inside.way) = (false, Way::Open),
            Fault::AgentPaused => self.agent_gate.set_closed(false),
            Fault::GuardPaused => self.guard_gate.set_closed(false),
            Fault::AgentKilled => self.start_agent(&mut inside)?,
            Fault::GuardKilled => self.start_guard(&mut inside)?,
            Fault::HostPaused => {
                // First: from then on its guests may write.
                self.history.add(&self.host.name, What::GoesOn);
                self.set_gates_closed(false);
            }
            Fault::HostKilled => return self.start(inside),
        }
        self.set_ways(&inside);
        Ok(())
    }

    pub(super) fn power_on(&self) -> Result<()> {
        self.start(self.lock())
    }

    fn start(&self, mut inside: MutexGuard<'_, Inside>) -> Result<()> {
        inside.is_on = true;
        self.host.hypervisor.set_reachable(true);
        self.set_ways(&inside);
        self.start_guard(&mut inside)?;
        self.start_agent(&mut inside)
    }

    /// Ends the agent and the guard, and leaves the guests.
    pub(super) fn leave(&self) {
        let mut inside = self.lock();
        self.set_gates_closed(false);
        self.way.set(Way::Gone);
        self.kill_agent(&mut inside);
        self.kill_guard(&mut inside);
    }

    /// The guests first, and nothing gets in or out: what ends after them was never there.
    fn power_off(&self, inside: &mut Inside) -> Result<()> {
        inside.is_on = false;
        self.set_ways(inside);
        inside.machine_boot = Uuid::new_v4();
        std::fs::write(self.host.folder().join(BOOT_FILE), inside.machine_boot.to_string())?;
        self.host.hypervisor.set_reachable(false);
        self.host.hypervisor.reboot_machine(inside.machine_boot);
        self.history.add(&self.host.name, What::PowerLost);
        if let Some((over, _)) = &inside.guard {
            over.set();
        }
        self.set_gates_closed(false);
        self.kill_agent(inside);
        self.kill_guard(inside);
        Ok(())
    }

    fn set_ways(&self, inside: &Inside) {
        self.host.is_cut.send_replace(inside.line_is_cut || !inside.is_on);
        self.way.set(if inside.is_on { inside.way } else { Way::Gone });
    }

    fn set_gates_closed(&self, is_closed: bool) {
        self.agent_gate.set_closed(is_closed);
        self.guard_gate.set_closed(is_closed);
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

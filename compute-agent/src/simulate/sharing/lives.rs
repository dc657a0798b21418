//! The lives of a simulated host's agent and guard: threads that can be held up, and end wherever they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use camino::Utf8PathBuf;
use protocol::Name;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use super::super::host::Under;
use super::gate::Gate;
use super::host::{Inside, SharingHost};
use super::machine::View;
use super::pools::SharingStorage;
use crate::clock::{SharedClock, SystemClock};
use crate::guard::state::Over;
use crate::guard::{self, SharedMachine, Times};

/// Of an agent: what it does with files.
const BLOCKING_THREADS: usize = 4;
const IDLE_THREAD: Duration = Duration::from_secs(2);

impl SharingHost {
    fn view(&self, gate: &Arc<Gate>) -> SharedMachine {
        Arc::new(View {
            gate: Arc::clone(gate),
            hypervisor: (*self.host.hypervisor).clone(),
            way: Arc::clone(&self.way),
            kills: self.kills,
        })
    }

    /// In a thread of its own with all its tasks, which can be held up and end wherever they are.
    pub(super) fn start_agent(&self, inside: &mut Inside) -> Result<()> {
        let under = Under {
            machine_boot: inside.machine_boot,
            pools: self.pools(),
            machine: self.view(&self.agent_gate),
            storage: Arc::new(SharingStorage {
                own: Arc::clone(&self.host.storage),
                pool: Arc::clone(&self.pool),
                way: Arc::clone(&self.way),
            }),
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_keep_alive(IDLE_THREAD)
            .build()
            .context("no runtime for an agent")?;
        let (host, gate, killed) =
            (Arc::clone(&self.host), Arc::clone(&self.agent_gate), CancellationToken::new());
        let until = killed.clone();
        let live = move || {
            let clock: SharedClock = Arc::new(SystemClock);
            let ended = runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = until.cancelled() => Ok(()),
                    () = gate.hold_up() => Ok(()),
                    ended = host.be_agent(under, clock, until.child_token()) => ended,
                }
            });
            runtime.shutdown_background();
            if let Err(error) = ended {
                tracing::error!(host = %host.name, error = format!("{error:#}"), "an agent ends");
            }
        };
        let thread = thread::Builder::new().name("agent".to_owned()).spawn(live)?;
        inside.agent = Some((killed, thread));
        Ok(())
    }

    pub(super) fn start_guard(&self, inside: &mut Inside) -> Result<()> {
        let options = guard::Options {
            state_dir: self.host.folder().to_owned(),
            host: self.host.host_id()?,
            machine_boot: inside.machine_boot,
            watchdog: None,
            times: Times::default(),
        };
        let (machine, over, name) = (self.view(&self.guard_gate), Over::default(), self.host.name.clone());
        let until = over.clone();
        let live = move || {
            if let Err(error) = guard::run::run_on(machine, &options, &until) {
                tracing::error!(host = %name, error = format!("{error:#}"), "a guard ends");
            }
        };
        let thread = thread::Builder::new().name("guard".to_owned()).spawn(live)?;
        inside.guard = Some((over, thread));
        Ok(())
    }

    pub(super) fn kill_agent(&self, inside: &mut Inside) {
        if let Some((killed, thread)) = inside.agent.take() {
            killed.cancel();
            self.join("agent", thread);
        }
    }

    pub(super) fn kill_guard(&self, inside: &mut Inside) {
        if let Some((over, thread)) = inside.guard.take() {
            over.set();
            self.join("guard", thread);
        }
    }

    fn join(&self, what: &str, thread: JoinHandle<()>) {
        if thread.join().is_err() {
            tracing::error!(host = %self.host.name, what, "it has panicked");
        }
    }

    fn pools(&self) -> BTreeMap<Name, Utf8PathBuf> {
        [(self.pool.name.clone(), self.pool.root.clone())].into()
    }
}

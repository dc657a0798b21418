//! The guard as a process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use camino::Utf8PathBuf;
use protocol::HostId;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use super::decision::Decider;
use super::lock::{Lock, ProcessId};
use super::machine::{SharedMachine, ThisMachine};
use super::recorder::Recorder;
use super::rounds::{Rounds, folder};
use super::state::{Over, Shared, State};
use super::status::{self, Status, StatusFile};
use super::watchdog::Watchdog;
use super::{Times, entries, harden};
use crate::chain;

/// What the guard needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The agent's folder.
    pub state_dir: Utf8PathBuf,
    pub host: HostId,
    /// The machine's current boot.
    pub machine_boot: Uuid,
    /// A watchdog to feed.
    pub watchdog: Option<Utf8PathBuf>,
    pub times: Times,
}

/// Guards until SIGTERM or SIGINT, and after that as long as a guarded guest runs.
///
/// # Errors
/// When another guard of the folder lives, or the folder or the watchdog cannot be used.
pub fn run(options: &Options) -> Result<()> {
    let _lock = take(options)?;
    harden::harden();
    let mut decider = set_up(options, Arc::new(ThisMachine), ProcessId::own()?, Over::default())?;
    tracing::info!(host = %options.host, watchdog = options.watchdog.is_some(), "the guard starts");
    listen(decider.state.clone())?;
    // Last: whatever fails before needs no reset.
    decider.watchdog = options.watchdog.as_deref().map(Watchdog::arm).transpose()?;
    decider.run();
    tracing::info!("the guard ends: no guarded guest runs");
    Ok(())
}

/// Guards a machine that is simulated, from this thread on, until it is over: as if it had been killed.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_on(machine: SharedMachine, options: &Options, over: &Over) -> Result<()> {
    let _lock = take(options)?;
    set_up(options, machine, ProcessId::own_thread()?, over.clone())?.run();
    Ok(())
}

fn take(options: &Options) -> Result<Lock> {
    let folder = folder(&options.state_dir);
    entries::make(&folder).with_context(|| format!("{folder} cannot be made"))?;
    Lock::take(&folder)
}

/// Starts the threads but the one that decides.
fn set_up(options: &Options, machine: SharedMachine, process: ProcessId, over: Over) -> Result<Decider> {
    let folder = folder(&options.state_dir);
    let before = last_word(&folder);
    let status = Status::new(options.machine_boot, process);
    let file = StatusFile::open(&folder, before.as_ref());
    let file = file.with_context(|| format!("the status in {folder} cannot be opened"))?;
    let state = Shared::new(restored(before, options.machine_boot), over);
    let recorder = Recorder::start(folder.clone()).context("no thread for records")?;
    let rounds = Rounds {
        state_dir: options.state_dir.clone(),
        folder,
        host: options.host,
        state: state.clone(),
        machine: Arc::clone(&machine),
        times: options.times,
        status,
        file,
        pools: BTreeMap::new(),
    };
    thread::Builder::new().name("rounds".to_owned()).spawn(move || rounds.run())?;
    Ok(Decider {
        state,
        machine,
        recorder,
        watchdog: None,
        times: options.times,
        dying: BTreeMap::new(),
        is_hopeless: false,
    })
}

fn last_word(folder: &camino::Utf8Path) -> Option<Status> {
    status::read(folder).unwrap_or_else(|error| {
        tracing::warn!(error = %chain(&error), "what the guard before said cannot be read");
        None
    })
}

/// What the guard before knew: what it held in this boot of the machine is held on without a gap, if none has come about.
fn restored(before: Option<Status>, machine_boot: Uuid) -> State {
    let Some(before) = before else { return State::default() };
    let mut leases = before.leases;
    if before.machine_boot != machine_boot {
        for lease in leases.values_mut() {
            (lease.renewed, lease.since) = (None, None);
        }
    }
    State { leases, ..State::default() }
}

/// Hears of SIGTERM and SIGINT from now on.
fn listen(state: Shared) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.context("signals cannot be waited for")?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        let terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
        (terminate, signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?)
    };
    let told = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            end(&state);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(told))?;
    Ok(())
}

fn end(state: &Shared) {
    let running = {
        let mut state = state.lock();
        let running = state.guests.values().filter(|guest| guest.living().next().is_some()).count();
        state.ending.get_or_insert(0);
        running
    };
    if running > 0 {
        tracing::warn!(
            running,
            "guarded guests run: the guard goes on until they have ended, and lets no others start. To replace it, kill it \
             and start another within some seconds"
        );
    }
}

//! The thread that decides who must not run, and kills.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::{InstanceId, Name};

use super::Times;
use super::clock::Moment;
use super::entries::Fenced;
use super::machine::{Process, SharedMachine};
use super::recorder::Recorder;
use super::state::Shared;
use super::terms::{Offence, offence};
use super::watchdog::Watchdog;

/// Looks at everything that have to be over, after the guard was told to end, before nothing can appear any more.
const LAST_ROUNDS: u32 = 3;

pub(super) struct Decider {
    pub(super) state: Shared,
    pub(super) machine: SharedMachine,
    pub(super) recorder: Recorder,
    pub(super) watchdog: Option<Watchdog>,
    pub(super) times: Times,
    /// Since when each process is being killed.
    pub(super) dying: BTreeMap<i32, Moment>,
    /// Whether one of them takes too long.
    pub(super) is_hopeless: bool,
}

/// A guest that runs and must not.
struct Doomed {
    id: InstanceId,
    boot: i64,
    pool: Name,
    why: Offence,
    processes: Vec<Arc<dyn Process>>,
}

impl Decider {
    /// Decides again and again, until it was told to end and nothing that is guarded runs.
    pub(super) fn run(&mut self) {
        while !self.may_end() {
            if self.state.is_over() {
                return;
            }
            self.decide();
            std::thread::sleep(self.times.decide);
        }
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.disarm();
        }
    }

    fn decide(&mut self) {
        let now = self.machine.now();
        let doomed = self.doomed(now);
        self.announce(&doomed, now);
        for one in &doomed {
            for process in &one.processes {
                if let Err(error) = process.kill() {
                    tracing::error!(instance = %one.id, pid = process.pid(), %error, "its power cannot be cut");
                }
            }
        }
        let is_doomed = |pid: &i32| doomed.iter().flat_map(|one| &one.processes).any(|it| it.pid() == *pid);
        self.dying.retain(|pid, _| is_doomed(pid));
        let overdue = self.dying.values().any(|since| now.since(*since) >= self.times.dying);
        if overdue && !self.is_hopeless {
            tracing::error!("a guest that was killed does not die: only a reset of this machine ends it");
        }
        self.is_hopeless = overdue;
        // Whoever is killed and does not die, as in the midst of a write that hangs, dies with the machine.
        if let Some(watchdog) = self.watchdog.as_mut().filter(|_| !overdue) {
            watchdog.feed();
        }
    }

    fn doomed(&self, now: Moment) -> Vec<Doomed> {
        let state = self.state.lock();
        let doomed = |(id, guest): (&InstanceId, &super::state::Guest)| {
            let (pool, why) = offence(&guest.entry, &state.leases, now, self.times.lease)?;
            let processes: Vec<_> = guest.living().cloned().collect();
            let (id, boot, pool) = (*id, guest.entry.boot, pool.clone());
            (!processes.is_empty()).then_some(Doomed { id, boot, pool, why, processes })
        };
        state.guests.iter().filter_map(doomed).collect()
    }

    /// Each is written down once, before the first signal.
    fn announce(&mut self, doomed: &[Doomed], now: Moment) {
        let mut records = Vec::new();
        for one in doomed {
            let new = one.processes.iter().filter(|process| !self.dying.contains_key(&process.pid()));
            let new: Vec<_> = new.map(|process| process.pid()).collect();
            if new.is_empty() {
                continue;
            }
            let Doomed { id, boot, pool, why, .. } = one;
            tracing::error!(instance = %id, boot, %pool, ?why, pids = ?new, "the lease is lost: cutting its power");
            self.dying.extend(new.into_iter().map(|pid| (pid, now)));
            records.push((*id, Fenced::now(*boot, pool, *why)));
        }
        if !records.is_empty() {
            self.recorder.record(records);
        }
    }

    fn may_end(&self) -> bool {
        let state = self.state.lock();
        let looked = state.ending.is_some_and(|rounds| rounds >= LAST_ROUNDS);
        looked && state.guests.values().all(|guest| guest.living().next().is_none())
    }
}

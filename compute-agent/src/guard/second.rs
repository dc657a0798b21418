//! The agent stands in for a guard that is dead: without leases, nothing may run of what they allow.
//!
//! It takes a guard that is dead, and an agent that is dead or cannot, to let a guest of a host run that is cut off; against
//! that, only a watchdog helps.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use protocol::InstanceId;

use super::machine::ThisMachine;
use super::{Guards, SharedMachine, entries};

const EVERY: Duration = Duration::from_secs(1);

/// Looks on a thread of its own, as long as the agent has the guards.
pub fn start(guards: &Arc<Guards>) -> io::Result<()> {
    start_on(Arc::new(ThisMachine), guards)
}

pub(crate) fn start_on(machine: SharedMachine, guards: &Arc<Guards>) -> io::Result<()> {
    let guards = Arc::downgrade(guards);
    thread::Builder::new().name("second".to_owned()).spawn(move || run(&machine, &guards)).map(drop)
}

fn run(machine: &SharedMachine, guards: &Weak<Guards>) {
    let mut told = BTreeSet::new();
    while let Some(guards) = guards.upgrade() {
        look(machine, &guards, &mut told);
        drop(guards);
        thread::sleep(EVERY);
    }
}

pub(super) fn look(machine: &SharedMachine, guards: &Guards, told: &mut BTreeSet<(InstanceId, i32)>) {
    let doomed: BTreeMap<_, _> = guards.abandoned().into_iter().collect();
    if doomed.is_empty() {
        return;
    }
    let found = match machine.find(&|id| doomed.contains_key(&id), &[]) {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(%error, "processes cannot be looked through");
            return;
        }
    };
    for (id, processes) in found {
        let fenced = &doomed[&id];
        for process in processes {
            if told.insert((id, process.pid())) {
                tracing::error!(instance = %id, pool = %fenced.pool, "the guard is dead and the lease lost: cutting its power");
                if let Err(error) = entries::put_fenced(guards.folder(), id, fenced) {
                    tracing::warn!(instance = %id, %error, "that it is fenced could not be written down");
                }
            }
            if let Err(error) = process.kill() {
                tracing::error!(instance = %id, %error, "its power cannot be cut");
            }
        }
    }
}

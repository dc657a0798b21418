//! The thread that looks again and again at what is guarded and what runs of it, and says what the guard knows.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{HostId, InstanceId, Name};

use super::Times;
use super::entries::{self, Entry};
use super::lease::Place;
use super::machine::SharedMachine;
use super::state::{Guest, Shared, State};
use super::status::{Status, StatusFile};
use super::writer::Writer;
use crate::chain;
use crate::verify::Settings;

/// Also while all QEMUs are known, all processes are looked through every so many rounds.
const LOOK_THROUGH: u64 = 10;

pub(super) struct Rounds {
    pub(super) state_dir: Utf8PathBuf,
    pub(super) folder: Utf8PathBuf,
    pub(super) host: HostId,
    pub(super) state: Shared,
    pub(super) machine: SharedMachine,
    pub(super) times: Times,
    /// What does not change of what is said.
    pub(super) status: Status,
    pub(super) file: StatusFile,
    /// The pools that have a writer.
    pub(super) pools: BTreeMap<Name, Utf8PathBuf>,
}

impl Rounds {
    pub(super) fn run(mut self) {
        for round in 0.. {
            if self.state.is_over() {
                return;
            }
            self.round(round % LOOK_THROUGH == 0);
            std::thread::sleep(self.times.round);
        }
    }

    pub(super) fn round(&mut self, looks_through: bool) {
        match entries::read(&self.folder) {
            Ok(found) => take(&mut self.state.lock(), found),
            Err(error) => tracing::error!(%error, "what is guarded cannot be read, and stays as it was"),
        }
        self.start_writers();
        self.find_processes(looks_through);
        if let Some(rounds) = &mut self.state.lock().ending {
            *rounds = rounds.saturating_add(1);
        }
        self.tell();
    }

    /// The pools of the agent's settings, and those that guests have disks in whatever the settings say.
    fn start_writers(&mut self) {
        let mut places = match Settings::read(&self.state_dir) {
            Ok(settings) => settings.shared_pools,
            Err(error) => {
                tracing::debug!("{error:#}");
                BTreeMap::new()
            }
        };
        for guest in self.state.lock().guests.values() {
            for (pool, held) in &guest.entry.pools {
                places.entry(pool.clone()).or_insert_with(|| held.root.clone());
            }
        }
        for (name, root) in places {
            let Slot::Vacant(free) = self.pools.entry(name) else { continue };
            let place = Place { name: free.key().clone(), root: root.clone() };
            let (state, machine) = (self.state.clone(), Arc::clone(&self.machine));
            let writer = Writer { place, host: self.host, state, machine, times: self.times };
            match writer.start() {
                Ok(()) => _ = free.insert(root),
                Err(error) => tracing::error!(%error, "no thread for the lease in {root}"),
            }
        }
    }

    fn find_processes(&self, looks_through: bool) {
        let known: Vec<i32> = {
            let mut state = self.state.lock();
            for guest in state.guests.values_mut() {
                guest.processes.retain(|process| process.is_alive());
            }
            let all_found = state.guests.values().all(|guest| !guest.processes.is_empty());
            if all_found && !looks_through || state.guests.is_empty() {
                return;
            }
            state.guests.values().flat_map(|guest| &guest.processes).map(|process| process.pid()).collect()
        };
        let guarded: Vec<InstanceId> = self.state.lock().guests.keys().copied().collect();
        match self.machine.find(&|id| guarded.binary_search(&id).is_ok(), &known) {
            Ok(found) => {
                let mut state = self.state.lock();
                for (id, processes) in found {
                    if let Some(guest) = state.guests.get_mut(&id) {
                        guest.processes.extend(processes);
                    }
                }
            }
            Err(error) => tracing::error!(%error, "processes cannot be looked through"),
        }
    }

    fn tell(&mut self) {
        let status = {
            let state = self.state.lock();
            Status {
                at: self.machine.now(),
                ending: state.ending.is_some(),
                leases: state.leases.clone(),
                pools: self.pools.clone(),
                faults: state.faults.clone(),
                guests: state.guests.iter().map(|(id, guest)| (*id, guest.entry.written)).collect(),
                ..self.status.clone()
            }
        };
        if let Err(error) = self.file.write(&status) {
            tracing::error!(error = %chain(&error), "what the guard knows could not be written down");
        }
    }
}

/// What cannot be read stays as it was; what is not there any more is not guarded.
fn take(state: &mut State, found: Vec<(InstanceId, Option<Entry>)>) {
    let mut before = std::mem::take(&mut state.guests);
    for (id, entry) in found {
        match (before.remove(&id), entry) {
            (Some(guest), Some(entry)) => _ = state.guests.insert(id, Guest { entry, ..guest }),
            (Some(guest), None) => _ = state.guests.insert(id, guest),
            (None, Some(entry)) => _ = state.guests.insert(id, Guest { entry, processes: Vec::new() }),
            (None, None) => {}
        }
    }
}

/// Where the guard's folder is.
pub(super) fn folder(state_dir: &Utf8Path) -> Utf8PathBuf {
    state_dir.join(super::FOLDER)
}

//! What the threads of the guard know. INVARIANT: nobody does anything that may block while they hold it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{InstanceId, Name};

use super::entries::Entry;
use super::processes::Process;
use super::terms::Leases;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) leases: Leases,
    /// Why the last write into a pool failed.
    pub(super) faults: BTreeMap<Name, String>,
    pub(super) guests: BTreeMap<InstanceId, Guest>,
    /// It was told to end, by so many looks at everything ago.
    pub(super) ending: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Guest {
    pub(super) entry: Entry,
    pub(super) processes: Vec<Arc<Process>>,
}

impl Guest {
    pub(super) fn living(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.processes.iter().filter(|process| process.is_alive())
    }
}

/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

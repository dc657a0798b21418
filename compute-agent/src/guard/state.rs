//! What the threads of the guard know. INVARIANT: nobody does anything that may block while they hold it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{InstanceId, Name};

use super::entries::Entry;
use super::machine::Process;
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
    pub(super) processes: Vec<Arc<dyn Process>>,
}

impl Guest {
    pub(super) fn living(&self) -> impl Iterator<Item = &Arc<dyn Process>> {
        self.processes.iter().filter(|process| process.is_alive())
    }
}

/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<Mutex<State>>, Over);

/// Whether the guard is dead. A process takes its threads with it; a simulated one asks them to go, at their next round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Over(Arc<AtomicBool>);

impl Over {
    pub(crate) fn set(&self) {
        self.0.store(true, SeqCst);
    }
}

impl Shared {
    pub(super) fn new(state: State, over: Over) -> Self {
        Self(Arc::new(Mutex::new(state)), over)
    }

    pub(super) fn is_over(&self) -> bool {
        self.1.0.load(SeqCst)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! One task per instance: passes of one instance never overlap, and a slow one delays no other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::InstanceId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Outcome, Reconciler};
use crate::backoff::Backoff;
use crate::clock::SharedClock;

/// Pauses after a failed step.
const FAILED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Pauses while the hypervisor cannot be seen; its return is an event anyway.
const BLIND: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// See the module. Clones share the tasks.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    reconciler: Arc<Reconciler>,
    clock: SharedClock,
    stop: CancellationToken,
    tasks: TaskTracker,
    nudges: Mutex<HashMap<InstanceId, Arc<Notify>>>,
}

impl Workers {
    /// Tasks end after the step that they are at when `stop` is cancelled.
    pub fn new(reconciler: Arc<Reconciler>, clock: SharedClock, stop: CancellationToken) -> Self {
        let shared = Shared { reconciler, clock, stop, tasks: TaskTracker::new(), nudges: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Looks at an instance as soon as possible.
    pub fn nudge(&self, id: InstanceId) {
        let mut nudges = self.shared.nudges.lock().unwrap_or_else(PoisonError::into_inner);
        let nudge = nudges.entry(id).or_insert_with(|| {
            let nudge = Arc::new(Notify::new());
            let task = Arc::clone(&self.shared).work(id, Arc::clone(&nudge));
            self.shared.tasks.spawn(task);
            nudge
        });
        nudge.notify_one();
    }

    /// Looks at everything of which something is wanted.
    pub fn nudge_all(&self) {
        self.shared.reconciler.parts.desired.ids().into_iter().for_each(|id| self.nudge(id));
    }

    /// Returns when every task has ended; `stop` has to be cancelled for that.
    pub async fn ended(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    async fn work(self: Arc<Self>, id: InstanceId, nudge: Arc<Notify>) {
        let mut failures = Backoff::new(FAILED.0, FAILED.1);
        let mut blindness = Backoff::new(BLIND.0, BLIND.1);
        nudge.notified().await;
        while !self.stop.is_cancelled() {
            self.reconciler.until_acting_or(&self.stop).await;
            let outcome = self.reconciler.pass(id).await;
            if !matches!(outcome, Outcome::Failed(_)) {
                failures.reset();
            }
            if outcome != Outcome::Blind {
                blindness.reset();
            }
            let rest = async {
                match &outcome {
                    Outcome::Settled => nudge.notified().await,
                    Outcome::Wait(until) => {
                        tokio::select! {
                            () = nudge.notified() => {}
                            () = self.clock.sleep_until(*until) => {}
                        }
                    }
                    // A failed start makes events of its own: only another wish cuts the pause short.
                    Outcome::Failed(wanted) => {
                        tokio::select! {
                            () = self.reconciler.parts.desired.superseded(wanted) => failures.reset(),
                            () = tokio::time::sleep(failures.next()) => {}
                        }
                    }
                    Outcome::Blind => {
                        tokio::select! {
                            () = nudge.notified() => {}
                            () = tokio::time::sleep(blindness.next()) => {}
                        }
                    }
                    Outcome::Paused | Outcome::Unknown => {}
                    Outcome::Interrupted => self.stop.cancel(),
                }
            };
            tokio::select! {
                () = rest => {}
                () = self.stop.cancelled() => return,
            }
            if outcome == Outcome::Unknown && self.leave(id) {
                return;
            }
        }
    }

    /// Gives up the place of an instance of which nothing is wanted. Under the lock, so that a wish which
    /// comes now finds either this task or none.
    fn leave(&self, id: InstanceId) -> bool {
        let mut nudges = self.nudges.lock().unwrap_or_else(PoisonError::into_inner);
        let leaves = self.reconciler.parts.desired.get(id).is_none();
        if leaves {
            nudges.remove(&id);
        }
        leaves
    }
}

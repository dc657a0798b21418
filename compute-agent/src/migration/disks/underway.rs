//! Which disks are on their way, and which layers are being removed: never both.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{HostId, LayerId, MigrationId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// See the module.
#[derive(Debug, Default)]
pub struct Underway(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    moves: HashMap<MigrationId, One>,
    removals: Vec<Vec<LayerId>>,
}

#[derive(Debug)]
struct One {
    order: Order,
    layers: Vec<LayerId>,
    cancelled: CancellationToken,
    /// Its other end is dropped when nothing is done for it any more.
    ended: watch::Receiver<()>,
}

impl One {
    fn is_over(&self) -> bool {
        self.ended.has_changed().is_err()
    }
}

/// What the control plane wants of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Take { source: HostId },
    Give { destination: HostId, address: SocketAddr },
}

/// Until this is dropped nothing is put in place that is being removed.
#[derive(Debug)]
pub struct Removing {
    underway: Arc<Underway>,
    layers: Vec<LayerId>,
}

impl Drop for Removing {
    fn drop(&mut self) {
        let mut state = self.underway.lock();
        if let Some(at) = state.removals.iter().position(|layers| *layers == self.layers) {
            state.removals.swap_remove(at);
        }
    }
}

impl Underway {
    /// To be held as long as something is done. `None` when that is so already, or has been done.
    pub(super) fn put(
        &self,
        id: MigrationId,
        order: Order,
        layers: Vec<LayerId>,
        cancelled: CancellationToken,
    ) -> Option<watch::Sender<()>> {
        let mut state = self.lock();
        if state.moves.get(&id).is_some_and(|one| one.order == order) {
            return None;
        }
        let (held, ended) = watch::channel(());
        if let Some(before) = state.moves.insert(id, One { order, layers, cancelled, ended }) {
            before.cancelled.cancel();
        }
        Some(held)
    }

    /// Cancels what is not wanted, and forgets it when nothing is done for it any more.
    pub(super) fn keep_only(&self, wanted: &HashSet<MigrationId>) {
        self.lock().moves.retain(|id, one| {
            let is_wanted = wanted.contains(id);
            if !is_wanted {
                one.cancelled.cancel();
            }
            is_wanted || !one.is_over()
        });
    }

    /// Whether one of these is being removed.
    pub(super) fn is_removing(&self, layers: &[LayerId]) -> bool {
        self.lock().removals.iter().flatten().any(|layer| layers.contains(layer))
    }

    /// Ends whatever concerns one of these layers, which are about to be removed. INVARIANT: when this returns none of them
    /// is put in place before what it gives is dropped.
    pub async fn give_up(self: &Arc<Self>, layers: &[LayerId]) -> Removing {
        let (removing, concerned) = {
            let mut state = self.lock();
            state.removals.push(layers.to_vec());
            let removing = Removing { underway: Arc::clone(self), layers: layers.to_vec() };
            let ids: Vec<_> =
                state.moves.iter().filter(|(_, one)| one.concerns(layers)).map(|(id, _)| *id).collect();
            let concerned: Vec<_> = ids.iter().filter_map(|id| state.moves.remove(id)).collect();
            (removing, concerned)
        };
        for mut one in concerned {
            one.cancelled.cancel();
            while one.ended.changed().await.is_ok() {}
        }
        removing
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl One {
    fn concerns(&self, layers: &[LayerId]) -> bool {
        self.layers.iter().any(|layer| layers.contains(layer))
    }
}

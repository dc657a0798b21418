//! Removing layers that nobody needs any more.
//!
//! The order is repeated by the control plane until it knows that it was carried out, so nothing of it has to
//! survive this process.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::{LayerId, Name, RemovalId};

use crate::backoff::Backoff;
use crate::chain;
use crate::host_storage::{BoxError, Doomed, HostStorage};
use crate::migration::disks::Underway;
use crate::reconcile::Reconciler;
use crate::report::Outbox;

/// Pauses while the layers cannot be removed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// See the module.
pub struct Removals {
    pub storage: Arc<dyn HostStorage>,
    pub reconciler: Arc<Reconciler>,
    pub outbox: Arc<Outbox>,
    /// What comes from other hosts.
    pub disks: Arc<Underway>,
    underway: Mutex<HashSet<RemovalId>>,
}

impl Removals {
    pub fn new(
        storage: Arc<dyn HostStorage>,
        reconciler: Arc<Reconciler>,
        outbox: Arc<Outbox>,
        disks: Arc<Underway>,
    ) -> Self {
        Self { storage, reconciler, outbox, disks, underway: Mutex::default() }
    }

    /// Removes the layers in the background, however long it takes, and reports that.
    pub(super) fn begin(self: &Arc<Self>, removal: RemovalId, layers: Vec<LayerId>, pool: Option<Name>) {
        if !self.underway().insert(removal) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let _removing = this.disks.give_up(&layers).await;
            let mut backoff = Backoff::new(RETRY.0, RETRY.1);
            while let Err(error) = this.remove(Doomed { layers: &layers, pools: pool.as_slice() }).await {
                tracing::warn!(%removal, error = %chain(error.as_ref()), "layers are not removed yet");
                tokio::time::sleep(backoff.next()).await;
            }
            tracing::info!(%removal, layers = layers.len(), "layers removed");
            this.outbox.report_removed(removal);
            this.underway().remove(&removal);
        });
    }

    /// INVARIANT: nothing is removed that a domain has open, whatever the control plane believes.
    async fn remove(&self, doomed: Doomed<'_>) -> Result<(), BoxError> {
        let mut acting = self.reconciler.acting();
        acting.wait_for(|acting| *acting).await?;
        let listing = self.reconciler.view.look().await?;
        let in_use = listing.values().flat_map(|domain| &domain.volumes).flat_map(|volume| &volume.layers);
        if in_use.into_iter().any(|layer| doomed.layers.contains(layer)) {
            return Err("a domain has one of the layers".into());
        }
        Ok(self.storage.remove_layers(doomed).await?)
    }

    fn underway(&self) -> MutexGuard<'_, HashSet<RemovalId>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

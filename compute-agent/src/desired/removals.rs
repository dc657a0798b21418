//! Removing the layers of volumes that were deleted while no instance had them.
//!
//! The order is repeated by the control plane until it knows that it was carried out, so nothing of it has to
//! survive this process.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::{LayerId, VolumeId};

use crate::backoff::Backoff;
use crate::chain;
use crate::host_storage::{BoxError, HostStorage};
use crate::reconcile::Reconciler;
use crate::report::Outbox;

/// Pauses while the layers cannot be removed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// See the module.
pub struct Removals {
    pub storage: Arc<dyn HostStorage>,
    pub reconciler: Arc<Reconciler>,
    pub outbox: Arc<Outbox>,
    underway: Mutex<HashSet<VolumeId>>,
}

impl Removals {
    pub fn new(storage: Arc<dyn HostStorage>, reconciler: Arc<Reconciler>, outbox: Arc<Outbox>) -> Self {
        Self { storage, reconciler, outbox, underway: Mutex::default() }
    }

    /// Removes the layers in the background, however long it takes, and reports that.
    pub(super) fn begin(self: &Arc<Self>, volume: VolumeId, layers: Vec<LayerId>) {
        if !self.underway().insert(volume) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let mut backoff = Backoff::new(RETRY.0, RETRY.1);
            while let Err(error) = this.remove(volume, &layers).await {
                tracing::warn!(%volume, error = %chain(error.as_ref()), "layers are not removed yet");
                tokio::time::sleep(backoff.next()).await;
            }
            tracing::info!(%volume, layers = layers.len(), "layers removed");
            this.outbox.report_removed(volume);
            this.underway().remove(&volume);
        });
    }

    /// INVARIANT: nothing is removed that a domain has open, whatever the control plane believes.
    async fn remove(&self, volume: VolumeId, layers: &[LayerId]) -> Result<(), BoxError> {
        let mut acting = self.reconciler.acting();
        acting.wait_for(|acting| *acting).await?;
        let listing = self.reconciler.view.look().await?;
        if listing.values().any(|domain| domain.volume(volume).is_some()) {
            return Err("a domain has the volume".into());
        }
        Ok(self.storage.remove_layers(layers).await?)
    }

    fn underway(&self) -> MutexGuard<'_, HashSet<VolumeId>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The task that keeps the image cache within its bounds: an image that somebody needs today nobody may need tomorrow.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::chain;
use crate::desired::DesiredStore;
use crate::host_storage::HostStorage;

/// Also bounds how long a full pool is full of images that nobody needs.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Runs until it is dropped.
pub async fn keep(storage: Arc<dyn HostStorage>, desired: Arc<DesiredStore>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if let Err(error) = storage.trim_images(&|| desired.images()).await {
            tracing::warn!(error = %chain(&error), "the image cache keeps more than it should");
        }
    }
}

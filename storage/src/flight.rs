//! One piece of work per image at a time; callers that came meanwhile share its outcome.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::Sha256;

use crate::{Made, PoolError};

#[derive(Debug, Default)]
pub(crate) struct Flights {
    slots: Mutex<HashMap<Sha256, Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Attempts that came to an end.
    ended: AtomicU64,
    /// Held by the attempt that is under way; why the last one failed.
    failure: tokio::sync::Mutex<Option<Arc<PoolError>>>,
}

impl Flights {
    /// Does `work`, which must begin by looking whether it is done already.
    ///
    /// A caller that waited for another takes over that one's failure, so that a hostile image costs one
    /// attempt and not one per caller. A caller that went away hands on to the next.
    pub(crate) async fn run(
        &self,
        key: Sha256,
        work: impl Future<Output = Result<Made, PoolError>>,
    ) -> Result<Made, PoolError> {
        let seat = Seat { flights: self, key, slot: self.slot(key) };
        let ended = seat.slot.ended.load(Ordering::Acquire);
        let mut failure = seat.slot.failure.lock().await;
        if seat.slot.ended.load(Ordering::Acquire) != ended
            && let Some(failure) = &*failure
        {
            return Err(PoolError::Shared(Arc::clone(failure)));
        }
        let outcome = work.await.map_err(Arc::new);
        *failure = outcome.as_ref().err().cloned();
        seat.slot.ended.fetch_add(1, Ordering::Release);
        outcome.map_err(PoolError::Shared)
    }

    fn slot(&self, key: Sha256) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key).or_default())
    }
}

/// A caller's interest in a slot; the last one to leave removes it.
struct Seat<'a> {
    flights: &'a Flights,
    key: Sha256,
    slot: Arc<Slot>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut slots = self.flights.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and ours; a new one is only made under this lock.
        if Arc::strong_count(&self.slot) == 2 {
            slots.remove(&self.key);
        }
    }
}

//! One attempt at a time.
//!
//! An attempt counts as a failure until it has succeeded. So of several right ones at once the later would have to wait
//! for a delay that no guess has brought about. They wait for each other instead: those of one name from one network,
//! in this process.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::{Key, here};

type Lock = Arc<tokio::sync::Mutex<()>>;

/// Who is trying now, and who waits for that.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<Key, Lock>>);

/// The right to try, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    key: Key,
    lock: Lock,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until no other attempt for this name from this network goes on.
    pub(crate) async fn take(&self, name: &str, address: IpAddr) -> Turn<'_> {
        let key = here(name, address);
        let lock = Arc::clone(self.locks().entry(key).or_default());
        // It tidies up also when nobody waits for the turn any more.
        let mut turn = Turn { turns: self, key, lock, held: None };
        turn.held = Some(Arc::clone(&turn.lock).lock_owned().await);
        turn
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<Key, Lock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held = None;
        let mut locks = self.turns.locks();
        // The map's and this one's own.
        if Arc::strong_count(&self.lock) == 2 {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn attempts_for_one_name_from_one_network_take_turns_and_leave_nothing_behind() {
        let turns = Turns::default();
        let [office, home] = ["192.0.2.1", "198.51.100.1"].map(|text| text.parse().unwrap());
        let first = turns.take("ann", office).await;
        let (mut second, mut third) =
            (Box::pin(turns.take("ann", office)), Box::pin(turns.take("ann", office)));
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        drop(turns.take("bob", office).await);
        drop(turns.take("ann", home).await);
        drop(third);
        drop(first);
        drop(second.await);
        assert!(turns.locks().is_empty());
    }
}

//! Where whoever stands still is held up.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Closed while what passes it stands still.
#[derive(Debug)]
pub(super) struct Gate {
    is_closed: Mutex<bool>,
    changed: Condvar,
    told: watch::Sender<bool>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { is_closed: Mutex::default(), changed: Condvar::new(), told: watch::Sender::new(false) }
    }

    pub(super) fn set_closed(&self, is_closed: bool) {
        *self.lock() = is_closed;
        self.changed.notify_all();
        self.told.send_replace(is_closed);
    }

    /// Holds this thread up while it is closed; whether it was.
    pub(super) fn pass(&self) -> bool {
        let mut is_closed = self.lock();
        let was_closed = *is_closed;
        while *is_closed {
            is_closed = self.changed.wait(is_closed).unwrap_or_else(PoisonError::into_inner);
        }
        was_closed
    }

    /// Holds up the thread that polls this, and so all tasks of a runtime that has no other. Never ends.
    pub(super) async fn hold_up(&self) {
        let mut told = self.told.subscribe();
        // The sender lives in `self`, so the channel cannot be closed.
        while told.wait_for(|is_closed| *is_closed).await.is_ok() {
            self.pass();
        }
        std::future::pending::<()>().await;
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

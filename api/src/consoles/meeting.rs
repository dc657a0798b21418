//! Where the two halves of a console meet: this replica's memory, and nothing of it is needed anywhere else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use protocol::{ConsoleId, HostId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::TaskTracker;

use super::ConsoleOptions;
use crate::http::{ApiError, ErrorCode};

/// Of this replica. Each costs two connections and some buffers.
const MAX_OPEN: usize = 512;
/// Connections of the database that looking whether callers still may takes at once.
const CHECKS_AT_ONCE: usize = 4;
/// What the last words of sessions may take when the replica shuts down.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The consoles of this replica.
#[derive(Clone)]
pub struct Consoles(Arc<Shared>);

struct Shared {
    options: ConsoleOptions,
    waiting: Mutex<HashMap<ConsoleId, Waiting>>,
    open: Arc<Semaphore>,
    checks: Semaphore,
    sessions: TaskTracker,
}

/// A user's half that waits for the host's.
struct Waiting {
    host: HostId,
    sender: oneshot::Sender<Upgraded>,
}

/// The place at which a host's half arrives, until this is dropped.
pub(super) struct Place {
    consoles: Consoles,
    id: ConsoleId,
    pub half: oneshot::Receiver<Upgraded>,
}

impl Consoles {
    pub fn new(options: ConsoleOptions) -> Self {
        Self(Arc::new(Shared {
            options,
            waiting: Mutex::default(),
            open: Arc::new(Semaphore::new(MAX_OPEN)),
            checks: Semaphore::new(CHECKS_AT_ONCE),
            sessions: TaskTracker::new(),
        }))
    }

    pub(super) fn options(&self) -> &ConsoleOptions {
        &self.0.options
    }

    /// The longest that a console stays open.
    pub(crate) fn max_seconds(&self) -> u32 {
        self.0.options.max_console_seconds
    }

    /// Room for one more.
    pub(super) fn room(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.0.open).try_acquire_owned().map_err(|_| {
            ApiError::because(ErrorCode::Busy, "too many consoles are open on this server").retry_after(10)
        })
    }

    /// Holds a turn to look whether a caller still may.
    pub(super) async fn check_turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        // Never closed.
        self.0.checks.acquire().await.ok()
    }

    /// Runs a session, which outlives the request that opened it.
    pub(super) fn run(&self, session: impl Future<Output = ()> + Send + 'static) {
        self.0.sessions.spawn(session);
    }

    /// Lets the sessions that have heard of the shutdown write down that they ended.
    pub(crate) async fn ended(&self) {
        self.0.sessions.close();
        if tokio::time::timeout(LAST_WORDS, self.0.sessions.wait()).await.is_err() {
            tracing::warn!("some consoles were open to the end; another replica will note that");
        }
    }

    pub(super) fn expect(&self, id: ConsoleId, host: HostId) -> Place {
        let (sender, half) = oneshot::channel();
        self.lock().insert(id, Waiting { host, sender });
        Place { consoles: self.clone(), id, half }
    }

    /// Takes the place at which this host is waited for, if it is here.
    pub(crate) fn claim(&self, id: ConsoleId, host: HostId) -> Option<oneshot::Sender<Upgraded>> {
        let mut waiting = self.lock();
        if waiting.get(&id)?.host != host {
            return None;
        }
        waiting.remove(&id).map(|waiting| waiting.sender)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConsoleId, Waiting>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.consoles.lock().remove(&self.id);
    }
}

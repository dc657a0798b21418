//! The connection to libvirtd: made in the background, made again for ever, and never waited for.
//!
//! One task supervises. It opens a [`Session`], publishes it, passes its events on, and when it dies says so
//! and begins anew. [`Link::call`] runs on the session of the moment or answers at once that there is none.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};
use virt::connect::Connect;

use super::lifecycle::Reader;
use super::sys::{Session, Signal};
use super::xml;
use crate::backoff::Backoff;
use crate::hypervisor::{Event, HypervisorError};

/// libvirtd serves five requests of one connection at once; one stays free for its own housekeeping.
const CALLS_AT_ONCE: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Also bounds how long after libvirtd's return the agent notices.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    calls: Arc<Semaphore>,
    supervisor: AbortHandle,
}

#[derive(Debug, Clone)]
enum State {
    Down { why: String },
    Up(Arc<Session>),
}

impl Link {
    /// Starts to connect; must be called inside a tokio runtime.
    pub(super) fn start(uri: String, events: broadcast::Sender<Event>) -> Self {
        let (publish, state) = watch::channel(State::Down { why: "not connected yet".to_owned() });
        let supervisor = tokio::spawn(supervise(uri, publish, events)).abort_handle();
        Self { state, calls: Arc::new(Semaphore::new(CALLS_AT_ONCE)), supervisor }
    }

    /// Runs `call` where it may block, for at most `limit`, the wait for its turn included. A call that
    /// outlives its limit keeps its turn until libvirt lets go of it, so hung calls do not pile up.
    pub(super) async fn call<T, F>(&self, limit: Duration, call: F) -> Result<T, HypervisorError>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, HypervisorError> + Send + 'static,
    {
        let session = self.session()?;
        let deadline = Instant::now() + limit;
        let turn = timeout_at(deadline, Arc::clone(&self.calls).acquire_owned()).await;
        let turn = turn.map_err(|_| timed_out(limit))?.map_err(unreachable)?;
        let call = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let result = call(session.connect());
            result.map_err(|error| blame_connection(error, session.connect()))
        });
        timeout_at(deadline, call).await.map_err(|_| timed_out(limit))?.map_err(unreachable)?
    }

    fn session(&self) -> Result<Arc<Session>, HypervisorError> {
        match &*self.state.borrow() {
            State::Up(session) => Ok(Arc::clone(session)),
            State::Down { why } => Err(unreachable(io::Error::new(io::ErrorKind::NotConnected, why.clone()))),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

fn unreachable(error: impl Into<BoxError>) -> HypervisorError {
    HypervisorError::Unreachable(error.into())
}

fn timed_out(limit: Duration) -> HypervisorError {
    let text = format!("libvirt did not answer within {} s", limit.as_secs());
    unreachable(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// A refusal on a dead connection is no refusal.
fn blame_connection(error: HypervisorError, connect: &Connect) -> HypervisorError {
    match error {
        HypervisorError::Refused { source, .. } if !connect.is_alive().unwrap_or(false) => {
            HypervisorError::Unreachable(source)
        }
        error => error,
    }
}

async fn supervise(uri: String, publish: watch::Sender<State>, events: broadcast::Sender<Event>) {
    let mut pause = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        match open(&uri).await {
            Ok((session, signals)) => {
                pause.reset();
                tracing::info!(uri, "connected to libvirt");
                publish.send_replace(State::Up(Arc::new(session)));
                // Without a receiver an event is nobody's loss: here and below.
                let _ = events.send(Event::Connected);
                let why = pass_on(signals, &events).await.to_owned();
                tracing::warn!(why, "the connection to libvirt is lost");
                publish.send_replace(State::Down { why });
                let _ = events.send(Event::Disconnected);
            }
            Err(why) => {
                tracing::debug!(why, "libvirt cannot be reached");
                publish.send_replace(State::Down { why });
            }
        }
        sleep(pause.next()).await;
    }
}

/// Passes events on until the connection is dead; returns why it is.
async fn pass_on(mut signals: UnboundedReceiver<Signal>, events: &broadcast::Sender<Event>) -> &'static str {
    let mut reader = Reader::default();
    while let Some(signal) = signals.recv().await {
        match signal {
            Signal::Closed { reason } => return reason,
            Signal::Lifecycle { name, uuid, event, detail } => {
                if let Some(id) = xml::instance_of(&name, uuid) {
                    let _ = events.send(reader.read(id, event, detail));
                }
            }
        }
    }
    "libvirt signals no more"
}

/// On a thread of its own: a libvirtd that accepts and then hangs holds this thread for as long as it
/// pleases, and must not hold up the end of the process with it.
async fn open(uri: &str) -> Result<(Session, UnboundedReceiver<Signal>), String> {
    let (done, opened) = oneshot::channel();
    let uri = uri.to_owned();
    let opener = thread::Builder::new().name("libvirt-open".to_owned());
    let spawned = opener.spawn(move || {
        let (signals, received) = mpsc::unbounded_channel();
        // A session that nobody waits for any more is dropped, and so closed.
        let _ = done.send(Session::open(&uri, &signals).map(|session| (session, received)));
    });
    spawned.map_err(|error| error.to_string())?;
    match opened.await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the connecting thread ended early".to_owned()),
    }
}

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
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
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

/// How often the connection is asked, without a word to libvirtd, whether it is still alive.
const LOOK_AFTER: Duration = Duration::from_secs(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    supervisor: AbortHandle,
}

#[derive(Debug, Clone)]
enum State {
    Down { why: String },
    Up(Connection),
}

#[derive(Debug, Clone)]
struct Connection {
    session: Arc<Session>,
    /// One set per session: calls that hang in a dead one do not hold up those of the next.
    turns: Arc<Semaphore>,
    lost: CancellationToken,
}

impl Link {
    /// Starts to connect; must be called inside a tokio runtime.
    pub(super) fn start(uri: String, events: broadcast::Sender<Event>) -> Self {
        let (publish, state) = watch::channel(State::Down { why: "not connected yet".to_owned() });
        let supervisor = tokio::spawn(supervise(uri, publish, events)).abort_handle();
        Self { state, supervisor }
    }

    /// Runs `call` where it may block, for at most `limit`, the wait for its turn included, and no longer
    /// than the connection lives. A call that is given up keeps its turn until libvirt lets go of it, so
    /// hung calls do not pile up.
    pub(super) async fn call<T, F>(&self, limit: Duration, call: F) -> Result<T, HypervisorError>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, HypervisorError> + Send + 'static,
    {
        let connection = self.connection()?;
        let lost = connection.lost.clone();
        tokio::select! {
            result = timeout(limit, connection.run(call)) => result.map_err(|_| timed_out(limit))?,
            () = lost.cancelled() => Err(not_connected("the connection was lost meanwhile")),
        }
    }

    fn connection(&self) -> Result<Connection, HypervisorError> {
        match &*self.state.borrow() {
            State::Up(connection) => Ok(connection.clone()),
            State::Down { why } => Err(not_connected(why)),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Connection {
    fn new(session: Session) -> Self {
        let turns = Arc::new(Semaphore::new(CALLS_AT_ONCE));
        Self { session: Arc::new(session), turns, lost: CancellationToken::new() }
    }

    async fn run<T, F>(self, call: F) -> Result<T, HypervisorError>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, HypervisorError> + Send + 'static,
    {
        let Self { session, turns, .. } = self;
        let turn = turns.acquire_owned().await.map_err(unreachable)?;
        let call = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let result = call(session.connect());
            result.map_err(|error| blame_connection(error, session.connect()))
        });
        call.await.map_err(unreachable)?
    }
}

fn not_connected(why: &str) -> HypervisorError {
    unreachable(io::Error::new(io::ErrorKind::NotConnected, why))
}

fn unreachable(error: impl Into<BoxError>) -> HypervisorError {
    HypervisorError::Unreachable(error.into())
}

fn timed_out(limit: Duration) -> HypervisorError {
    let text = format!("libvirt did not answer within {} s", limit.as_secs());
    unreachable(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// A refusal on a dead connection is no refusal, and no word of the guest's.
fn blame_connection(error: HypervisorError, connect: &Connect) -> HypervisorError {
    match error {
        HypervisorError::Refused { source, .. } | HypervisorError::NotFrozen(source)
            if !connect.is_alive().unwrap_or(false) =>
        {
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
                let connection = Connection::new(session);
                publish.send_replace(State::Up(connection.clone()));
                // Without a receiver an event is nobody's loss: here and below.
                let _ = events.send(Event::Connected);
                let why = pass_on(&connection.session, signals, &events).await.to_owned();
                tracing::warn!(why, "the connection to libvirt is lost");
                publish.send_replace(State::Down { why });
                connection.lost.cancel();
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
async fn pass_on(
    session: &Session,
    mut signals: UnboundedReceiver<Signal>,
    events: &broadcast::Sender<Event>,
) -> &'static str {
    let mut reader = Reader::default();
    let mut look = tokio::time::interval(LOOK_AFTER);
    loop {
        tokio::select! {
            signal = signals.recv() => match signal {
                Some(Signal::Lifecycle { name, uuid, event, detail }) => {
                    if let Some(id) = xml::instance_of(&name, uuid) {
                        let _ = events.send(reader.read(id, event, detail));
                    }
                }
                Some(Signal::Closed { reason }) => return reason,
                None => return "libvirt signals no more",
            },
            // When keep-alive gives up while a call waits, libvirt marks the connection dead but does not
            // call back (seen with 11.3).
            _ = look.tick() => if !session.connect().is_alive().unwrap_or(false) {
                return "libvirtd does not answer";
            },
        }
    }
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

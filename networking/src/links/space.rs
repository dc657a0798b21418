//! One network namespace by netlink: what is there, and how it is changed.

use std::io;

use nix::errno::Errno;
use rtnetlink::Handle;
use tokio::task::JoinHandle;

use super::seen::Seen;
use super::settings::{self, Settings};
use crate::namespace;

/// What is to be done about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is put right.
    Change,
    /// It is named, and nothing is changed.
    Look,
}

/// A connection into a namespace, with what was seen there when it was made.
pub(super) struct Space {
    pub handle: Handle,
    pub seen: Seen,
    pub mode: Mode,
    /// What was changed, or would be, in words.
    pub changes: Vec<String>,
    driver: JoinHandle<()>,
}

impl Space {
    /// The namespace that the caller is in.
    pub async fn here(mode: Mode) -> Result<Self, StepError> {
        let runtime = tokio::runtime::Handle::current();
        let (handle, driver) = connect(&runtime).map_err(|error| StepError::new("open netlink", error))?;
        Self::read(handle, driver, mode, Vec::new()).await
    }

    /// A namespace with a name, its settings made.
    pub async fn named(name: &str, settings: Settings, mode: Mode) -> Result<Self, StepError> {
        let runtime = tokio::runtime::Handle::current();
        let (changes, (handle, driver)) =
            namespace::within(name, move || Ok((settings::apply(&settings, mode)?, connect(&runtime)?)))
                .await
                .map_err(|error| StepError::new(format!("enter namespace {name}"), error))?;
        let changes = changes.into_iter().map(|change| format!("{change} in namespace {name}")).collect();
        Self::read(handle, driver, mode, changes).await
    }

    async fn read(
        handle: Handle,
        driver: JoinHandle<()>,
        mode: Mode,
        changes: Vec<String>,
    ) -> Result<Self, StepError> {
        let seen = Seen::read(&handle).await.map_err(|error| StepError::new("list what is there", error));
        match seen {
            Ok(seen) => Ok(Self { handle, seen, mode, changes, driver }),
            Err(error) => {
                driver.abort();
                Err(error)
            }
        }
    }

    /// Makes a change and notes it; only notes it when this is a look.
    pub async fn change(
        &mut self,
        step: impl Future<Output = Result<(), rtnetlink::Error>>,
        attempted: impl FnOnce() -> String,
    ) -> Result<(), StepError> {
        let attempted = attempted();
        if self.mode == Mode::Change {
            step.await.map_err(|error| StepError::netlink(&attempted, error))?;
        }
        self.changes.push(attempted);
        Ok(())
    }

    /// Removes something, as [`Self::change`]. What was gone already is no error and no change.
    pub async fn remove(
        &mut self,
        step: impl Future<Output = Result<(), rtnetlink::Error>>,
        attempted: impl FnOnce() -> String,
    ) -> Result<(), StepError> {
        let attempted = attempted();
        if self.mode == Mode::Change {
            match step.await.map_err(into_io) {
                Ok(()) => (),
                Err(error) if is_gone(&error) => return Ok(()),
                Err(error) => return Err(StepError::new(attempted, error)),
            }
        }
        self.changes.push(attempted);
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::ENOENT, Errno::ESRCH, Errno::ENODEV, Errno::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| gone.contains(&Errno::from_raw(code)))
}

impl Drop for Space {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The socket belongs to the namespace of the calling thread for good.
fn connect(runtime: &tokio::runtime::Handle) -> io::Result<(Handle, JoinHandle<()>)> {
    let _runtime = runtime.enter();
    let (connection, handle, _) = rtnetlink::new_connection()?;
    Ok((handle, runtime.spawn(connection)))
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempted}")]
pub(super) struct StepError {
    attempted: String,
    source: io::Error,
}

impl StepError {
    pub fn new(attempted: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { attempted: attempted.into(), source: source.into() }
    }

    pub fn netlink(attempted: impl Into<String>, error: rtnetlink::Error) -> Self {
        Self::new(attempted, into_io(error))
    }

    /// The step and its cause, for people.
    pub fn sentence(&self) -> String {
        format!("{self}: {}", self.source)
    }
}

/// The kernel's own error where there is one.
pub(super) fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

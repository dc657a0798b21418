//! One network namespace by netlink: what is there, and how it is changed.

use std::io;

use nix::errno::Errno;
use rtnetlink::Handle;
use tokio::task::JoinHandle;

use super::seen::Seen;
use super::settings::{self, Settings};
use crate::namespace;

/// A connection into a namespace, with what was seen there when it was made.
pub(super) struct Space {
    pub handle: Handle,
    pub seen: Seen,
    /// How many things were changed.
    pub changed: usize,
    driver: JoinHandle<()>,
}

impl Space {
    /// The namespace that the caller is in.
    pub async fn here() -> Result<Self, StepError> {
        let runtime = tokio::runtime::Handle::current();
        let (handle, driver) = connect(&runtime).map_err(|error| StepError::new("open netlink", error))?;
        Self::read(handle, driver, 0).await
    }

    /// A namespace with a name, its settings made.
    pub async fn named(name: &str, settings: Settings) -> Result<Self, StepError> {
        let runtime = tokio::runtime::Handle::current();
        let (changed, (handle, driver)) =
            namespace::within(name, move || Ok((settings::apply(&settings)?, connect(&runtime)?)))
                .await
                .map_err(|error| StepError::new(format!("enter namespace {name}"), error))?;
        Self::read(handle, driver, changed).await
    }

    async fn read(handle: Handle, driver: JoinHandle<()>, changed: usize) -> Result<Self, StepError> {
        let seen = Seen::read(&handle).await.map_err(|error| StepError::new("list what is there", error));
        match seen {
            Ok(seen) => Ok(Self { handle, seen, changed, driver }),
            Err(error) => {
                driver.abort();
                Err(error)
            }
        }
    }

    /// Counts a change that was made.
    pub fn note(
        &mut self,
        done: Result<(), rtnetlink::Error>,
        attempted: impl FnOnce() -> String,
    ) -> Result<(), StepError> {
        done.map_err(|error| StepError::netlink(attempted(), error))?;
        self.changed += 1;
        Ok(())
    }

    /// Counts a removal. What was gone already is no error and no change.
    pub fn note_removed(
        &mut self,
        done: Result<(), rtnetlink::Error>,
        attempted: impl FnOnce() -> String,
    ) -> Result<(), StepError> {
        match done.map_err(into_io) {
            Ok(()) => self.changed += 1,
            Err(error) if is_gone(&error) => (),
            Err(error) => return Err(StepError::new(attempted(), error)),
        }
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

//! What a simulation keeps on disk, so that its guests and disks outlive the process as real ones outlive an agent.
//!
//! The file is replaced before the lock is given back: nobody has seen what a killed process did not keep.

use std::fs;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use camino::Utf8PathBuf;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::durable::{self, Survive};

/// A state that may have a file.
pub(crate) trait Keep {
    /// Writes down what has changed.
    fn keep(&mut self);
}

/// The file of a state; none for one that goes with the process.
#[derive(Debug, Default)]
pub(crate) struct KeptFile {
    path: Option<Utf8PathBuf>,
    written: Vec<u8>,
}

impl KeptFile {
    /// The file, and what is in it: nothing when there is none yet.
    pub(crate) fn open<T: DeserializeOwned + Default>(path: Utf8PathBuf) -> io::Result<(Self, T)> {
        let written = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let state = if written.is_empty() { T::default() } else { serde_json::from_slice(&written)? };
        Ok((Self { path: Some(path), written }, state))
    }

    pub(crate) fn is_there(&self) -> bool {
        self.path.is_some()
    }

    /// Replaces what is in it, if that is another state.
    pub(crate) fn write(&mut self, state: &impl Serialize) {
        let Some(path) = &self.path else { return };
        let written = serde_json::to_vec(state).map_err(io::Error::from).and_then(|bytes| {
            if bytes != self.written {
                durable::write(path, &bytes, Survive::Process)?;
            }
            Ok(bytes)
        });
        match written {
            Ok(bytes) => self.written = bytes,
            Err(error) => tracing::error!(%path, %error, "the simulation is not written down"),
        }
    }
}

/// A locked state, kept when it is let go of and was changed.
#[derive(Debug)]
pub(crate) struct Locked<'a, S: Keep> {
    state: MutexGuard<'a, S>,
    changed: bool,
}

impl<'a, S: Keep> Locked<'a, S> {
    pub(crate) fn of(state: &'a Mutex<S>) -> Self {
        Self { state: state.lock().unwrap_or_else(PoisonError::into_inner), changed: false }
    }
}

impl<S: Keep> Deref for Locked<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.state
    }
}

impl<S: Keep> DerefMut for Locked<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        self.changed = true;
        &mut self.state
    }
}

impl<S: Keep> Drop for Locked<'_, S> {
    fn drop(&mut self) {
        if self.changed {
            self.state.keep();
        }
    }
}

//! What `up` remembers between its runs.

use std::collections::BTreeMap;
use std::fs::{self, File};

use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::process::ProcessId;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Contents {
    /// The address of the API that runs.
    url: Option<String>,
    services: BTreeMap<String, Started>,
    /// This machine has joined the cloud.
    joined: bool,
    /// Instances that `down` stopped, as `project/name`.
    stopped: Vec<String>,
}

/// A process that we started and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    pub process: ProcessId,
    pub command: Vec<String>,
}

/// The record, locked: only one `up` or `down` works on a state folder at a time.
pub(crate) struct Record {
    path: Utf8PathBuf,
    contents: Contents,
    _lock: File,
}

impl Record {
    pub(crate) fn open(state: &Utf8Path) -> Result<Self> {
        let lock_path = state.join("up.lock");
        let lock = File::create(&lock_path).with_context(|| format!("open {lock_path}"))?;
        if lock.try_lock().is_err() {
            bail!("another `make up` or `make down` is at work on {state}");
        }
        let path = state.join("up.json");
        let contents = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("understand {path}"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Contents::default(),
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        };
        Ok(Self { path, contents, _lock: lock })
    }

    pub(crate) fn url(&self) -> Option<&str> {
        self.contents.url.as_deref()
    }

    pub(crate) fn set_url(&mut self, url: Option<String>) -> Result<()> {
        self.contents.url = url;
        self.save()
    }

    /// A service that we started and that still runs.
    pub(crate) fn running(&self, service: &str) -> Option<&Started> {
        self.contents.services.get(service).filter(|started| started.process.is_alive())
    }

    pub(crate) fn set_running(&mut self, service: &str, started: Option<Started>) -> Result<()> {
        match started {
            Some(started) => self.contents.services.insert(service.to_owned(), started),
            None => self.contents.services.remove(service),
        };
        self.save()
    }

    pub(crate) fn joined(&self) -> bool {
        self.contents.joined
    }

    pub(crate) fn set_joined(&mut self) -> Result<()> {
        self.contents.joined = true;
        self.save()
    }

    pub(crate) fn stopped(&self) -> &[String] {
        &self.contents.stopped
    }

    pub(crate) fn set_stopped(&mut self, instances: Vec<String>) -> Result<()> {
        self.contents.stopped = instances;
        self.save()
    }

    fn save(&self) -> Result<()> {
        let new = self.path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec_pretty(&self.contents)?)
            .with_context(|| format!("write {new}"))?;
        fs::rename(&new, &self.path).with_context(|| format!("put {} in place", self.path))
    }
}

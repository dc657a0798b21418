//! What the agent writes down about the guests that are guarded, and the guard about those that it has killed.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{InstanceId, Name};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::clock::Moment;
use super::terms::Offence;
use crate::clock::{Clock, SystemClock};
use crate::durable::{self, Survive};

/// The folder of what was fenced.
const FENCED: &str = "fenced";

/// A guest that runs only while the leases of its pools are held. Its QEMU is the process with the instance's id as its
/// domain's UUID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub boot: i64,
    /// The shared pools in which it has disks.
    pub pools: BTreeMap<Name, Held>,
    /// When this was written: tells it from others about the same instance.
    pub written: Moment,
}

/// A pool in which a guest has disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub root: Utf8PathBuf,
    /// The term of the lease in which that was allowed.
    pub term: u64,
}

/// A guest whose power was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fenced {
    pub boot: i64,
    pub pool: Name,
    pub why: Offence,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

impl Fenced {
    pub(super) fn now(boot: i64, pool: &Name, why: Offence) -> Self {
        Self { boot, pool: pool.clone(), why, at: SystemClock.now() }
    }
}

fn entry_file(folder: &Utf8Path, id: InstanceId) -> Utf8PathBuf {
    folder.join(format!("{id}.json"))
}

fn fenced_file(folder: &Utf8Path, id: InstanceId) -> Utf8PathBuf {
    folder.join(FENCED).join(format!("{id}.json"))
}

/// Makes the folders.
pub(super) fn make(folder: &Utf8Path) -> io::Result<()> {
    durable::make_folder(folder)?;
    durable::make_folder(&folder.join(FENCED))
}

/// When this returns, the entry is on disk.
pub(super) fn put(folder: &Utf8Path, id: InstanceId, entry: &Entry) -> io::Result<()> {
    durable::write(&entry_file(folder, id), &serde_json::to_vec(entry)?, Survive::PowerCut)
}

/// Forgets the guest, and that it was fenced.
pub(super) fn remove(folder: &Utf8Path, id: InstanceId) -> io::Result<()> {
    forget_fenced(folder, id)?;
    durable::remove(&entry_file(folder, id))
}

/// All entries; `None` for one that is there and cannot be read.
pub(super) fn read(folder: &Utf8Path) -> io::Result<Vec<(InstanceId, Option<Entry>)>> {
    let mut found = Vec::new();
    for file in folder.read_dir_utf8()? {
        let file = file?;
        let Some(id) = file.file_name().strip_suffix(".json").and_then(|stem| stem.parse().ok()) else {
            continue;
        };
        match fs::read(file.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => {
                let parsed = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
                let parsed = parsed.inspect_err(|error| {
                    tracing::error!(file = %file.path(), %error, "unreadable: what is guarded stays as it was");
                });
                found.push((id, parsed.ok()));
            }
        }
    }
    Ok(found)
}

pub(super) fn put_fenced(folder: &Utf8Path, id: InstanceId, fenced: &Fenced) -> io::Result<()> {
    durable::write(&fenced_file(folder, id), &serde_json::to_vec(fenced)?, Survive::PowerCut)
}

/// What is known of the guest's end by fencing.
pub(super) fn fenced(folder: &Utf8Path, id: InstanceId) -> io::Result<Option<Fenced>> {
    match fs::read(fenced_file(folder, id)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn forget_fenced(folder: &Utf8Path, id: InstanceId) -> io::Result<()> {
    match fenced_file(folder, id) {
        file if file.exists() => durable::remove(&file),
        _ => Ok(()),
    }
}

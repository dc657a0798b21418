//! What the guard says of itself, for the agent and for the guard that comes after it.
//!
//! Two places in one file, written in turn, so that one is whole when the guard is killed while it writes. Their room is
//! taken at the start: a full disk does not silence the guard.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{InstanceId, Name};
use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::clock::Moment;
use super::lock::ProcessId;
use super::sealed;
use super::terms::Leases;

const FILE: &str = "status";
/// Of one of the two places.
const SPACE: usize = 256 * 1024;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Status {
    /// Counts what was said.
    pub(super) sequence: u64,
    pub(super) at: Moment,
    /// The machine's boot that all moments are of.
    pub(super) machine_boot: Uuid,
    pub(super) process: ProcessId,
    /// It was told to end, and does as soon as no guarded guest runs.
    pub(super) ending: bool,
    pub(super) leases: Leases,
    /// Where the pools are that the leases are in.
    pub(super) pools: BTreeMap<Name, Utf8PathBuf>,
    /// Why the last write into a pool failed.
    pub(super) faults: BTreeMap<Name, String>,
    /// What is guarded: when the entry was written that the guard goes by.
    pub(super) guests: BTreeMap<InstanceId, Moment>,
}

impl Status {
    pub(super) fn new(machine_boot: Uuid, process: ProcessId) -> Self {
        Self {
            sequence: 0,
            at: Moment(0),
            machine_boot,
            process,
            ending: false,
            leases: Leases::default(),
            pools: BTreeMap::new(),
            faults: BTreeMap::new(),
            guests: BTreeMap::new(),
        }
    }
}

/// The last word of the last guard.
pub(super) fn read(folder: &Utf8Path) -> io::Result<Option<Status>> {
    let file = match File::open(path(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut newest: Option<Status> = None;
    for place in 0..2 {
        let mut bytes = vec![0; SPACE];
        let length = read_full(&file, &mut bytes, place)?;
        let found: Option<Status> = sealed::unseal(&bytes[..length]);
        newest = newest.into_iter().chain(found).max_by_key(|status| status.sequence);
    }
    Ok(newest)
}

fn read_full(file: &File, bytes: &mut [u8], place: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], offset(place) + length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

fn offset(place: u64) -> u64 {
    place * SPACE as u64
}

fn path(folder: &Utf8Path) -> Utf8PathBuf {
    folder.join(FILE)
}

/// Where the guard writes it.
#[derive(Debug)]
pub(super) struct StatusFile {
    file: File,
    sequence: u64,
}

impl StatusFile {
    pub(super) fn open(folder: &Utf8Path, before: Option<&Status>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path(folder))?;
        if let Err(error) = fallocate(&file, FallocateFlags::empty(), 0, offset(2)) {
            tracing::warn!(%error, "no room could be set aside for what the guard says");
        }
        Ok(Self { file, sequence: before.map_or(0, |status| status.sequence) })
    }

    pub(super) fn write(&mut self, status: &Status) -> io::Result<()> {
        self.sequence += 1;
        let status = Status { sequence: self.sequence, ..status.clone() };
        let bytes = sealed::seal(&status, SPACE)?;
        self.file.write_all_at(&bytes, offset(self.sequence % 2))
    }
}

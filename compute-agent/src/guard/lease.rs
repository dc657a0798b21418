//! The file of a host's lease in a shared pool: one block, `<pool>/leases/<host>`, written in place.
//!
//! Written and read past the page cache where the file system allows that, so that a write that has completed is on
//! the disk or with the server, and what is read is what is there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::agent::MAX_SEEN_LEASES;
use protocol::{HostId, Name};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use storage::Unusable;
use uuid::Uuid;

use super::sealed;
use crate::durable::{self, make_folder};

/// The folder of the leases in a pool.
pub const FOLDER: &str = "leases";
const BLOCK: usize = 4096;
/// How many leases of a pool are looked at. Hosts that are no more leave theirs behind: there may be many more of these than
/// are told of.
pub(super) const MAX_FILES: usize = 10 * MAX_SEEN_LEASES;

/// What a lease says. Fields that a later release adds are not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub host: HostId,
    /// The pool's identity.
    pub pool: Uuid,
    pub counter: u64,
}

/// What the leases of a pool say.
#[derive(Debug, Default)]
pub struct Readings {
    pub records: Vec<Record>,
    /// Of these nothing is known.
    pub unreadable: Vec<(HostId, io::Error)>,
    /// There are more than were looked at.
    pub is_cut: bool,
}

/// Aligned as reading and writing past the page cache wants it.
#[repr(align(4096))]
struct Block([u8; BLOCK]);

/// A shared pool, where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub name: Name,
    pub root: Utf8PathBuf,
}

impl Place {
    fn folder(&self) -> Utf8PathBuf {
        self.root.join(FOLDER)
    }

    /// INVARIANT: asked before anything is written: a pool that is not mounted is a directory like any other.
    pub(super) fn identity(&self) -> io::Result<Uuid> {
        storage::shared_identity(&self.name, &self.root)
    }

    /// Writes this host's lease, into the pool of this identity alone. When this returns, others can read it.
    pub fn write(&self, pool: Uuid, host: HostId, counter: u64) -> io::Result<()> {
        if self.identity()? != pool {
            return Err(io::Error::other(Unusable::Exchanged));
        }
        let record = Record { host, pool, counter };
        let sealed = sealed::seal(&record, BLOCK)?;
        let mut block = Box::new(Block([b' '; BLOCK]));
        block.0[..sealed.len()].copy_from_slice(&sealed);
        let path = self.folder().join(host.to_string());
        let file = match open(&path, OpenOptions::new().write(true), OFlags::DSYNC) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(&path)?,
            opened => opened?,
        };
        file.write_all_at(&block.0, 0)?;
        file.sync_data()
    }

    /// The folder, too: pools of earlier releases have none.
    fn make(&self, path: &Utf8Path) -> io::Result<File> {
        make_folder(&self.folder())?;
        durable::sync_folder(&self.root)?;
        let file = open(path, OpenOptions::new().write(true).create(true).mode(0o600), OFlags::DSYNC)?;
        durable::sync_folder(&self.folder())?;
        Ok(file)
    }

    /// What this host's lease says, if there is one.
    pub fn read(&self, host: HostId) -> io::Result<Option<Record>> {
        let identity = self.identity()?;
        self.read_of(host, identity)
    }

    /// What the leases of all hosts say, of at most `limit`. Those that say nothing, as while they are written, are left out.
    pub fn read_all(&self, limit: usize) -> io::Result<Readings> {
        let identity = self.identity()?;
        let entries = match fs::read_dir(self.folder()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Readings::default()),
            entries => entries?,
        };
        let (mut found, mut looked_at) = (Readings::default(), 0);
        for entry in entries {
            let name = entry?.file_name();
            let Some(host) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if looked_at == limit {
                found.is_cut = true;
                break;
            }
            looked_at += 1;
            match self.read_of(host, identity) {
                Ok(record) => found.records.extend(record),
                Err(error) => found.unreadable.push((host, error)),
            }
        }
        Ok(found)
    }

    fn read_of(&self, host: HostId, identity: Uuid) -> io::Result<Option<Record>> {
        let path = self.folder().join(host.to_string());
        let file = match open(&path, OpenOptions::new().read(true), OFlags::NONBLOCK) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut block = Box::new(Block([0; BLOCK]));
        let length = file.read_at(&mut block.0, 0)?;
        let record: Option<Record> = sealed::unseal(&block.0[..length]);
        Ok(record.filter(|record| record.host == host && record.pool == identity))
    }
}

/// Opens it anew, so that nothing is known of it from before.
fn open(path: &Utf8Path, options: &mut OpenOptions, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let with = |flags: OFlags| flags.bits().cast_signed();
    match options.clone().custom_flags(with(flags | OFlags::DIRECT)).open(path) {
        // No file system has to be able to.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            options.custom_flags(with(flags)).open(path)
        }
        opened => opened,
    }
}

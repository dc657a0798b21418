//! Pools that several hosts share: a directory of a network or cluster file system, at the same path on all of them.
//!
//! ```text
//! <root>/cumulo-pool.json                  the pool's name, its identity and this path
//!        images/, layers/, made/           as in a local pool
//!        hosts/<uuid>/incoming/            unfinished work of one host, emptied when its agent opens the pool
//!                    /lock                 held by that agent
//! ```
//!
//! Other hosts work in it at the same time. What they make has names that nobody else gives, but for images: whoever
//! publishes one first is the one who made it. INVARIANT: nothing is looked for or made before the file of the pool was
//! read. A file system that is not mounted looks like an empty pool, and in an empty pool volumes are made anew.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::{Flock, FlockArg};
use protocol::{HostId, Name};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::durable::{PRIVATE_DIR, REACHABLE_DIR, Unfinished, exists, make_dir, sync_dir};
use crate::layout::Layout;
use crate::patience::{PATIENCE, Turn, within};
use crate::pool::{Inner, empty, measure};
use crate::{Made, Pool, PoolError, Space};

const FILE: &str = "cumulo-pool.json";
/// Far above what the file holds.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// A shared pool as this host reaches it.
#[derive(Debug, Clone)]
pub struct SharedRoot {
    pub name: Name,
    /// Absolute and without links, since it stands in the files of all hosts.
    pub root: Utf8PathBuf,
    /// This host.
    pub host: HostId,
}

/// A shared pool that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usable {
    pub identity: Uuid,
    pub space: Space,
}

/// Why a shared pool cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unusable {
    #[error("its directory holds no pool: is its file system mounted?")]
    NoPool,
    #[error("its directory is that of the pool {0}")]
    OtherName(Name),
    #[error("it was made at another path, and has to be at the same one on all hosts")]
    OtherPath,
    #[error("its path leads through a link: name the directory itself")]
    Link,
    #[error("another directory has taken its place: restart the agent if that is meant to be")]
    Exchanged,
    #[error(
        "another directory has taken the place of its `{0}`: put the one back that the agent began with, or restart the \
             agent if that is meant to be"
    )]
    PartExchanged(&'static str),
    #[error("another agent of this host uses it")]
    InUse,
    #[error("its file system does not answer")]
    Silent,
}

/// What the pool says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Marker {
    name: Name,
    pub(crate) identity: Uuid,
    path: Utf8PathBuf,
}

/// What a pool needs to know when it is shared.
#[derive(Debug)]
pub(crate) struct Shared {
    name: Name,
    host: HostId,
    opened: Mutex<Option<Opened>>,
    /// Held by whoever looks at it, so that a file system that never answers costs one thread.
    turn: Turn,
}

#[derive(Debug)]
struct Opened {
    identity: Uuid,
    parts: [Part; 4],
    _lock: Flock<File>,
}

/// A directory of the pool. Held open, so that no other one gets its number.
#[derive(Debug)]
struct Part {
    name: &'static str,
    path: Utf8PathBuf,
    opened: File,
}

impl Part {
    fn open(name: &'static str, path: Utf8PathBuf) -> io::Result<Self> {
        Ok(Self { name, opened: File::open(&path)?, path })
    }

    /// Whether its path leads to the directory that was opened.
    fn is_in_place(&self) -> io::Result<bool> {
        let opened = self.opened.metadata()?;
        match fs::symlink_metadata(&self.path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Pool {
    /// Makes the directory at `root`, which is there, a shared pool. Done once, on one host.
    ///
    /// # Errors
    /// When it is one already, or has something in the place of what a pool has, or its path leads through a link.
    pub fn make_shared(name: &Name, root: &Utf8Path) -> io::Result<Uuid> {
        if root.canonicalize_utf8()? != root {
            return Err(io::Error::other(Unusable::Link));
        }
        for name in ["images", "layers", "made", "hosts"] {
            if exists(&root.join(name))? {
                return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, format!("it has a `{name}`")));
            }
        }
        let marker = Marker { name: name.clone(), identity: Uuid::new_v4(), path: root.to_owned() };
        make_dir(root, REACHABLE_DIR)?;
        let unfinished = Unfinished::new(root.join(format!(".{}", marker.identity)));
        serde_json::to_writer(unfinished.create()?, &marker)?;
        match unfinished.publish_new(&root.join(FILE))? {
            Made::Now => Ok(marker.identity),
            Made::Before => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    /// A shared pool beside the local one. It need not be there yet: [`Pool::usable`] opens it.
    #[must_use]
    pub fn shared(&self, root: SharedRoot) -> Self {
        let SharedRoot { name, root, host } = root;
        let shared = Shared { name, host, opened: Mutex::default(), turn: Arc::default() };
        self.beside(Layout::of_host(root, host), shared)
    }

    /// Looks whether a shared pool can be used now, and opens it the first time. Of a local one there is nothing to say.
    pub async fn usable(&self) -> Result<Option<Usable>, PoolError> {
        let Some(shared) = &self.inner().shared else { return Ok(None) };
        let inner = self.inner_arc();
        let look = move || inner.shared.as_ref().map(|shared| shared.look(&inner)).transpose();
        let unusable = |why| PoolError::Unusable { pool: shared.name.clone(), why };
        let Some(looked) = within(PATIENCE, Arc::clone(&shared.turn), look).await else {
            return Err(unusable(Unusable::Silent));
        };
        looked.map_err(PoolError::io("look at a shared pool"))?.transpose().map_err(unusable)
    }
}

impl Shared {
    fn look(&self, inner: &Inner) -> io::Result<Result<Usable, Unusable>> {
        let root = inner.layout.root();
        let identity = match read(&self.name, root)? {
            Ok(marker) => marker.identity,
            Err(unusable) => return Ok(Err(unusable)),
        };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        match &*opened {
            Some(before) if before.identity != identity => return Ok(Err(Unusable::Exchanged)),
            Some(before) => {
                for part in &before.parts {
                    if !part.is_in_place()? {
                        return Ok(Err(Unusable::PartExchanged(part.name)));
                    }
                }
            }
            None => match self.open(&inner.layout)? {
                Some(lock) => {
                    let layout = &inner.layout;
                    let parts = [
                        Part::open("layers", layout.layers())?,
                        Part::open("made", layout.root().join("made"))?,
                        Part::open("images", layout.images())?,
                        Part::open("hosts", layout.hosts())?,
                    ];
                    *opened = Some(Opened { identity, parts, _lock: lock });
                }
                None => return Ok(Err(Unusable::InUse)),
            },
        }
        Ok(Ok(Usable { identity, space: measure(root)? }))
    }

    /// Makes the directories, and clears away what an earlier agent of this host left; nothing when one is at work.
    fn open(&self, layout: &Layout) -> io::Result<Option<Flock<File>>> {
        make_dir(&layout.images(), REACHABLE_DIR)?;
        make_dir(&layout.layers(), REACHABLE_DIR)?;
        layout.made().open(&layout.layers())?;
        make_dir(&layout.hosts(), PRIVATE_DIR)?;
        make_dir(&layout.own(self.host), PRIVATE_DIR)?;
        make_dir(&layout.incoming(), PRIVATE_DIR)?;
        let lock = File::options().create(true).truncate(false).write(true).open(layout.lock())?;
        sync_dir(layout.root())?;
        let Ok(lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else { return Ok(None) };
        empty(&layout.incoming())?;
        Ok(Some(lock))
    }
}

/// The identity of the shared pool of this name at `root`.
///
/// # Errors
/// When no such pool is there, as when its file system is not mounted. Does not return while that hangs.
pub fn identity(name: &Name, root: &Utf8Path) -> io::Result<Uuid> {
    Ok(read(name, root)?.map_err(io::Error::other)?.identity)
}

/// The file of the pool at `root`, if that is the one of this name, in its place.
pub(crate) fn read(name: &Name, root: &Utf8Path) -> io::Result<Result<Marker, Unusable>> {
    let gone =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    match root.canonicalize_utf8() {
        Ok(path) if path == root => {}
        Ok(_) => return Ok(Err(Unusable::Link)),
        Err(error) if gone(&error) => return Ok(Err(Unusable::NoPool)),
        Err(error) => return Err(error),
    }
    let file = root.join(FILE);
    match fs::symlink_metadata(&file) {
        Ok(found) if found.is_file() && found.len() <= MAX_FILE_BYTES => {}
        Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "the file of the pool is not one")),
        Err(error) if gone(&error) => return Ok(Err(Unusable::NoPool)),
        Err(error) => return Err(error),
    }
    let marker: Marker = serde_json::from_slice(&fs::read(&file)?)?;
    Ok(if marker.name != *name {
        Err(Unusable::OtherName(marker.name))
    } else if marker.path != root {
        Err(Unusable::OtherPath)
    } else {
        Ok(marker)
    })
}

//! The pool itself: its directories, and what is in them.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;
use protocol::agent::ImageSource;
use protocol::{InstanceId, LayerId};
use tokio::sync::{RwLock, Semaphore};

use crate::durable::{PRIVATE_DIR, REACHABLE_DIR, blocking, exists, make_dir, sync_dir};
use crate::flight::Flights;
use crate::layout::{Layout, instance_of};
use crate::made::MadeLayers;
use crate::sandbox::Sandbox;
use crate::shared::Shared;
use crate::{InstancePaths, PoolError};

/// The local pool, or a shared one. Clones are the same pool.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) sandbox: Sandbox,
    pub(crate) flights: Flights,
    /// INVARIANT: one conversion at a time. All run as one user, who must not be able to reach into another.
    /// Shared by all pools of a host.
    pub(crate) conversions: Arc<Semaphore>,
    /// What the cached images may take; a share of the file system unless given.
    pub(crate) image_cache_bytes: Option<u64>,
    /// Written by whoever evicts images, read by whoever must find one where it was.
    pub(crate) bases: Arc<RwLock<()>>,
    /// What a shared pool has beside the rest.
    pub(crate) shared: Option<Shared>,
    /// Of a local one.
    _lock: Option<Flock<File>>,
}

/// How a pool works.
#[derive(Debug)]
pub struct Options {
    pub sandbox: Sandbox,
    /// What the cached images may take. Those that are needed count, and are never evicted. A fifth of the file
    /// system unless given.
    pub image_cache_bytes: Option<u64>,
    /// A folder in which is written down what the pool has, so that what is lost is not taken for what was never made.
    /// It tells a pool that is not mounted only when it is on another file system. In the pool itself unless given.
    pub record: Option<Utf8PathBuf>,
    /// Instances that have had files in the pool: by one of these it is known if neither it nor the record says which
    /// one it is, as an earlier release left them.
    pub instances: Vec<InstanceId>,
}

impl Options {
    /// The default [`Sandbox`] and limit.
    ///
    /// # Errors
    /// When the sandbox cannot be prepared.
    pub fn new() -> Result<Self, PoolError> {
        let sandbox = Sandbox::new().map_err(PoolError::io("prepare the sandbox"))?;
        Ok(Self { sandbox, image_cache_bytes: None, record: None, instances: Vec::new() })
    }
}

/// What there is of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    pub seed: bool,
    /// Anything of the instance's own.
    pub any: bool,
}

/// Room on the pool's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    pub free_bytes: u64,
}

impl Pool {
    /// Opens the pool at `root`, which is made if it is not there, for this process alone, and clears away what an
    /// earlier one did not finish.
    ///
    /// # Errors
    /// [`PoolError::OtherPool`] when the record tells of another pool. Nothing was made then.
    pub fn open(root: &Utf8Path, options: Options) -> Result<Self, PoolError> {
        const OPEN: &str = "open the pool";
        let Options { sandbox, image_cache_bytes, record, instances } = options;
        let made = MadeLayers::new(record.unwrap_or_else(|| root.join("made")));
        made.knows(root, &instances).map_err(PoolError::io(OPEN))??;
        let (layout, lock) = prepare(root, made).map_err(PoolError::io(OPEN))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| PoolError::InUse)?;
        empty(&layout.incoming()).map_err(PoolError::io("clear away unfinished work"))?;
        layout.made().open(&layout.layers()).map_err(PoolError::io("write down what the pool has"))?;
        layout.made().keep(layout.root()).map_err(PoolError::io("mark the pool"))?;
        Ok(Self {
            inner: Arc::new(Inner {
                layout,
                sandbox,
                flights: Flights::default(),
                conversions: Arc::new(Semaphore::new(1)),
                image_cache_bytes,
                bases: Arc::default(),
                shared: None,
                _lock: Some(lock),
            }),
        })
    }

    /// Whether the pool that was opened is still in its place.
    ///
    /// # Errors
    /// [`PoolError::OtherPool`] when another folder, or none, has taken it. Of a shared one there is nothing to say.
    pub async fn is_in_place(&self) -> Result<(), PoolError> {
        if self.inner.shared.is_some() {
            return Ok(());
        }
        let inner = self.inner_arc();
        blocking("look for the pool", move || inner.layout.made().knows(inner.layout.root(), &[])).await?
    }

    /// Another pool of this host, which converts images in turn with this one.
    pub(crate) fn beside(&self, layout: Layout, shared: Shared) -> Self {
        Self {
            inner: Arc::new(Inner {
                layout,
                sandbox: self.inner.sandbox.clone(),
                flights: Flights::default(),
                conversions: Arc::clone(&self.inner.conversions),
                image_cache_bytes: None,
                bases: Arc::default(),
                shared: Some(shared),
                _lock: None,
            }),
        }
    }

    /// Where the instance's files are, or will be.
    pub fn paths(&self, id: InstanceId) -> InstancePaths {
        self.inner.layout.instance(id)
    }

    /// Where the image is in the cache, or will be.
    pub fn base(&self, image: &ImageSource) -> Utf8PathBuf {
        self.inner.layout.image(image.sha256)
    }

    /// What there is of an instance beside its volumes.
    pub async fn look(&self, id: InstanceId) -> Result<Found, PoolError> {
        let paths = self.paths(id);
        blocking("look at an instance's files", move || {
            Ok(Found { seed: exists(&paths.seed)?, any: exists(&paths.dir)? })
        })
        .await
    }

    /// The instances that have files, in the order of their ids.
    pub async fn instances(&self) -> Result<Vec<InstanceId>, PoolError> {
        let dir = self.inner.layout.instances();
        blocking("list the instances", move || list(&dir)).await
    }

    /// Removes the instance's directory with its seed and logs; false when there was none.
    pub async fn remove_instance(&self, id: InstanceId) -> Result<bool, PoolError> {
        let (dir, grave) = (self.paths(id).dir, self.inner.layout.fresh());
        blocking("remove an instance's files", move || remove(&dir, &grave)).await
    }

    /// Room on the file system, as an unprivileged user would find it.
    pub async fn space(&self) -> Result<Space, PoolError> {
        let root = self.inner.layout.root().to_owned();
        blocking("measure the pool", move || measure(&root)).await
    }

    /// Refuses to begin work that cannot end well.
    pub(crate) async fn require_space(&self, needed: u64) -> Result<(), PoolError> {
        let free = self.space().await?.free_bytes;
        if free < needed {
            return Err(PoolError::Full { needed, free });
        }
        Ok(())
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn inner_arc(&self) -> Arc<Inner> {
        Arc::clone(&self.inner)
    }
}

pub(crate) fn measure(root: &Utf8Path) -> io::Result<Space> {
    let stat = statvfs(root.as_std_path())?;
    let in_bytes = |blocks: nix::libc::fsblkcnt_t| blocks * stat.fragment_size();
    Ok(Space { total_bytes: in_bytes(stat.blocks()), free_bytes: in_bytes(stat.blocks_available()) })
}

/// Makes the directories; gives them and the file to lock.
fn prepare(root: &Utf8Path, made: MadeLayers) -> io::Result<(Layout, File)> {
    fs::create_dir_all(root)?;
    // Absolute, so that no name can look like an option or a protocol to qemu-img.
    let layout = Layout::new(root.canonicalize_utf8()?).with_record(made);
    make_dir(layout.root(), REACHABLE_DIR)?;
    make_dir(&layout.images(), REACHABLE_DIR)?;
    make_dir(&layout.instances(), REACHABLE_DIR)?;
    make_dir(&layout.layers(), REACHABLE_DIR)?;
    make_dir(&layout.incoming(), PRIVATE_DIR)?;
    adopt_root_disks(&layout)?;
    let lock = File::options().create(true).truncate(false).write(true).open(layout.lock())?;
    sync_dir(layout.root())?;
    Ok((layout, lock))
}

/// Gives the root disks that a release before volumes made their names as layers. A guest that runs meanwhile keeps
/// its file: it has two names until the instance goes.
fn adopt_root_disks(layout: &Layout) -> io::Result<()> {
    for id in list(&layout.instances())? {
        let layer = layout.layer(LayerId::from_uuid(id.as_uuid()));
        match fs::hard_link(layout.former_root_disk(id), layer) {
            Ok(()) => tracing::info!(instance = %id, "its root disk is a volume now"),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {}
            Err(error) => return Err(error),
        }
    }
    sync_dir(&layout.layers())
}

pub(crate) fn empty(dir: &Utf8Path) -> io::Result<()> {
    for entry in dir.read_dir_utf8()? {
        remove_entry(entry?.path())?;
    }
    Ok(())
}

/// Removes what has this name, a link itself and never what it leads to.
fn remove_entry(path: &Utf8Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

/// Takes the name away first: what is killed on the way is finished by the next opening of the pool.
fn remove(dir: &Utf8Path, grave: &Utf8Path) -> io::Result<bool> {
    match fs::rename(dir, grave) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        renamed => renamed?,
    }
    dir.parent().map_or(Ok(()), sync_dir)?;
    remove_entry(grave)?;
    Ok(true)
}

fn list(dir: &Utf8Path) -> io::Result<Vec<InstanceId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        match name.to_str().and_then(instance_of) {
            Some(id) => ids.push(id),
            None => tracing::warn!(?name, "the pool has something that is not ours"),
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

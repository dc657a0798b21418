//! What a pool has had: which layers, and in a local one which pool it is.
//!
//! ```text
//! <folder>/layers/<uuid>     a file for each layer that was made and not removed; it names the move that it came by, if any
//!         /removed/<uuid>    the same for each that was removed by order
//!         /identity.json     of the pool that this host had, beside a local pool
//! ```
//!
//! A volume whose top is missing looks like one of which nothing was made yet, and a file system that is not mounted
//! looks like an empty pool. Who made a layer anew then would roll the guest's disk back. INVARIANT: a layer is written
//! down here before its maker hears that it is there, and crossed out before its file is removed.
//!
//! What was removed stays written down, too: a control plane whose database was restored may ask for it again, and an empty
//! disk is not what it means. The ids of layers are never given twice.

use std::fs::{self, File};
use std::io::{self, Write as _};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{InstanceId, LayerId, MigrationId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::PoolError;
use crate::durable::{PRIVATE_DIR, Unfinished, exists, make_dir, sync_dir};

/// Beside what a local pool has.
const MARKER: &str = "cumulo-local-pool.json";
const IDENTITY: &str = "identity.json";
/// Of so many removed layers it is known that they were; of the oldest it is forgotten.
const REMOVED_KEPT: usize = 100_000;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct MadeLayers {
    folder: Utf8PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    identity: Uuid,
}

impl MadeLayers {
    pub(crate) fn new(folder: Utf8PathBuf) -> Self {
        Self { folder }
    }

    /// Makes the folder, and writes down the layers that are in `layers`: of a pool that is older than this record.
    pub(crate) fn open(&self, layers: &Utf8Path) -> io::Result<()> {
        make_dir(&self.folder, PRIVATE_DIR)?;
        make_dir(&self.layers(), PRIVATE_DIR)?;
        make_dir(&self.removed(), PRIVATE_DIR)?;
        self.forget_oldest(REMOVED_KEPT)?;
        for entry in layers.read_dir_utf8()? {
            let layer = entry?.file_name().strip_suffix(".qcow2").and_then(|id| id.parse().ok());
            if let Some(layer) = layer {
                self.write_down(layer)?;
            }
        }
        sync_dir(&self.layers())
    }

    pub(crate) fn has(&self, layer: LayerId) -> io::Result<bool> {
        exists(&self.entry(layer))
    }

    /// Those that were made.
    pub(crate) fn those_of(&self, layers: impl IntoIterator<Item = LayerId>) -> io::Result<Vec<LayerId>> {
        let mut made = Vec::new();
        for layer in layers {
            if self.has(layer)? {
                made.push(layer);
            }
        }
        Ok(made)
    }

    /// Those that were made and then removed by order.
    pub(crate) fn removed_of(&self, layers: impl IntoIterator<Item = LayerId>) -> io::Result<Vec<LayerId>> {
        let mut removed = Vec::new();
        for layer in layers {
            if exists(&self.removed().join(layer.to_string()))? {
                removed.push(layer);
            }
        }
        Ok(removed)
    }

    /// The ids of layers begin with the time at which they were given.
    fn forget_oldest(&self, kept: usize) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in self.removed().read_dir_utf8()? {
            names.push(entry?.file_name().to_owned());
        }
        names.sort_unstable();
        let surplus = names.len().saturating_sub(kept);
        names[..surplus].iter().try_for_each(|name| fs::remove_file(self.removed().join(name)))
    }

    /// On disk when this returns.
    pub(crate) fn add(&self, layer: LayerId) -> io::Result<()> {
        self.write_down(layer)?;
        sync_dir(&self.layers())
    }

    /// The same of one that comes from another host: by which move.
    pub(crate) fn add_by(&self, layer: LayerId, by: MigrationId) -> io::Result<()> {
        let mut entry = File::create(self.entry(layer))?;
        entry.write_all(by.to_string().as_bytes())?;
        entry.sync_all()?;
        sync_dir(&self.layers())
    }

    /// Whether it came by that move.
    pub(crate) fn came_by(&self, layer: LayerId, by: MigrationId) -> io::Result<bool> {
        match fs::read(self.entry(layer)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            read => Ok(read? == by.to_string().as_bytes()),
        }
    }

    /// False when none of them was written down.
    pub(crate) fn cross_out(&self, layers: &[LayerId]) -> io::Result<bool> {
        let mut any = false;
        for layer in layers {
            match fs::rename(self.entry(*layer), self.removed().join(layer.to_string())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                gone => any |= gone.is_ok(),
            }
        }
        if any {
            sync_dir(&self.removed())?;
            sync_dir(&self.layers())?;
        }
        Ok(any)
    }

    /// Whether the folder at `root` may be used as the local pool: it is the one that this host had, or it had none. A
    /// pool that nobody has marked yet is known by the instances that it had, if it has had any.
    pub(crate) fn knows(
        &self,
        root: &Utf8Path,
        instances: &[InstanceId],
    ) -> io::Result<Result<(), PoolError>> {
        let (ours, found) = (read(&self.folder.join(IDENTITY))?, read(&root.join(MARKER))?);
        let is_ours = match (ours, found) {
            (None, Some(_)) => true,
            (None, None) => instances.is_empty() || has_any(root, instances)?,
            (ours, found) => ours == found,
        };
        Ok(if is_ours { Ok(()) } else { Err(PoolError::OtherPool) })
    }

    /// Marks the pool at `root`, unless it is, and remembers it. The record is there.
    pub(crate) fn keep(&self, root: &Utf8Path) -> io::Result<()> {
        let identity = match read(&root.join(MARKER))? {
            Some(identity) => identity,
            None => write(&root.join(MARKER), Uuid::new_v4())?,
        };
        // The pool is marked first: whoever dies in between finds a pool that is new to this host.
        write(&self.folder.join(IDENTITY), identity).map(drop)
    }

    fn write_down(&self, layer: LayerId) -> io::Result<()> {
        File::options().create(true).append(true).open(self.entry(layer)).map(drop)
    }

    fn layers(&self) -> Utf8PathBuf {
        self.folder.join("layers")
    }

    fn removed(&self) -> Utf8PathBuf {
        self.folder.join("removed")
    }

    fn entry(&self, layer: LayerId) -> Utf8PathBuf {
        self.layers().join(layer.to_string())
    }
}

/// Whether there are files of one of these.
fn has_any(root: &Utf8Path, instances: &[InstanceId]) -> io::Result<bool> {
    for id in instances {
        if exists(&root.join("instances").join(id.to_string()))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read(path: &Utf8Path) -> io::Result<Option<Uuid>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice::<Identity>(&bytes)?.identity)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Nothing when something has this name.
fn write(path: &Utf8Path, identity: Uuid) -> io::Result<Uuid> {
    let unfinished = Unfinished::new(path.with_extension("new"));
    match fs::remove_file(unfinished.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    serde_json::to_writer(unfinished.create()?, &Identity { identity })?;
    unfinished.publish_new(path)?;
    Ok(identity)
}

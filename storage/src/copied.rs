//! Layers that go to the pool of another host, or come from one.
//!
//! What comes is hostile until it was looked at: it has the length and the digest that its source has told, its header leads
//! nowhere but to what it shall stand on, and it is no larger than the disk. It has another name until then.

use std::fs::{File, Permissions};
use std::io::{self, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::agent::CopiedLayer;
use protocol::{LayerId, MIB, MigrationId, Sha256};
use sha2::Digest;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::OwnedRwLockReadGuard;

use crate::durable::{PRIVATE_FILE, Unfinished, blocking, exists};
use crate::header::{Header, open_itself};
use crate::volume::{OPTIONS, is_in_use, is_written_to};
use crate::{Made, Needed, Pool, PoolError, qemu_img};

const LEND: &str = "open a layer for another host";
const STORE: &str = "store a layer of another host";
const IS_THERE: &str = "a file of that name is there, which has not come by this move";
/// Left out of the file where it is empty.
const BLOCK: usize = 64 << 10;
static NOTHING: [u8; BLOCK] = [0; BLOCK];

/// A layer of this pool that nobody uses, open for another host.
#[derive(Debug)]
pub struct LentLayer {
    layer: LayerId,
    path: Utf8PathBuf,
    file: File,
    seen: Seen,
    users: Users,
}

/// Who else may have a layer open that is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    Nobody,
    /// Guests, as something below what they write to.
    Readers,
}

impl Users {
    fn has_others(self, path: &Utf8Path) -> io::Result<bool> {
        match self {
            Self::Nobody => is_in_use(path),
            Self::Readers => is_written_to(path),
        }
    }
}

/// What changes with each write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    file: (u64, u64),
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self {
            file: (found.dev(), found.ino()),
            size_bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl LentLayer {
    pub const fn size_bytes(&self) -> u64 {
        self.seen.size_bytes
    }

    /// The bytes from the beginning.
    ///
    /// # Errors
    /// Those of the file.
    pub async fn open(&self) -> Result<File, PoolError> {
        let file = self.file.try_clone().map_err(PoolError::io(LEND))?;
        blocking(LEND, move || {
            io::Seek::rewind(&mut &file)?;
            Ok(file)
        })
        .await
    }

    /// Whether nobody has written to it since it was opened, or is about to.
    ///
    /// # Errors
    /// [`PoolError::LayerInUse`] otherwise.
    pub async fn is_unchanged(&self) -> Result<(), PoolError> {
        let (path, seen, users) = (self.path.clone(), self.seen, self.users);
        let same =
            blocking(LEND, move || Ok(Seen::of(&open_itself(&path)?)? == seen && !users.has_others(&path)?));
        if same.await? { Ok(()) } else { Err(PoolError::LayerInUse(self.layer)) }
    }
}

/// A layer that comes. It goes when this is dropped.
#[derive(Debug)]
pub struct NewLayer {
    unfinished: Unfinished,
    file: tokio::fs::File,
    digest: sha2::Sha256,
    /// What there is of it, and what there shall be.
    got: u64,
    size_bytes: u64,
}

impl NewLayer {
    /// Adds what comes next.
    ///
    /// # Errors
    /// Those of the file, and when there is more than there shall be.
    pub async fn write(&mut self, layer: LayerId, bytes: &[u8]) -> Result<(), PoolError> {
        self.got += bytes.len() as u64;
        if self.got > self.size_bytes {
            return Err(PoolError::NotTaken(layer, "it is longer than its source has said"));
        }
        self.digest.update(bytes);
        for block in bytes.chunks(BLOCK) {
            // A guest that has given room back keeps that.
            if *block == NOTHING[..block.len()] {
                let length = i64::try_from(block.len()).unwrap_or(i64::MAX);
                self.file.seek(SeekFrom::Current(length)).await.map_err(PoolError::io(STORE))?;
            } else {
                self.file.write_all(block).await.map_err(PoolError::io(STORE))?;
            }
        }
        Ok(())
    }
}

impl Pool {
    /// Opens a layer for another host; `None` when it was never made.
    ///
    /// # Errors
    /// [`PoolError::LostLayer`] when it was made and is not there, [`PoolError::RemovedLayer`] when it was removed by order,
    /// [`PoolError::LayerInUse`] when a guest may write to it.
    pub async fn lend_layer(&self, layer: LayerId, users: Users) -> Result<Option<LentLayer>, PoolError> {
        let (path, made) = (self.layer(layer), self.inner().layout.made().clone());
        blocking(LEND, move || {
            if !exists(&path)? {
                return Ok(if made.has(layer)? {
                    Err(PoolError::LostLayer(layer))
                } else if made.removed_of([layer])?.is_empty() {
                    Ok(None)
                } else {
                    Err(PoolError::RemovedLayer(layer))
                });
            }
            let file = open_itself(&path)?;
            if users.has_others(&path)? {
                return Ok(Err(PoolError::LayerInUse(layer)));
            }
            Ok(Ok(Some(LentLayer { seen: Seen::of(&file)?, layer, path, file, users })))
        })
        .await?
    }

    /// Makes an empty layer for what a guest of another host writes to, as one that has come by that move. What it stands on
    /// is there.
    ///
    /// # Errors
    /// [`PoolError::NotTaken`] when there is a file of that name that has not come by it.
    pub async fn fresh_layer(&self, of: &CopiedLayer, by: MigrationId) -> Result<(), PoolError> {
        if self.has_come(of.id, by).await? {
            return Ok(());
        }
        let bases_stay = self.bases_stay().await;
        let stands_on = self.stands_on(of);
        if let Some(path) = stands_on.clone()
            && !blocking("look for what a layer stands on", move || exists(&path)).await?
        {
            return Err(match (of.below, &of.image) {
                (None, Some(image)) => PoolError::NoBase(image.sha256),
                _ => PoolError::NotTaken(of.id, "what it stands on is not there"),
            });
        }
        let unfinished = Unfinished::new(self.inner().layout.fresh());
        qemu_img::create(unfinished.path(), OPTIONS, stands_on.as_deref(), of.size_gib.bytes()).await?;
        self.put_in_place(unfinished, of.id, by, bases_stay).await
    }

    /// Whether the layer is there, whole.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn has_layer(&self, layer: LayerId) -> Result<bool, PoolError> {
        let (path, made) = (self.layer(layer), self.inner().layout.made().clone());
        blocking("look for a layer", move || Ok(exists(&path)? && made.has(layer)?)).await
    }

    /// Whether the layer has come by that move.
    ///
    /// # Errors
    /// [`PoolError::NotTaken`] when there is a file of that name that has not: it may be older than what the source has.
    pub async fn has_come(&self, layer: LayerId, by: MigrationId) -> Result<bool, PoolError> {
        let (path, made) = (self.layer(layer), self.inner().layout.made().clone());
        blocking("look for a layer", move || {
            Ok(match (exists(&path)?, made.came_by(layer, by)?) {
                (true, false) => Err(PoolError::NotTaken(layer, IS_THERE)),
                (is_there, _) => Ok(is_there),
            })
        })
        .await?
    }

    /// Makes a place for a layer of so many bytes. Images that nobody needs give way to it.
    ///
    /// # Errors
    /// [`PoolError::Full`] when there is no room, [`PoolError::NotTaken`] when no disk of that size has as much.
    pub async fn new_layer(
        &self,
        of: &CopiedLayer,
        size_bytes: u64,
        needed: Needed<'_>,
    ) -> Result<NewLayer, PoolError> {
        if size_bytes > largest(of) {
            return Err(PoolError::NotTaken(of.id, "it is larger than its disk can be"));
        }
        self.make_room(size_bytes, needed).await?;
        let unfinished = Unfinished::new(self.inner().layout.fresh());
        let file = unfinished.create().map_err(PoolError::io(STORE))?;
        let file = tokio::fs::File::from_std(file);
        Ok(NewLayer { unfinished, file, digest: sha2::Sha256::new(), got: 0, size_bytes })
    }

    /// Puts it in place: from now on it is a layer like those that were made here. What it stands on is there.
    ///
    /// # Errors
    /// [`PoolError::NotTaken`] when it is not what was to come. Nothing of it is left then.
    pub async fn publish_layer(
        &self,
        mut new: NewLayer,
        of: &CopiedLayer,
        sha256: Sha256,
        by: MigrationId,
    ) -> Result<(), PoolError> {
        let layer = of.id;
        let refused = |why| Err(PoolError::NotTaken(layer, why));
        if new.got != new.size_bytes {
            return refused("it is shorter than its source has said");
        }
        if Sha256::from_bytes(new.digest.finalize_reset().into()) != sha256 {
            return refused("its digest is not that which its source has told");
        }
        new.file.flush().await.map_err(PoolError::io(STORE))?;
        new.file.set_len(new.size_bytes).await.map_err(PoolError::io(STORE))?;
        drop(new.file);
        // No image leaves the cache before the layer that stands on it is there.
        let bases_stay = self.bases_stay().await;
        let stands_on = self.stands_on(of);
        let unfinished = new.unfinished;
        let header = look(unfinished.path()).await?.map_err(|why| PoolError::UnsafeLayer(layer, why))?;
        if header.backing.as_deref().map(name) != stands_on.as_deref().map(name) {
            return refused("it stands on something else");
        }
        if header.size_bytes > of.size_gib.bytes() {
            return refused("its guest would see more than its disk has");
        }
        if let Some(stands_on) = &stands_on {
            let (path, there) = (stands_on.clone(), of.below);
            if !blocking("look for what a layer stands on", move || exists(&path)).await? {
                return match (there, &of.image) {
                    (None, Some(image)) => Err(PoolError::NoBase(image.sha256)),
                    _ => refused("what it stands on is not there"),
                };
            }
            // The pool of its source may be at another place.
            if header.backing.as_ref() != Some(stands_on) {
                qemu_img::rebase(unfinished.path(), stands_on).await?;
            }
        }
        let header = look(unfinished.path()).await?.map_err(|why| PoolError::UnsafeLayer(layer, why))?;
        if header.backing != stands_on {
            return refused("it stands on something else");
        }
        self.put_in_place(unfinished, layer, by, bases_stay).await
    }

    /// What a layer stands on here.
    fn stands_on(&self, of: &CopiedLayer) -> Option<Utf8PathBuf> {
        match (of.below, &of.image) {
            (Some(below), _) => Some(self.layer(below)),
            (None, image) => image.as_ref().map(|image| self.base(image)),
        }
    }

    async fn put_in_place(
        &self,
        unfinished: Unfinished,
        layer: LayerId,
        by: MigrationId,
        bases_stay: OwnedRwLockReadGuard<()>,
    ) -> Result<(), PoolError> {
        let (target, record) = (self.layer(layer), self.inner().layout.made().clone());
        blocking("put a layer of another host in place", move || {
            let _bases_stay = bases_stay;
            std::fs::set_permissions(unfinished.path(), Permissions::from_mode(PRIVATE_FILE))?;
            if exists(&target)? {
                return Ok(Err(PoolError::NotTaken(layer, IS_THERE)));
            }
            // Written down first: what is there without that would be a stranger's.
            record.add_by(layer, by)?;
            Ok(match unfinished.publish_new(&target)? {
                Made::Now => Ok(()),
                Made::Before => Err(PoolError::NotTaken(layer, IS_THERE)),
            })
        })
        .await?
    }
}

/// What a file of such a disk can have, with the tables of its format.
fn largest(of: &CopiedLayer) -> u64 {
    let disk = of.size_gib.bytes();
    disk + disk / 64 + 64 * MIB
}

fn name(path: &Utf8Path) -> &str {
    path.file_name().unwrap_or_default()
}

/// The outer error is the host's.
async fn look(path: &Utf8Path) -> Result<Result<Header, io::Error>, PoolError> {
    let path = path.to_owned();
    blocking("look at a layer of another host", move || match Header::read(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            Ok(Err(error))
        }
        read => read.map(Ok),
    })
    .await
}

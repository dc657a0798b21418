//! Volumes: chains of qcow2 layers, the lowest over a cached image or over nothing.

use std::fs::{self, File, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use protocol::LayerId;
use protocol::agent::VolumeSpec;

use crate::chain::{Chain, Wanted};
use crate::durable::{PRIVATE_FILE, Unfinished, blocking, exists, sync_dir};
use crate::header::Header;
use crate::{Made, Pool, PoolError, qemu_img};

/// First writes to clusters of 128 KiB with subclusters are many times faster than to plain ones: a 4 KiB
/// write copies nothing from the layer below.
pub(crate) const OPTIONS: &str = "extended_l2=on,cluster_size=131072";
/// The bytes of a file that QEMU locks.
const QEMU_LOCKS: Range<i64> = 100..300;
/// Those that it locks of a file that it writes to, or changes in another way: see `BLK_PERM_WRITE` in QEMU's
/// `include/block/block-common.h`.
const QEMU_WRITES: Range<i64> = 101..104;

/// What there is of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFound {
    /// Its image is cached, or it has none.
    pub base: bool,
    /// The chain is there up to its top, each layer on the one before, and the top is as large as it shall be.
    pub made: bool,
    /// A layer is missing below others, or stands on something else than it shall.
    pub broken: bool,
    /// Of the layers to merge, those that are merged: the one above stands on the one below.
    pub merged: Vec<LayerId>,
}

impl Pool {
    /// The files of a volume's chain from the bottom to the top, as they stand on each other now: without those
    /// that are merged.
    ///
    /// # Errors
    /// [`PoolError::BrokenChain`] when they do not stand as they shall, or not all are there.
    pub async fn layers(&self, volume: &VolumeSpec) -> Result<Vec<Utf8PathBuf>, PoolError> {
        let chain = self.look_at_chain(volume).await?;
        match chain.to_make.first() {
            Some(missing) => Err(PoolError::BrokenChain(*missing)),
            None => Ok(chain.standing.iter().map(|layer| self.layer(*layer)).collect()),
        }
    }

    /// What there is of a volume, which a guest may use: only headers are read. What is said to be merged is on disk,
    /// so that the file may go, whatever happens to the machine's power.
    pub async fn look_at_volume(&self, volume: &VolumeSpec) -> Result<VolumeFound, PoolError> {
        let image = volume.image.as_ref().map(|image| self.base(image));
        let cached = blocking("look for an image", move || image.as_deref().map_or(Ok(true), exists));
        let base = cached.await?;
        let chain = match self.look_at_chain(volume).await {
            Err(
                error @ (PoolError::BrokenChain(_)
                | PoolError::LostLayer(_)
                | PoolError::RemovedLayer(_)
                | PoolError::UnsafeLayer(..)),
            ) => {
                tracing::debug!(volume = %volume.id, ?error, "a volume is broken");
                return Ok(VolumeFound { base, made: false, broken: true, merged: Vec::new() });
            }
            chain => chain?,
        };
        if !chain.merged.is_empty() {
            self.sync(&chain.standing).await?;
        }
        let made = chain.to_make.is_empty() && chain.size_bytes >= volume.size_gib.bytes();
        Ok(VolumeFound { base, made, broken: false, merged: chain.merged })
    }

    async fn look_at_chain(&self, volume: &VolumeSpec) -> Result<Chain, PoolError> {
        let wanted = Wanted {
            base: volume.image.as_ref().map(|image| self.base(image)),
            layers: volume.layers.iter().map(|layer| (*layer, self.layer(*layer))).collect(),
            merges: volume.merges.clone(),
            made: self.inner().layout.made().clone(),
        };
        blocking("look at a volume's files", move || wanted.look()).await?
    }

    /// Makes what is missing at the top of a volume over its cached image, and grows the volume to its size. What is
    /// there keeps its content. A layer that others stand on, or that was made before, is not made anew, since it would
    /// be an empty one: a chain that lacks one, or that stands in another way than it shall, is refused and left alone.
    ///
    /// The volume must not be in use.
    pub async fn ensure_volume(&self, volume: &VolumeSpec) -> Result<Made, PoolError> {
        if let Some(image) = &volume.image {
            if image.virtual_size_bytes > volume.size_gib.bytes() {
                let (size, virtual_size_bytes) = (volume.size_gib, image.virtual_size_bytes);
                return Err(PoolError::DiskTooSmall { size, virtual_size_bytes });
            }
            if !self.look_at_volume(volume).await?.base {
                return Err(PoolError::NoBase(image.sha256));
            }
        }
        let mut made = Made::Before;
        let chain = self.look_at_chain(volume).await?;
        let mut below = chain.standing.last().copied();
        for layer in chain.to_make {
            made = self.add_layer(volume, layer, below).await?;
            below = Some(layer);
        }
        self.grow(volume).await?;
        Ok(made)
    }

    /// Makes an empty layer of the volume over another or, without one, over its image. Both may be in use. One that
    /// is there is left as it is, and refused when it stands on something else.
    pub async fn add_layer(
        &self,
        volume: &VolumeSpec,
        layer: LayerId,
        below: Option<LayerId>,
    ) -> Result<Made, PoolError> {
        let below = below.map(|below| self.layer(below));
        let image = volume.image.as_ref().filter(|_| below.is_none());
        let bases_stay = self.bases_stay().await;
        if let Some(image) = image
            && !tokio::fs::try_exists(self.base(image)).await.map_err(PoolError::io("look for an image"))?
        {
            return Err(PoolError::NoBase(image.sha256));
        }
        let backing = below.or_else(|| image.map(|image| self.base(image)));
        let unfinished = Unfinished::new(self.inner().layout.fresh());
        qemu_img::create(unfinished.path(), OPTIONS, backing.as_deref(), volume.size_gib.bytes()).await?;
        let (target, record) = (self.layer(layer), self.inner().layout.made().clone());
        let (made, header) = blocking("put a layer in place", move || {
            let _bases_stay = bases_stay;
            fs::set_permissions(unfinished.path(), Permissions::from_mode(PRIVATE_FILE))?;
            let made = unfinished.publish_new(&target)?;
            record.add(layer)?;
            Ok((made, Header::read(&target)?))
        })
        .await?;
        if header.backing == backing { Ok(made) } else { Err(PoolError::BrokenChain(layer)) }
    }

    /// Merges the layers that shall be merged into the ones below, of a volume that is made and not in use. What was
    /// merged stays behind: it is for others to say that nobody needs it. Repeated after any interruption, it comes
    /// to the same end: nobody writes to either, so that the chain reads the same all the time.
    pub async fn merge_layers(&self, volume: &VolumeSpec) -> Result<(), PoolError> {
        while let Some([below, layer, above]) = self.look_at_chain(volume).await?.next_merge(&volume.merges) {
            tracing::info!(volume = %volume.id, %layer, into = %below, "merging a layer");
            let [below, layer, above] = [below, layer, above].map(|one| self.layer(one));
            let files = self.files(volume);
            let chain: Vec<_> = files.iter().map(Utf8PathBuf::as_path).collect();
            qemu_img::commit(&layer, &below, &chain).await?;
            qemu_img::reclaim(&below, &chain).await?;
            qemu_img::rebase(&above, &below).await?;
        }
        Ok(())
    }

    async fn sync(&self, layers: &[LayerId]) -> Result<(), PoolError> {
        let files: Vec<_> = layers.iter().map(|layer| self.layer(*layer)).collect();
        let sync = move || files.iter().try_for_each(|file| File::open(file)?.sync_all());
        blocking("flush layers", sync).await
    }

    async fn grow(&self, volume: &VolumeSpec) -> Result<(), PoolError> {
        let Some(top) = volume.top().map(|top| self.layer(top)) else { return Ok(()) };
        let size_bytes = volume.size_gib.bytes();
        let measured = top.clone();
        let size = blocking("measure a volume", move || Ok(Header::read(&measured)?.size_bytes)).await?;
        if size >= size_bytes {
            return Ok(());
        }
        let files = self.files(volume);
        let chain: Vec<_> = files.iter().map(Utf8PathBuf::as_path).collect();
        qemu_img::resize(&top, &chain, size_bytes).await
    }

    /// The files that the volume's chain may lead to, there or not.
    fn files(&self, volume: &VolumeSpec) -> Vec<Utf8PathBuf> {
        let layers = volume.layers.iter().map(|layer| self.layer(*layer));
        layers.chain(volume.image.as_ref().map(|image| self.base(image))).collect()
    }

    /// Removes layers, and memory of guests, that nobody needs any more; false when none of them was there.
    ///
    /// INVARIANT: none is removed that a process has open as a disk, whatever the hypervisor and the control plane
    /// believe.
    pub async fn remove_layers(&self, layers: &[LayerId]) -> Result<bool, PoolError> {
        let (dir, record) = (self.inner().layout.layers(), self.inner().layout.made().clone());
        let paths: Vec<_> = layers.iter().map(|layer| self.layer(*layer)).collect();
        let (looked_at, memory, doomed) = (paths.clone(), layers, layers.to_vec());
        let layers = doomed.clone();
        let in_use = blocking("look whether layers are in use", move || {
            let mut in_use = None;
            for (path, layer) in looked_at.iter().zip(layers) {
                if in_use.is_none() && is_in_use(path)? {
                    in_use = Some(layer);
                }
            }
            Ok(in_use)
        });
        if let Some(layer) = in_use.await? {
            return Err(PoolError::LayerInUse(layer));
        }
        let memory: Vec<_> = memory.iter().map(|id| self.memory(*id)).collect();
        blocking("remove layers", move || {
            let mut removed = record.cross_out(&doomed)?;
            for path in paths.into_iter().chain(memory) {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    gone => removed |= gone.is_ok(),
                }
            }
            if removed {
                sync_dir(&dir)?;
            }
            Ok(removed)
        })
        .await
    }

    /// Whether any of these layers is there, or was and is lost.
    pub async fn has_any_layer(&self, layers: &[LayerId]) -> Result<bool, PoolError> {
        let paths: Vec<_> = layers.iter().map(|layer| self.layer(*layer)).collect();
        let (record, layers) = (self.inner().layout.made().clone(), layers.to_vec());
        blocking("look for layers", move || {
            if !record.those_of(layers)?.is_empty() {
                return Ok(true);
            }
            paths.iter().try_fold(false, |found, path| Ok(found || exists(path)?))
        })
        .await
    }

    /// Where a layer is, or will be.
    pub fn layer(&self, id: LayerId) -> Utf8PathBuf {
        self.inner().layout.layer(id)
    }
}

/// Whether a QEMU has the file open as a disk or as a part of one: it locks bytes of it, which say what it does and
/// what it lets others do (`block/file-posix.c` of QEMU, `RAW_LOCK_PERM_BASE` and `RAW_LOCK_SHARED_BASE`).
pub(crate) fn is_in_use(path: &Utf8Path) -> io::Result<bool> {
    is_locked(path, QEMU_LOCKS)
}

/// The same as something to write to. Others may read it.
pub(crate) fn is_written_to(path: &Utf8Path) -> io::Result<bool> {
    is_locked(path, QEMU_WRITES)
}

fn is_locked(path: &Utf8Path, bytes: Range<i64>) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let mut lock = libc::flock {
        // What would stand in the way of a writer is any lock.
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: bytes.start,
        l_len: bytes.end - bytes.start,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

//! Volumes: chains of qcow2 layers, the lowest over a cached image or over nothing.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use protocol::LayerId;
use protocol::agent::{MAX_LAYERS, VolumeSpec};

use crate::durable::{PRIVATE_FILE, Unfinished, blocking, exists, sync_dir};
use crate::{Made, Pool, PoolError, qemu_img};

/// First writes to clusters of 128 KiB with subclusters are many times faster than to plain ones: a 4 KiB
/// write copies nothing from the layer below.
const OPTIONS: &str = "extended_l2=on,cluster_size=131072";
/// The bytes of a file that QEMU locks.
const QEMU_LOCKS: Range<i64> = 100..300;
/// The longest name of a backing file that qcow2 has room for.
const MAX_NAME_BYTES: usize = 1023;

/// What there is of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeFound {
    /// Its image is cached, or it has none.
    pub base: bool,
    /// All layers are there, each stands on the one before, and the top one is as large as it shall be.
    pub made: bool,
}

impl Pool {
    /// The layers of a volume from the bottom to the top, there or not.
    pub fn layers(&self, volume: &VolumeSpec) -> Vec<Utf8PathBuf> {
        volume.layers.iter().map(|layer| self.layer(*layer)).collect()
    }

    /// What there is of a volume.
    pub async fn look_at_volume(&self, volume: &VolumeSpec) -> Result<VolumeFound, PoolError> {
        let base = volume.image.as_ref().map(|image| self.base(image));
        let layers = self.layers(volume);
        let size_bytes = volume.size_gib.bytes();
        blocking("look at a volume's files", move || {
            let cached = base.as_ref().map_or(Ok(true), |base| exists(base))?;
            Ok(VolumeFound { base: cached, made: are_made(base, &layers, size_bytes)? })
        })
        .await
    }

    /// Makes what is missing of a volume over its cached image, merges what the chain names no more into the layer
    /// below, and grows the volume to its size. What is there keeps its content, and a layer that another stands
    /// on is not made anew: it would be an empty one.
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
        let there = self.layers_there(volume).await?;
        let missing = there.iter().position(|there| !there).unwrap_or(there.len());
        if there[missing..].contains(&true) {
            return Err(PoolError::LostLayer(volume.layers[missing]));
        }
        for index in 1..missing {
            self.merge_below(volume, index).await?;
        }
        let mut made = Made::Before;
        for layer in &volume.layers[missing..] {
            made = self.add_layer(volume, *layer).await?;
        }
        self.grow(volume).await?;
        Ok(made)
    }

    async fn layers_there(&self, volume: &VolumeSpec) -> Result<Vec<bool>, PoolError> {
        let layers = self.layers(volume);
        blocking("look at a volume's files", move || layers.iter().map(|layer| exists(layer)).collect()).await
    }

    /// Makes an empty layer of the volume over the one below it, which may be in use. One that is there is left
    /// as it is.
    pub async fn add_layer(&self, volume: &VolumeSpec, layer: LayerId) -> Result<Made, PoolError> {
        let below =
            volume.layers.iter().take_while(|one| **one != layer).last().map(|below| self.layer(*below));
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
        let target = self.layer(layer);
        blocking("put a layer in place", move || {
            let _bases_stay = bases_stay;
            fs::set_permissions(unfinished.path(), Permissions::from_mode(PRIVATE_FILE))?;
            unfinished.publish_new(&target)
        })
        .await
    }

    /// Merges what lies between two layers of the chain into the lower one. What was merged stays behind: it is
    /// for others to say that nobody needs it. Repeated after any interruption, it comes to the same end.
    async fn merge_below(&self, volume: &VolumeSpec, index: usize) -> Result<(), PoolError> {
        let (below, above) = (self.layer(volume.layers[index - 1]), self.layer(volume.layers[index]));
        let (dir, top, target) = (self.inner().layout.layers(), above.clone(), below.clone());
        let between = blocking("follow a volume's chain", move || between(&dir, &target, &top)).await?;
        match between {
            Between::Nothing => Ok(()),
            Between::Layers(uppermost) => {
                tracing::info!(volume = %volume.id, into = %volume.layers[index - 1], "merging layers");
                qemu_img::commit(&uppermost, &below).await?;
                qemu_img::rebase(&above, &below).await
            }
            Between::Strangers => Err(PoolError::LostLayer(volume.layers[index - 1])),
        }
    }

    async fn grow(&self, volume: &VolumeSpec) -> Result<(), PoolError> {
        let Some(top) = volume.top().map(|top| self.layer(top)) else { return Ok(()) };
        let size_bytes = volume.size_gib.bytes();
        let measured = top.clone();
        let size = blocking("measure a volume", move || Ok(Header::read(&measured)?.size_bytes)).await?;
        if size < size_bytes { qemu_img::resize(&top, size_bytes).await } else { Ok(()) }
    }

    /// Removes layers that nobody needs any more; false when none of them was there.
    ///
    /// INVARIANT: none is removed that a process has open as a disk, whatever the hypervisor and the control plane
    /// believe.
    pub async fn remove_layers(&self, layers: &[LayerId]) -> Result<bool, PoolError> {
        let dir = self.inner().layout.layers();
        let paths: Vec<_> = layers.iter().map(|layer| self.layer(*layer)).collect();
        let (looked_at, layers) = (paths.clone(), layers.to_vec());
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
        blocking("remove layers", move || {
            let mut removed = false;
            for path in paths {
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

    /// Whether any of these layers is there.
    pub async fn has_any_layer(&self, layers: &[LayerId]) -> Result<bool, PoolError> {
        let paths: Vec<_> = layers.iter().map(|layer| self.layer(*layer)).collect();
        blocking("look for layers", move || {
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
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let mut lock = libc::flock {
        // What would stand in the way of a writer is any lock.
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: QEMU_LOCKS.start,
        l_len: QEMU_LOCKS.end - QEMU_LOCKS.start,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn are_made(base: Option<Utf8PathBuf>, layers: &[Utf8PathBuf], size_bytes: u64) -> io::Result<bool> {
    let (mut below, mut size) = (base, None);
    for layer in layers {
        if !exists(layer)? {
            return Ok(false);
        }
        let header = Header::read(layer)?;
        if header.backing != below {
            return Ok(false);
        }
        (below, size) = (Some(layer.clone()), Some(header.size_bytes));
    }
    Ok(size.is_none_or(|size| size >= size_bytes))
}

/// What lies between two layers.
enum Between {
    Nothing,
    /// Layers, of which this is the uppermost.
    Layers(Utf8PathBuf),
    /// The upper one does not stand on the lower one at all.
    Strangers,
}

fn between(dir: &Utf8Path, below: &Utf8Path, above: &Utf8Path) -> io::Result<Between> {
    let uppermost = Header::read(above)?.backing;
    if uppermost.as_deref() == Some(below) {
        return Ok(Between::Nothing);
    }
    let mut next = uppermost.clone();
    for _ in 0..MAX_LAYERS {
        match next {
            Some(path) if path == below => return Ok(uppermost.map_or(Between::Strangers, Between::Layers)),
            Some(path) if path.parent() == Some(dir) => next = Header::read(&path)?.backing,
            _ => break,
        }
    }
    Ok(Between::Strangers)
}

/// What the header of a qcow2 file of our own says (<https://www.qemu.org/docs/master/interop/qcow2.html>).
pub(crate) struct Header {
    pub(crate) backing: Option<Utf8PathBuf>,
    size_bytes: u64,
}

impl Header {
    pub(crate) fn read(path: &Utf8Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut fields = [0; 32];
        file.read_exact(&mut fields)?;
        let number = |at: usize| fields[at..at + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (name_at, name_length) = (number(8), number(16) >> 32);
        let mut name = vec![0; usize::try_from(name_length).unwrap_or(0).min(MAX_NAME_BYTES)];
        file.seek(SeekFrom::Start(name_at))?;
        file.read_exact(&mut name)?;
        let name = String::from_utf8(name).map_err(io::Error::other)?;
        Ok(Self { backing: (!name.is_empty()).then(|| name.into()), size_bytes: number(24) })
    }
}

//! Volumes: chains of qcow2 layers, the lowest over a cached image or over nothing.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use protocol::LayerId;
use protocol::agent::VolumeSpec;

use crate::durable::{PRIVATE_FILE, Unfinished, blocking, exists, sync_dir};
use crate::{Made, Pool, PoolError, qemu_img};

/// First writes to clusters of 128 KiB with subclusters are many times faster than to plain ones: a 4 KiB
/// write copies nothing from the layer below.
const OPTIONS: &str = "extended_l2=on,cluster_size=131072";
/// Where a qcow2 header has the size of the disk in it, in bytes and big endian
/// (<https://www.qemu.org/docs/master/interop/qcow2.html>).
const SIZE_OFFSET: u64 = 24;

/// What there is of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeFound {
    /// Its image is cached, or it has none.
    pub base: bool,
    /// All layers are there, and the top one is as large as it shall be.
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
            let base = base.map_or(Ok(true), |base| exists(&base))?;
            Ok(VolumeFound { base, made: are_made(&layers, size_bytes)? })
        })
        .await
    }

    /// Makes what is missing of a volume over its cached image, and grows it to its size. What is there keeps
    /// its content, and a layer that another stands on is not made anew: it would be an empty one.
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
        let layers = self.layers(volume);
        let mut below = match missing.checked_sub(1) {
            Some(index) => Some(layers[index].clone()),
            None => volume.image.as_ref().map(|image| self.base(image)),
        };
        let mut made = Made::Before;
        for layer in &layers[missing..] {
            made = self.make_layer(layer, below.as_deref(), volume.size_gib.bytes()).await?;
            below = Some(layer.clone());
        }
        self.grow(volume).await?;
        Ok(made)
    }

    async fn layers_there(&self, volume: &VolumeSpec) -> Result<Vec<bool>, PoolError> {
        let layers = self.layers(volume);
        blocking("look at a volume's files", move || layers.iter().map(|layer| exists(layer)).collect()).await
    }

    async fn make_layer(
        &self,
        target: &Utf8Path,
        backing: Option<&Utf8Path>,
        size_bytes: u64,
    ) -> Result<Made, PoolError> {
        let layer = Unfinished::new(self.inner().layout.fresh());
        qemu_img::create(layer.path(), OPTIONS, backing, size_bytes).await?;
        let target = target.to_owned();
        blocking("put a layer in place", move || {
            fs::set_permissions(layer.path(), Permissions::from_mode(PRIVATE_FILE))?;
            layer.publish_new(&target)
        })
        .await
    }

    async fn grow(&self, volume: &VolumeSpec) -> Result<(), PoolError> {
        let Some(top) = volume.top().map(|top| self.layer(top)) else { return Ok(()) };
        let size_bytes = volume.size_gib.bytes();
        let measured = top.clone();
        let size = blocking("measure a volume", move || disk_size(&measured)).await?;
        if size < size_bytes { qemu_img::resize(&top, size_bytes).await } else { Ok(()) }
    }

    /// Removes layers that nobody needs any more; false when none of them was there.
    pub async fn remove_layers(&self, layers: &[LayerId]) -> Result<bool, PoolError> {
        let dir = self.inner().layout.layers();
        let paths: Vec<_> = layers.iter().map(|layer| self.layer(*layer)).collect();
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

    fn layer(&self, id: LayerId) -> Utf8PathBuf {
        self.inner().layout.layer(id)
    }
}

fn are_made(layers: &[Utf8PathBuf], size_bytes: u64) -> io::Result<bool> {
    for layer in layers {
        if !exists(layer)? {
            return Ok(false);
        }
    }
    layers.last().map_or(Ok(true), |top| Ok(disk_size(top)? >= size_bytes))
}

/// The size of the disk in a file of our own.
fn disk_size(layer: &Utf8Path) -> io::Result<u64> {
    let mut size = [0; 8];
    let mut file = File::open(layer)?;
    file.seek(SeekFrom::Start(SIZE_OFFSET))?;
    file.read_exact(&mut size)?;
    Ok(u64::from_be_bytes(size))
}

//! Disks on their way out: one qcow2 file that stands on nothing, copied from a chain of layers.
//!
//! The file is compressed (zstd): it is sent, stored and fetched by hosts many times, and copied once, with what the
//! guests leave of the processors. What was never written, or is zero, is not in it.

use std::fs::{self, File};
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use protocol::agent::{MAX_LAYERS, VolumeSpec};
use protocol::image::{Format, ImageInfo};
use protocol::{GIB, LayerId};
use serde_json::{Value, json};

use crate::chain::Header;
use crate::durable::{Unfinished, blocking, exists};
use crate::made::MadeLayers;
use crate::sandbox::largest_output;
use crate::{Pool, PoolError, qemu_img};

const OPTIONS: &str = "compat=1.1,cluster_size=65536,compression_type=zstd";
/// Room that is left to the guests.
const HEADROOM_BYTES: u64 = GIB;

/// A finished copy. Its file goes with it.
#[derive(Debug)]
pub struct Export {
    file: Unfinished,
    size_bytes: u64,
}

impl Export {
    /// Length of the file.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Opens the file for reading.
    pub async fn open(&self) -> Result<File, PoolError> {
        let path = self.file.path().to_owned();
        blocking("open a copied disk", move || File::open(path)).await
    }
}

type Layer = (LayerId, Utf8PathBuf);

/// What a disk is made of.
struct Chain {
    /// From the bottom to the top.
    files: Vec<Utf8PathBuf>,
    /// What a guest sees.
    size_bytes: u64,
    /// An upper bound of the clusters that are in use.
    data_bytes: u64,
}

impl Pool {
    /// Copies the disk that the volume's chain makes. Others may read its layers meanwhile; while somebody writes to
    /// one, QEMU's locks refuse it. Layers at the top that were never made are empty. Dropping the future leaves nothing
    /// behind.
    ///
    /// # Errors
    /// [`PoolError::NoData`] when no layer was ever made, [`PoolError::LostLayer`] when one that was is not there, [`PoolError::Full`] when there might be too little room.
    pub async fn export(&self, volume: &VolumeSpec) -> Result<Export, PoolError> {
        let layout = &self.inner().layout;
        let layers: Vec<_> = volume.layers.iter().map(|layer| (*layer, layout.layer(*layer))).collect();
        let (folders, made) = ([layout.layers(), layout.images()], layout.made().clone());
        let found = blocking("follow a volume's chain", move || follow(&layers, &folders, &made)).await?;
        let chain = match found {
            Followed::Chain(chain) => chain,
            Followed::Nothing => return Err(PoolError::NoData(volume.id)),
            Followed::Lost(layer) => return Err(PoolError::LostLayer(layer)),
        };
        // It may have grown since a guest had it.
        let size_bytes = chain.size_bytes.max(volume.size_gib.bytes());
        let data_bytes = chain.data_bytes.min(size_bytes);
        let info = ImageInfo { format: Format::Qcow2, virtual_size_bytes: size_bytes, data_bytes };
        let largest = largest_output(&info);
        self.require_space(largest + HEADROOM_BYTES).await?;
        let file = Unfinished::new(self.inner().layout.fresh());
        qemu_img::create(file.path(), OPTIONS, None, size_bytes).await?;
        qemu_img::convert(&node(&chain.files), file.path(), largest).await?;
        let path = file.path().to_owned();
        let size_bytes = blocking("measure a copied disk", move || Ok(fs::metadata(path)?.len())).await?;
        Ok(Export { file, size_bytes })
    }
}

enum Followed {
    Chain(Chain),
    Nothing,
    /// Others stand on it, or it was made before, and it is not there.
    Lost(LayerId),
}

/// From the uppermost layer that is there down to the bottom. What a layer stands on says its header, since layers may
/// have been merged; whatever it says, only files of the pool are opened.
fn follow(layers: &[Layer], folders: &[Utf8PathBuf], made: &MadeLayers) -> io::Result<Followed> {
    let mut next = None;
    for (layer, path) in layers.iter().rev() {
        let was_made = made.has(*layer)?;
        if exists(path)? {
            next = Some(path.clone());
            break;
        }
        if was_made {
            return Ok(Followed::Lost(*layer));
        }
    }
    let mut chain = Chain { files: Vec::new(), size_bytes: 0, data_bytes: 0 };
    while let Some(path) = next {
        let is_ours = path.parent().is_some_and(|parent| folders.iter().any(|folder| folder == parent));
        if !is_ours || chain.files.len() > MAX_LAYERS {
            return Err(io::Error::other("a layer stands on something that is not ours"));
        }
        if !exists(&path)? {
            let lost = path.file_stem().and_then(|id| id.parse().ok());
            return lost.map(Followed::Lost).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        }
        let header = Header::read(&path)?;
        if chain.files.is_empty() {
            chain.size_bytes = header.size_bytes;
        }
        chain.data_bytes += fs::metadata(&path)?.len();
        chain.files.push(path);
        next = header.backing;
    }
    if chain.files.is_empty() {
        return Ok(Followed::Nothing);
    }
    chain.files.reverse();
    Ok(Followed::Chain(chain))
}

/// The chain as QEMU's block layer shall open it: these files in this format, for reading, nothing probed.
fn node(files: &[Utf8PathBuf]) -> Value {
    let over = |below: Value, file: &Utf8PathBuf| {
        let file = json!({"driver": "file", "filename": Utf8Path::as_str(file)});
        json!({"driver": "qcow2", "read-only": true, "backing": below, "file": file})
    };
    files.iter().fold(Value::Null, over)
}

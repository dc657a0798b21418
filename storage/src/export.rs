//! Disks on their way out: one qcow2 file that stands on nothing, copied from a chain of layers.
//!
//! The file is compressed (zstd): it is sent, stored and fetched by hosts many times, and copied once, with what the
//! guests leave of the processors. What was never written, or is zero, is not in it.

use std::fs::{self, File};
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use protocol::agent::VolumeSpec;
use protocol::image::{Format, ImageInfo};
use protocol::{GIB, LayerId};
use serde_json::{Value, json};

use crate::chain;
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

impl Chain {
    /// Adds a file of this layer under the others, and says what it stands on.
    fn add(&mut self, layer: LayerId, path: &Utf8Path) -> io::Result<Result<Option<Utf8PathBuf>, PoolError>> {
        if !exists(path)? {
            return Ok(Err(PoolError::LostLayer(layer)));
        }
        let header = match chain::read(layer, path)? {
            Ok(header) => header,
            Err(refused) => return Ok(Err(refused)),
        };
        if self.files.is_empty() {
            self.size_bytes = header.size_bytes;
        }
        self.data_bytes += fs::metadata(path)?.len();
        self.files.push(path.to_owned());
        Ok(Ok(header.backing))
    }
}

impl Pool {
    /// Copies the disk that the volume's chain makes. Others may read its layers meanwhile; while somebody writes to
    /// one, QEMU's locks refuse it. Layers at the top that were never made are empty. Dropping the future leaves nothing
    /// behind.
    ///
    /// # Errors
    /// [`PoolError::NoData`] when no layer was ever made, [`PoolError::LostLayer`] when one that was is not there,
    /// [`PoolError::Full`] when there might be too little room.
    pub async fn export(&self, volume: &VolumeSpec) -> Result<Export, PoolError> {
        let layout = &self.inner().layout;
        let layers: Vec<_> = volume.layers.iter().map(|layer| (*layer, layout.layer(*layer))).collect();
        let base = volume.image.as_ref().map(|image| layout.image(image.sha256));
        let made = layout.made().clone();
        let follow = move || follow(&layers, base.as_deref(), &made);
        let found = blocking("follow a volume's chain", follow).await??;
        let chain = found.ok_or(PoolError::NoData(volume.id))?;
        // It may have grown since a guest had it.
        let size_bytes = chain.size_bytes.max(volume.size_gib.bytes());
        let data_bytes = chain.data_bytes.min(size_bytes);
        let info = ImageInfo { format: Format::Qcow2, virtual_size_bytes: size_bytes, data_bytes };
        let largest = largest_output(&info);
        self.require_space(largest + HEADROOM_BYTES).await?;
        let file = Unfinished::new(self.inner().layout.fresh());
        qemu_img::create(file.path(), OPTIONS, None, size_bytes).await?;
        let files: Vec<_> = chain.files.iter().map(Utf8PathBuf::as_path).collect();
        qemu_img::convert(&node(&chain.files), &files, file.path(), largest).await?;
        let path = file.path().to_owned();
        let size_bytes = blocking("measure a copied disk", move || Ok(fs::metadata(path)?.len())).await?;
        Ok(Export { file, size_bytes })
    }
}

/// From the uppermost layer that is there down to the bottom; nothing when none was ever made. What a layer stands on
/// says its header, since layers may have been merged; whatever it says, only lower layers of the volume and its image
/// are opened.
fn follow(
    layers: &[Layer],
    base: Option<&Utf8Path>,
    made: &MadeLayers,
) -> io::Result<Result<Option<Chain>, PoolError>> {
    let mut top = None;
    for (place, (layer, path)) in layers.iter().enumerate().rev() {
        let was_made = made.has(*layer)?;
        if exists(path)? {
            top = Some(place);
            break;
        }
        if was_made {
            return Ok(Err(PoolError::LostLayer(*layer)));
        }
    }
    let Some(mut at) = top else { return Ok(Ok(None)) };
    let mut chain = Chain { files: Vec::new(), size_bytes: 0, data_bytes: 0 };
    loop {
        let (layer, path) = &layers[at];
        let backing = match chain.add(*layer, path)? {
            Ok(Some(backing)) => backing,
            Ok(None) => break,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Some(lower) = layers[..at].iter().position(|(_, lower)| *lower == backing) {
            at = lower;
            continue;
        }
        if Some(backing.as_path()) != base {
            return Ok(Err(PoolError::BrokenChain(*layer)));
        }
        match chain.add(*layer, &backing)? {
            Ok(None) => break,
            Ok(Some(_)) => return Ok(Err(PoolError::BrokenChain(*layer))),
            Err(refused) => return Ok(Err(refused)),
        }
    }
    chain.files.reverse();
    Ok(Ok(Some(chain)))
}

/// The chain as QEMU's block layer shall open it: these files in this format, for reading, nothing probed.
fn node(files: &[Utf8PathBuf]) -> Value {
    let over = |below: Value, file: &Utf8PathBuf| {
        let file = json!({"driver": "file", "filename": Utf8Path::as_str(file)});
        json!({"driver": "qcow2", "read-only": true, "backing": below, "file": file})
    };
    files.iter().fold(Value::Null, over)
}

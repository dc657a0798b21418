//! How the files of a volume stand on each other: read from their headers, compared with what shall be.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::LayerId;

use crate::PoolError;
use crate::durable::exists;
use crate::made::MadeLayers;

/// The longest name of a backing file that qcow2 has room for.
const MAX_NAME_BYTES: usize = 1023;

/// A chain as it shall be.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The image under the lowest layer.
    pub(crate) base: Option<Utf8PathBuf>,
    /// From the bottom to the top.
    pub(crate) layers: Vec<(LayerId, Utf8PathBuf)>,
    /// Those that may be missing between two others.
    pub(crate) merges: Vec<LayerId>,
    /// What says whether a layer that is missing was ever there.
    pub(crate) made: MadeLayers,
}

/// A chain as it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The layers that stand on each other, from the bottom to the top.
    pub(crate) standing: Vec<LayerId>,
    /// Those between them on which nothing stands any more.
    pub(crate) merged: Vec<LayerId>,
    /// Those that are missing at the top, from the bottom to the top.
    pub(crate) to_make: Vec<LayerId>,
    /// What a guest would see of the topmost.
    pub(crate) size_bytes: u64,
}

impl Chain {
    /// The lowest of `merges` that is still stood on, between the one below and the one above.
    pub(crate) fn next_merge(&self, merges: &[LayerId]) -> Option<[LayerId; 3]> {
        let three = self.standing.windows(3).find(|three| merges.contains(&three[1]))?;
        Some([three[0], three[1], three[2]])
    }
}

impl Wanted {
    /// Follows the chain from the topmost file that is there.
    pub(crate) fn look(&self) -> io::Result<Result<Chain, PoolError>> {
        // Before the files: a layer that somebody makes meanwhile is not lost.
        let made = self.made.those_of(self.layers.iter().map(|(layer, _)| *layer))?;
        let mut top = None;
        for (index, (_, path)) in self.layers.iter().enumerate() {
            if exists(path)? {
                top = Some(index);
            }
        }
        let above = self.layers.iter().skip(top.map_or(0, |top| top + 1)).map(|(layer, _)| *layer);
        let mut to_make: Vec<_> = above.collect();
        if let Some(lost) = to_make.iter().find(|layer| made.contains(layer)) {
            return Ok(Err(PoolError::LostLayer(*lost)));
        }
        // What is merged before it was ever made is not made.
        to_make.retain(|layer| !self.merges.contains(layer));
        let mut chain = Chain { to_make, ..Chain::default() };
        let mut next = top;
        while let Some(at) = next {
            let (layer, path) = &self.layers[at];
            if !exists(path)? {
                return Ok(Err(PoolError::LostLayer(*layer)));
            }
            let header = Header::read(path)?;
            if chain.standing.is_empty() {
                chain.size_bytes = header.size_bytes;
            }
            chain.standing.insert(0, *layer);
            next = match self.below(at, header.backing.as_deref()) {
                Some(below) => below,
                None => return Ok(Err(PoolError::BrokenChain(*layer))),
            };
            let between = &self.layers[next.map_or(0, |below| below + 1)..at];
            chain.merged.splice(0..0, between.iter().map(|(layer, _)| *layer));
        }
        Ok(Ok(chain))
    }

    /// On which layer the one at this place stands: `Some(None)` when it rightly is the lowest, `None` when it
    /// stands on something else than it shall.
    fn below(&self, at: usize, backing: Option<&Utf8Path>) -> Option<Option<usize>> {
        for place in (0..at).rev() {
            let (layer, path) = &self.layers[place];
            if backing == Some(path) {
                return Some(Some(place));
            }
            if !self.merges.contains(layer) {
                return None;
            }
        }
        (at == 0 && backing == self.base.as_deref()).then_some(None)
    }
}

/// What the header of a qcow2 file of our own says (<https://www.qemu.org/docs/master/interop/qcow2.html>).
pub(crate) struct Header {
    pub(crate) backing: Option<Utf8PathBuf>,
    pub(crate) size_bytes: u64,
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

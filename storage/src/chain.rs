//! How the files of a volume stand on each other: read from their headers, compared with what shall be.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use protocol::LayerId;

use crate::PoolError;
use crate::durable::exists;
use crate::header::Header;
use crate::made::MadeLayers;

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
        // Only what is to be made is asked about: what stands was not removed.
        if let Some(removed) = self.made.removed_of(to_make.iter().copied())?.first() {
            return Ok(Err(PoolError::RemovedLayer(*removed)));
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
            let header = match read(*layer, path)? {
                Ok(header) => header,
                Err(refused) => return Ok(Err(refused)),
            };
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
        match (&self.base, chain.standing.first()) {
            (Some(base), Some(lowest)) if exists(base)? => Ok(match read(*lowest, base)? {
                Ok(Header { backing: None, .. }) => Ok(chain),
                Ok(_) => Err(PoolError::BrokenChain(*lowest)),
                Err(refused) => Err(refused),
            }),
            _ => Ok(Ok(chain)),
        }
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

/// The header of a file that is this layer, or that it stands on.
pub(crate) fn read(layer: LayerId, path: &Utf8Path) -> io::Result<Result<Header, PoolError>> {
    match Header::read(path) {
        Err(why) if why.kind() == io::ErrorKind::InvalidData => Ok(Err(PoolError::UnsafeLayer(layer, why))),
        read => read.map(Ok),
    }
}

//! What can go wrong in a pool, and whose fault it is.

use std::io;
use std::sync::Arc;

use protocol::image::InspectError;
use protocol::{LayerId, Name, Sha256, SizeGib, VolumeId};
use thiserror::Error;

use crate::Unusable;
use crate::sandbox::SandboxError;

/// A pool could not do what was asked. No message holds a path.
#[derive(Debug, Error)]
pub enum PoolError {
    #[error("could not {attempted}")]
    Io {
        attempted: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the pool is in use by another process")]
    InUse,
    #[error(
        "the folder is not the pool that this host had: is its file system mounted? Mount it. Should that pool be lost for \
         good, remove identity.json of the record beside it, and this folder becomes the host's pool"
    )]
    OtherPool,
    #[error("the shared pool {pool} cannot be used")]
    Unusable {
        pool: Name,
        #[source]
        why: Unusable,
    },
    #[error("image {0} could not be fetched")]
    Fetch(Sha256, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("image {image} has {expected} bytes, but its source sent {}{got}", if got > expected { "at least " } else { "" })]
    Length { image: Sha256, expected: u64, got: u64 },
    #[error("the bytes sent for image {expected} have the digest {got}")]
    Digest { expected: Sha256, got: Sha256 },
    #[error("image {0} is refused")]
    Refused(Sha256, #[source] InspectError),
    #[error("image {image} was said to hold a disk of {expected} bytes and holds one of {got}")]
    VirtualSize { image: Sha256, expected: u64, got: u64 },
    #[error("image {0} could not be converted")]
    Convert(Sha256, #[source] SandboxError),
    #[error("the conversion of image {0} made something else")]
    Converted(Sha256, #[source] Option<InspectError>),
    #[error("the pool has {free} bytes left and {needed} are needed")]
    Full { needed: u64, free: u64 },
    #[error("a disk of {size} GiB cannot hold an image of {virtual_size_bytes} bytes")]
    DiskTooSmall { size: SizeGib, virtual_size_bytes: u64 },
    #[error("image {0} is not in the cache")]
    NoBase(Sha256),
    #[error("layer {0} of a volume is lost: it was made, and its file is not there")]
    LostLayer(LayerId),
    #[error("layer {0} of a volume was removed here by order: what it held is gone")]
    RemovedLayer(LayerId),
    #[error("layer {0} of a volume does not stand on the one that it shall stand on")]
    BrokenChain(LayerId),
    #[error("layer {0} of a volume, or what it stands on, must not be opened")]
    UnsafeLayer(LayerId, #[source] io::Error),
    #[error("layer {0} of a volume is in use")]
    LayerInUse(LayerId),
    #[error("layer {0} is not taken from another host: {1}")]
    NotTaken(LayerId, &'static str),
    #[error("nothing was ever written to volume {0} here")]
    NoData(VolumeId),
    #[error("qemu-img could not {attempted}")]
    QemuImg {
        attempted: &'static str,
        #[source]
        source: io::Error,
    },
    /// The outcome of another call for the same image.
    #[error(transparent)]
    Shared(Arc<PoolError>),
}

/// Where to look for the cause of a [`PoolError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Where the bytes came from. Trying again may help.
    Source,
    /// The image or the request itself. Trying again does not help.
    Image,
    /// Nothing; there is no room.
    Space,
    /// A shared pool that this host does not reach. Trying again may help.
    Reach,
    /// The files of a volume: they are not those that are named, and were left as they are.
    Chain,
    /// The volume itself: it was deleted here. Trying again does not help.
    Deleted,
    /// This host.
    Host,
}

impl PoolError {
    pub fn blame(&self) -> Blame {
        match self {
            Self::Fetch(..) | Self::Length { .. } | Self::Digest { .. } | Self::NotTaken(..) => Blame::Source,
            Self::Refused(_, why) if why.is_refusal() => Blame::Image,
            Self::VirtualSize { .. } | Self::DiskTooSmall { .. } | Self::NoData(_) => Blame::Image,
            Self::Convert(_, why) if why.blames_image() => Blame::Image,
            Self::Full { .. } => Blame::Space,
            Self::Unusable { .. } => Blame::Reach,
            Self::RemovedLayer(_) => Blame::Deleted,
            Self::LostLayer(_) | Self::BrokenChain(_) | Self::UnsafeLayer(..) => Blame::Chain,
            Self::Io { source, .. } | Self::QemuImg { source, .. } if is_full(source) => Blame::Space,
            Self::Shared(error) => error.blame(),
            _ => Blame::Host,
        }
    }

    pub(crate) fn io(attempted: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { attempted, source }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

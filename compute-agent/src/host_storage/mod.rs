//! What the agent needs of its disks: the pools of the host, and a strict simulation of one.

mod local;
mod place;
mod pools;
mod simulated;

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use camino::Utf8PathBuf;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use protocol::agent::{CopiedLayer, ImageSource, InstanceSpec, MemoryFile, SharedPoolReport, VolumeSpec};
use protocol::{InstanceId, LayerId, MemoryMib, MigrationId, Name, Sha256, VolumeId};
use thiserror::Error;

pub use place::{LocalPool, OwnPool};
pub use pools::Pools;
pub use simulated::SimulatedStorage;
pub use storage::{Needed, Usage, Users};

/// An image's bytes on their way in, or out.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;
/// Asks for an image's bytes; polled only when the cache lacks them.
pub type Fetch<'a> = BoxFuture<'a, Result<ByteStream, BoxError>>;
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The seam between the reconciler and the disks. Every `ensure_…` may be repeated at any time, and what an
/// interrupted one left behind is never taken for a finished file.
#[async_trait]
pub trait HostStorage: Send + Sync + 'static {
    /// What there is for an instance, with volumes that no guest uses, and volumes that its guest uses.
    async fn look(
        &self,
        id: InstanceId,
        idle: &[&VolumeSpec],
        in_use: &[&VolumeSpec],
        doomed: Doomed<'_>,
    ) -> Result<Files, HostStorageError>;

    /// Why nothing can be done with any disk now, for the operator of the host. Whatever is asked fails meanwhile.
    async fn trouble(&self) -> Option<String>;

    /// Where the instance's files are, or will be.
    async fn places(&self, id: InstanceId) -> Result<Places, HostStorageError>;

    /// Where a layer is, or will be, in a shared pool or the host's own.
    async fn layer(&self, pool: Option<&Name>, id: LayerId) -> Result<Utf8PathBuf, HostStorageError>;

    /// The files of a volume that is made, as they stand on each other now: without what is merged.
    async fn chain(&self, volume: &VolumeSpec) -> Result<Chain, HostStorageError>;

    /// Brings the image into the cache of a shared pool or the host's own. Of those who need one image, a single one
    /// fetches it. Images of the host's own that are not `needed` give way to it.
    async fn ensure_base(
        &self,
        pool: Option<&Name>,
        image: &ImageSource,
        needed: Needed<'_>,
        fetch: Fetch<'_>,
    ) -> Result<(), HostStorageError>;

    /// Evicts images that nobody needs while the cache is larger than it may be.
    async fn trim_images(&self, needed: Needed<'_>) -> Result<(), HostStorageError>;

    /// What the host's own pool takes and has left.
    async fn usage(&self) -> Result<Usage, HostStorageError>;

    /// Makes what is missing at the top of a volume that nobody uses, over its cached image, and grows it to its
    /// size. What is there keeps its content.
    async fn ensure_volume(&self, volume: &VolumeSpec) -> Result<(), HostStorageError>;

    /// Makes an empty layer of the volume over another, which may be in use.
    async fn add_layer(
        &self,
        volume: &VolumeSpec,
        layer: LayerId,
        below: LayerId,
    ) -> Result<(), HostStorageError>;

    /// Merges the layers that shall be merged, of a volume that is made and that nobody uses.
    async fn merge_layers(&self, volume: &VolumeSpec) -> Result<(), HostStorageError>;

    /// A place for so much memory of a guest, in a shared pool or the host's own.
    ///
    /// # Errors
    /// [`HostStorageError::Full`] when there might be too little room.
    async fn new_memory(
        &self,
        pool: Option<&Name>,
        size: MemoryMib,
    ) -> Result<Box<dyn UnfinishedMemory>, HostStorageError>;

    /// Where a guest's memory is, if it is there.
    async fn memory(&self, file: &MemoryFile) -> Result<Option<Utf8PathBuf>, HostStorageError>;

    /// Makes the seed, replacing another.
    async fn ensure_seed(&self, spec: &InstanceSpec) -> Result<(), HostStorageError>;

    /// Removes everything that is the instance's own; volumes and cached images stay.
    async fn remove_instance(&self, id: InstanceId) -> Result<(), HostStorageError>;

    /// Removes layers of volumes. Layers that are not there are as good as removed.
    async fn remove_layers(&self, doomed: Doomed<'_>) -> Result<(), HostStorageError>;

    /// Copies the disk that a volume's chain makes into one qcow2 file that needs no other. Others may read its layers
    /// meanwhile, nobody may write to them. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// [`HostStorageError::Image`] when there is nothing to copy.
    async fn export(&self, volume: &VolumeSpec) -> Result<Box<dyn ExportedDisk>, HostStorageError>;

    /// Whether a layer of the host's own is there, whole.
    async fn has_layer(&self, layer: LayerId) -> Result<bool, HostStorageError>;

    /// Whether a layer has come by that move.
    ///
    /// # Errors
    /// When a file of that name is there that has not.
    async fn has_come(&self, layer: LayerId, by: MigrationId) -> Result<bool, HostStorageError>;

    /// Opens a layer of the host's own that nobody else uses but these, for another host; nothing when it was never made.
    async fn lend_layer(
        &self,
        layer: LayerId,
        users: Users,
    ) -> Result<Option<Box<dyn LentDisk>>, HostStorageError>;

    /// Makes an empty layer for what a guest of another host writes to, unless it is there by that move.
    async fn fresh_layer(&self, of: &CopiedLayer, by: MigrationId) -> Result<(), HostStorageError>;

    /// A place for a layer of so many bytes that comes from another host.
    ///
    /// # Errors
    /// [`HostStorageError::Full`] when there is too little room.
    async fn new_layer(
        &self,
        of: &CopiedLayer,
        size_bytes: u64,
        needed: Needed<'_>,
    ) -> Result<Box<dyn NewDisk>, HostStorageError>;

    /// The newest part of the serial log.
    async fn serial_tail(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HostStorageError>;

    /// The shared pools that this host was told of, each as it is now. Takes some seconds when one does not answer.
    async fn shared_pools(&self) -> Vec<SharedPoolReport>;
}

/// Layers that nobody needs any more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Doomed<'a> {
    pub layers: &'a [LayerId],
    /// The shared pools that some of them are in; the others are in the host's own.
    pub pools: &'a [Name],
}

/// A guest's memory that is being written, which goes when this is dropped.
#[async_trait]
pub trait UnfinishedMemory: Send + Sync {
    /// Where it is to be written.
    fn path(&self) -> Utf8PathBuf;

    /// Writes down what was written.
    async fn flush(&self) -> Result<(), HostStorageError>;

    /// Gives it its name, under which it stays.
    async fn publish(self: Box<Self>, id: LayerId) -> Result<(), HostStorageError>;
}

/// A layer that another host is given.
#[async_trait]
pub trait LentDisk: Send + Sync {
    /// Length of the file when it was opened.
    fn size_bytes(&self) -> u64;

    /// The file from its beginning.
    async fn read(&self) -> Result<ByteStream, HostStorageError>;

    /// Fails when somebody has written to it since it was opened, or is about to.
    async fn is_unchanged(&self) -> Result<(), HostStorageError>;
}

/// A layer that comes from another host, which goes when this is dropped.
#[async_trait]
pub trait NewDisk: Send + Sync {
    /// Adds what comes next.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), HostStorageError>;

    /// Puts it in place, if it is what was to come by that move.
    async fn publish(self: Box<Self>, sha256: Sha256, by: MigrationId) -> Result<(), HostStorageError>;
}

/// A copied disk, which goes when this is dropped.
#[async_trait]
pub trait ExportedDisk: Send + Sync {
    /// Length of the file.
    fn size_bytes(&self) -> u64;

    /// The file from its beginning.
    async fn read(&self) -> Result<ByteStream, HostStorageError>;
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// The cached images of all idle volumes.
    pub bases: bool,
    /// All idle volumes, made and as large as they shall be.
    pub volumes: bool,
    /// The idle volumes that have layers to merge.
    pub to_merge: Vec<VolumeId>,
    /// The layers of all volumes that shall be merged and, so say the files, are.
    pub merged: Vec<LayerId>,
    pub seed: bool,
    /// Anything of the instance's own, or of its doomed layers.
    pub any: bool,
}

/// Where an instance's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    pub seed: Utf8PathBuf,
    pub serial_log: Utf8PathBuf,
}

/// Where a volume's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The cached image, if it stands on one.
    pub base: Option<Utf8PathBuf>,
    /// From the bottom to the top.
    pub layers: Vec<Utf8PathBuf>,
}

#[derive(Debug, Error)]
pub enum HostStorageError {
    #[error("the image could not be fetched")]
    Fetch(#[source] BoxError),
    #[error("the image or what is asked of it is refused")]
    Image(#[source] BoxError),
    #[error("the pool has no room")]
    Full(#[source] BoxError),
    #[error("the files of a volume are not those that it shall have")]
    Chain(#[source] BoxError),
    #[error("a volume was deleted here before")]
    Deleted(#[source] BoxError),
    #[error("a shared pool cannot be reached")]
    Reach(#[source] BoxError),
    #[error("the pool failed")]
    Pool(#[source] BoxError),
}

/// What the owner of an instance reads of a volume whose layers are not those that it shall have.
pub const BROKEN_CHAIN: &str = "The layers of a disk are not those that it shall have. Nothing of it was changed: \
     the operator of the host has to look at it.";

/// The same of one that was deleted, and is wanted again: by a control plane whose database is older than that.
pub const DELETED_DISK: &str = "A disk of it was deleted on this host: what it held is gone, and no empty one is made in \
     its place. Delete the instance.";

impl HostStorageError {
    /// The sentence for the instance's owner: no paths, no host names.
    pub const fn detail(&self) -> &'static str {
        match self {
            Self::Fetch(_) => "The image could not be brought to the host yet.",
            Self::Image(_) => "The disk cannot be made from this image.",
            Self::Full(_) => "The host has no disk space left.",
            Self::Chain(_) => BROKEN_CHAIN,
            Self::Deleted(_) => DELETED_DISK,
            Self::Reach(_) => {
                "The shared pool of a volume cannot be reached from the host. It tries again by itself."
            }
            Self::Pool(_) => "The host's storage failed.",
        }
    }
}

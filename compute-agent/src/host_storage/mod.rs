//! What the agent needs of its disks: the local pool, and a strict simulation of one.

mod local;
mod simulated;

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use camino::Utf8PathBuf;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use protocol::InstanceId;
use protocol::agent::{ImageSource, InstanceSpec};
use thiserror::Error;

pub use local::LocalPool;
pub use simulated::SimulatedStorage;

/// An image's bytes on their way in.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;
/// Asks for an image's bytes; polled only when the cache lacks them.
pub type Fetch<'a> = BoxFuture<'a, Result<ByteStream, BoxError>>;
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The seam between the reconciler and the disks. Every `ensure_…` may be repeated at any time, and what an
/// interrupted one left behind is never taken for a finished file.
#[async_trait]
pub trait HostStorage: Send + Sync + 'static {
    /// What there is for an instance. `image` is the one its disk is made from, when it is known.
    async fn look(&self, id: InstanceId, image: Option<&ImageSource>) -> Result<Files, HostStorageError>;

    /// Where the instance's files are, or will be.
    fn places(&self, id: InstanceId, image: &ImageSource) -> Places;

    /// Brings the image into the cache. Of those who need one image, a single one fetches it.
    async fn ensure_base(&self, image: &ImageSource, fetch: Fetch<'_>) -> Result<(), HostStorageError>;

    /// Makes the root disk over its cached image; one that exists is left as it is.
    async fn ensure_overlay(&self, spec: &InstanceSpec) -> Result<(), HostStorageError>;

    /// Makes the seed, replacing another.
    async fn ensure_seed(&self, spec: &InstanceSpec) -> Result<(), HostStorageError>;

    /// Removes everything that is the instance's own; the cached image stays.
    async fn remove_instance(&self, id: InstanceId) -> Result<(), HostStorageError>;

    /// The newest part of the serial log.
    async fn serial_tail(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HostStorageError>;
}

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Files {
    /// The cached image.
    pub base: bool,
    pub overlay: bool,
    pub seed: bool,
    /// Anything of the instance's own.
    pub any: bool,
}

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    pub base: Utf8PathBuf,
    pub overlay: Utf8PathBuf,
    pub seed: Utf8PathBuf,
    pub serial_log: Utf8PathBuf,
}

#[derive(Debug, Error)]
pub enum HostStorageError {
    #[error("the image could not be fetched")]
    Fetch(#[source] BoxError),
    #[error("the image or what is asked of it is refused")]
    Image(#[source] BoxError),
    #[error("the pool has no room")]
    Full(#[source] BoxError),
    #[error("the pool failed")]
    Pool(#[source] BoxError),
}

impl HostStorageError {
    /// The sentence for the instance's owner: no paths, no host names.
    pub const fn detail(&self) -> &'static str {
        match self {
            Self::Fetch(_) => "The image could not be brought to the host yet.",
            Self::Image(_) => "The disk cannot be made from this image.",
            Self::Full(_) => "The host has no disk space left.",
            Self::Pool(_) => "The host's storage failed.",
        }
    }
}

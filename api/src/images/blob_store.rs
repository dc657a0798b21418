//! The image store: one object per blob, named by our own id and never by anything a user said.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Bytes;
use camino::{Utf8Path, Utf8PathBuf};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart};
use protocol::{BlobId, Sha256};
use sha2::Digest;
use thiserror::Error;

/// Parts in flight between the client and the store; with their length they bound the memory of one upload.
const CHUNKS_IN_FLIGHT: usize = 2;
/// What a folder takes at once.
const LOCAL_CHUNK_BYTES: usize = 4 << 20;
/// S3 refuses parts below 5 MiB, and more than 10 000 of them.
const S3_CHUNK_BYTES: u64 = 8 << 20;
const S3_CHUNKS: u64 = 9_000;
/// Enough for the largest file.
const S3_CHUNK_BYTES_OF_UNKNOWN: u64 = 32 << 20;

#[derive(Debug, Error)]
pub enum ImageStoreError {
    #[error("cannot prepare the image store at {place}")]
    Open {
        place: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot {attempted} a blob")]
    Blob {
        attempted: &'static str,
        #[source]
        source: object_store::Error,
    },
    #[error("cannot remove an unfinished blob")]
    Unfinished { source: std::io::Error },
}

/// Why nothing was received.
#[derive(Debug, Error)]
pub(super) enum ReceiveError<E> {
    #[error("the sender broke off")]
    Sender(E),
    #[error("more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error(transparent)]
    Store(#[from] ImageStoreError),
}

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub sha256: Sha256,
    pub size_bytes: u64,
}

/// A blob as the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    /// `None` for an object that is named like no blob of ours.
    pub id: Option<BlobId>,
    pub size_bytes: u64,
}

/// A directory, or a bucket.
#[derive(Clone, Debug)]
pub struct ImageStore {
    objects: Arc<dyn ObjectStore>,
    /// Of a store in a directory.
    directory: Option<Utf8PathBuf>,
}

impl ImageStore {
    /// A store in a directory of ours.
    pub fn local(directory: &Utf8Path) -> Result<Self, ImageStoreError> {
        let error = |source: Box<dyn std::error::Error + Send + Sync>| ImageStoreError::Open {
            place: directory.to_string(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(|source| error(source.into()))?;
        // What was acknowledged survives a power cut.
        let objects = LocalFileSystem::new_with_prefix(directory)
            .map_err(|source| error(source.into()))?
            .with_fsync(true);
        Ok(Self { objects: Arc::new(objects), directory: Some(directory.to_owned()) })
    }

    /// A store that is a service.
    pub(super) fn remote(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, directory: None }
    }

    /// Streams a blob in, hashing as it goes. What fails leaves at most an unfinished object, which
    /// [`ImageStore::remove`] removes. `length` is a guess, and bounds nothing.
    pub(super) async fn receive<E>(
        &self,
        id: BlobId,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
        length: Option<u64>,
        limit: u64,
    ) -> Result<Received, ReceiveError<E>> {
        let upload = self.objects.put_multipart(&key(id)).await.map_err(failed("begin"))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, self.chunk_bytes(length));
        match copy(&mut body, &mut writer, limit).await {
            Ok(received) => {
                writer.finish().await.map_err(failed("finish"))?;
                Ok(received)
            }
            Err(error) => {
                if let Err(abort) = writer.abort().await {
                    tracing::warn!(%abort, blob = %id, "an unfinished upload stays until the next sweep");
                }
                Err(error)
            }
        }
    }

    fn chunk_bytes(&self, length: Option<u64>) -> usize {
        if self.directory.is_some() {
            return LOCAL_CHUNK_BYTES;
        }
        let bytes =
            length.map_or(S3_CHUNK_BYTES_OF_UNKNOWN, |length| S3_CHUNK_BYTES.max(length.div_ceil(S3_CHUNKS)));
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Some bytes of a blob.
    pub(super) async fn read(&self, id: BlobId, range: Range<u64>) -> Result<Bytes, object_store::Error> {
        self.objects.get_range(&key(id), range).await
    }

    /// The bytes of a blob.
    pub(crate) async fn stream(
        &self,
        id: BlobId,
    ) -> Result<BoxStream<'static, Result<Bytes, object_store::Error>>, ImageStoreError> {
        let object = self.objects.get(&key(id)).await.map_err(failed("open"))?;
        Ok(object.into_stream().boxed())
    }

    /// Some bytes of a blob, which may be many. The range must not be empty.
    pub(super) async fn stream_range(
        &self,
        id: BlobId,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, object_store::Error>>, ImageStoreError> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let object = self.objects.get_opts(&key(id), options).await.map_err(failed("open"))?;
        Ok(object.into_stream().boxed())
    }

    /// The length of a blob, if it is there.
    pub(super) async fn size(&self, id: BlobId) -> Result<Option<u64>, ImageStoreError> {
        match self.objects.head(&key(id)).await {
            Ok(object) => Ok(Some(object.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(ImageStoreError::Blob { attempted: "look at", source }),
        }
    }

    /// Everything that is finished.
    pub(super) fn list(&self) -> BoxStream<'static, Result<Listed, ImageStoreError>> {
        let listed = |object: object_store::ObjectMeta| Listed {
            id: object.location.filename().and_then(|name| name.parse().ok()),
            size_bytes: object.size,
        };
        self.objects.list(None).map_ok(listed).map_err(failed("list")).boxed()
    }

    /// Removes a blob, finished or not. Nothing there is as good as removed.
    pub(super) async fn remove(&self, id: BlobId) -> Result<(), ImageStoreError> {
        match self.objects.delete(&key(id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => self.remove_unfinished(id).await,
            Err(source) => Err(ImageStoreError::Blob { attempted: "remove", source }),
        }
    }

    /// A receiver that was killed leaves its bytes under the name that the folder gives to the one and only
    /// unfinished upload of an object. A bucket removes such uploads by a rule of its own.
    async fn remove_unfinished(&self, id: BlobId) -> Result<(), ImageStoreError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let path = directory.join(format!("{}#1", key(id)));
        match tokio::fs::remove_file(&path).await {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(ImageStoreError::Unfinished { source })
            }
            _ => Ok(()),
        }
    }
}

async fn copy<E>(
    body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    writer: &mut WriteMultipart,
    limit: u64,
) -> Result<Received, ReceiveError<E>> {
    let mut hasher = sha2::Sha256::new();
    let mut size_bytes = 0;
    while let Some(chunk) = body.try_next().await.map_err(ReceiveError::Sender)? {
        size_bytes += chunk.len() as u64;
        if size_bytes > limit {
            return Err(ReceiveError::TooLarge { limit });
        }
        hasher.update(&chunk);
        writer.wait_for_capacity(CHUNKS_IN_FLIGHT).await.map_err(failed("write"))?;
        writer.put(chunk);
    }
    Ok(Received { sha256: Sha256::from_bytes(hasher.finalize().into()), size_bytes })
}

fn key(id: BlobId) -> Path {
    Path::from(format!("blobs/{id}"))
}

fn failed(attempted: &'static str) -> impl Fn(object_store::Error) -> ImageStoreError {
    move |source| ImageStoreError::Blob { attempted, source }
}

//! The image store: one object per blob, named by our own id and never by anything a user said.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Bytes;
use camino::{Utf8Path, Utf8PathBuf};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use protocol::{BlobId, Sha256};
use sha2::Digest;
use thiserror::Error;

/// Parts in flight between the client and the disk; bounds the memory of one upload.
const CHUNK_BYTES: usize = 4 << 20;
const CHUNKS_IN_FLIGHT: usize = 2;

#[derive(Debug, Error)]
pub enum ImageStoreError {
    #[error("cannot prepare the image store at {path}")]
    Open {
        path: Utf8PathBuf,
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
    #[error("the sender broke off")]
    Sender(#[source] axum::Error),
    #[error("more than {limit} bytes")]
    TooLarge { limit: u64 },
}

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub sha256: Sha256,
    pub size_bytes: u64,
}

/// A directory today; any object store tomorrow.
#[derive(Clone, Debug)]
pub struct ImageStore {
    objects: Arc<dyn ObjectStore>,
    directory: Utf8PathBuf,
}

impl ImageStore {
    /// A store in a directory of ours.
    pub fn local(directory: &Utf8Path) -> Result<Self, ImageStoreError> {
        let error = |source: Box<dyn std::error::Error + Send + Sync>| ImageStoreError::Open {
            path: directory.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(|source| error(source.into()))?;
        // What was acknowledged survives a power cut.
        let objects = LocalFileSystem::new_with_prefix(directory)
            .map_err(|source| error(source.into()))?
            .with_fsync(true);
        Ok(Self { objects: Arc::new(objects), directory: directory.to_owned() })
    }

    /// Streams a blob in, hashing as it goes. What fails leaves at most an unfinished object, which
    /// [`ImageStore::remove`] removes.
    pub(super) async fn receive(
        &self,
        id: BlobId,
        mut body: impl Stream<Item = Result<Bytes, axum::Error>> + Unpin,
        limit: u64,
    ) -> Result<Received, ImageStoreError> {
        let upload = self.objects.put_multipart(&key(id)).await.map_err(failed("begin"))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, CHUNK_BYTES);
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

    /// Removes a blob, finished or not. Nothing there is as good as removed.
    pub(super) async fn remove(&self, id: BlobId) -> Result<(), ImageStoreError> {
        match self.objects.delete(&key(id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => self.remove_unfinished(id).await,
            Err(source) => Err(ImageStoreError::Blob { attempted: "remove", source }),
        }
    }

    /// A receiver that was killed leaves its bytes under the name that the store gives to the one and only
    /// unfinished upload of an object.
    async fn remove_unfinished(&self, id: BlobId) -> Result<(), ImageStoreError> {
        let path = self.directory.join(format!("{}#1", key(id)));
        match tokio::fs::remove_file(&path).await {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(ImageStoreError::Unfinished { source })
            }
            _ => Ok(()),
        }
    }
}

async fn copy(
    body: &mut (impl Stream<Item = Result<Bytes, axum::Error>> + Unpin),
    writer: &mut WriteMultipart,
    limit: u64,
) -> Result<Received, ImageStoreError> {
    let mut hasher = sha2::Sha256::new();
    let mut size_bytes = 0;
    while let Some(chunk) = body.try_next().await.map_err(ImageStoreError::Sender)? {
        size_bytes += chunk.len() as u64;
        if size_bytes > limit {
            return Err(ImageStoreError::TooLarge { limit });
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

fn failed(attempted: &'static str) -> impl FnOnce(object_store::Error) -> ImageStoreError {
    move |source| ImageStoreError::Blob { attempted, source }
}

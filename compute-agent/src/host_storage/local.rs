//! A single pool behind [`HostStorage`].

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use futures_util::{StreamExt, TryStreamExt};
use protocol::agent::{ImageSource, InstanceSpec, MemoryFile, SharedPoolReport, VolumeSpec};
use protocol::{InstanceId, LayerId, MIB, MemoryMib, Name};
use storage::{Blame, Export, NewMemory, Options, Pool, PoolError, SharedRoot, Usable};
use tokio_util::io::ReaderStream;

use super::{
    BoxError, ByteStream, Chain, Doomed, ExportedDisk, Fetch, Files, HostStorage, HostStorageError, Needed,
    Places, UnfinishedMemory, Usage,
};

/// What is read of a copied disk at once.
const READ_BYTES: usize = 256 << 10;

/// Disks as qcow2 files in a folder of this host.
#[derive(Debug, Clone)]
pub struct LocalPool {
    pool: Pool,
}

impl LocalPool {
    /// Opens the pool, which is made when it is missing, and clears away what an earlier agent left
    /// unfinished. The folder `record` is to be on the file system of the host's own state: it tells a pool that is not
    /// mounted from a new one. Cached images may take so much; a share of the file system unless given.
    pub fn open(
        root: &Utf8Path,
        record: &Utf8Path,
        image_cache_bytes: Option<u64>,
    ) -> Result<Self, PoolError> {
        Ok(Self {
            pool: Pool::open(
                root,
                Options { image_cache_bytes, record: Some(record.to_owned()), ..Options::new()? },
            )?,
        })
    }

    /// A shared pool beside this one.
    pub(super) fn beside(&self, root: SharedRoot) -> Self {
        Self { pool: self.pool.shared(root) }
    }

    /// Whether a shared pool can be used now. Of one that is not shared there is nothing to say.
    pub(super) async fn usable(&self) -> Result<Option<Usable>, PoolError> {
        self.pool.usable().await
    }

    pub(super) async fn has_any_layer(&self, layers: &[LayerId]) -> Result<bool, PoolError> {
        self.pool.has_any_layer(layers).await
    }
}

impl From<PoolError> for HostStorageError {
    fn from(error: PoolError) -> Self {
        match error.blame() {
            Blame::Source => Self::Fetch(error.into()),
            Blame::Image => Self::Image(error.into()),
            Blame::Space => Self::Full(error.into()),
            Blame::Reach => Self::Reach(error.into()),
            Blame::Chain => Self::Chain(error.into()),
            Blame::Host => Self::Pool(error.into()),
        }
    }
}

#[async_trait]
impl HostStorage for LocalPool {
    async fn look(
        &self,
        id: InstanceId,
        idle: &[&VolumeSpec],
        in_use: &[&VolumeSpec],
        doomed: Doomed<'_>,
    ) -> Result<Files, HostStorageError> {
        let found = self.pool.look(id).await?;
        let any = found.any || self.pool.has_any_layer(doomed.layers).await?;
        let mut files = Files { bases: true, volumes: true, seed: found.seed, any, ..Files::default() };
        for volume in idle {
            let found = self.pool.look_at_volume(volume).await?;
            files.bases &= found.base;
            files.volumes &= found.made;
            if !found.broken && volume.merges.iter().any(|layer| !found.merged.contains(layer)) {
                files.to_merge.push(volume.id);
            }
            files.merged.extend(found.merged);
        }
        for volume in in_use.iter().filter(|volume| !volume.merges.is_empty()) {
            files.merged.extend(self.pool.look_at_volume(volume).await?.merged);
        }
        Ok(files)
    }

    fn places(&self, id: InstanceId) -> Places {
        let paths = self.pool.paths(id);
        Places { seed: paths.seed, serial_log: paths.serial_log }
    }

    fn layer(&self, _: Option<&Name>, id: LayerId) -> Utf8PathBuf {
        self.pool.layer(id)
    }

    async fn chain(&self, volume: &VolumeSpec) -> Result<Chain, HostStorageError> {
        let base = volume.image.as_ref().map(|image| self.pool.base(image));
        Ok(Chain { base, layers: self.pool.layers(volume).await? })
    }

    async fn ensure_base(
        &self,
        _: Option<&Name>,
        image: &ImageSource,
        needed: Needed<'_>,
        fetch: Fetch<'_>,
    ) -> Result<(), HostStorageError> {
        let fetch = || async move {
            let bytes = fetch.await?;
            Ok::<_, BoxError>(bytes.map_err(BoxError::from))
        };
        self.pool.ensure_base(image, needed, fetch).await?;
        Ok(())
    }

    async fn trim_images(&self, needed: Needed<'_>) -> Result<(), HostStorageError> {
        Ok(self.pool.trim_images(needed).await?)
    }

    async fn usage(&self) -> Result<Usage, HostStorageError> {
        Ok(self.pool.usage().await?)
    }

    async fn ensure_volume(&self, volume: &VolumeSpec) -> Result<(), HostStorageError> {
        self.pool.ensure_volume(volume).await?;
        Ok(())
    }

    async fn add_layer(
        &self,
        volume: &VolumeSpec,
        layer: LayerId,
        below: LayerId,
    ) -> Result<(), HostStorageError> {
        self.pool.add_layer(volume, layer, Some(below)).await?;
        Ok(())
    }

    async fn merge_layers(&self, volume: &VolumeSpec) -> Result<(), HostStorageError> {
        Ok(self.pool.merge_layers(volume).await?)
    }

    async fn new_memory(
        &self,
        _: Option<&Name>,
        size: MemoryMib,
    ) -> Result<Box<dyn UnfinishedMemory>, HostStorageError> {
        let memory = self.pool.new_memory(u64::from(size.0) * MIB).await?;
        Ok(Box::new(LocalMemory { pool: self.pool.clone(), memory }))
    }

    async fn memory(&self, file: &MemoryFile) -> Result<Option<Utf8PathBuf>, HostStorageError> {
        let is_there = self.pool.has_memory(file.id).await?;
        Ok(is_there.then(|| self.pool.memory(file.id)))
    }

    async fn ensure_seed(&self, spec: &InstanceSpec) -> Result<(), HostStorageError> {
        self.pool.ensure_seed(spec.id, &spec.hostname, &spec.seed).await?;
        Ok(())
    }

    async fn remove_instance(&self, id: InstanceId) -> Result<(), HostStorageError> {
        self.pool.remove_instance(id).await?;
        Ok(())
    }

    async fn remove_layers(&self, doomed: Doomed<'_>) -> Result<(), HostStorageError> {
        self.pool.remove_layers(doomed.layers).await?;
        Ok(())
    }

    async fn export(&self, volume: &VolumeSpec) -> Result<Box<dyn ExportedDisk>, HostStorageError> {
        Ok(Box::new(self.pool.export(volume).await?))
    }

    async fn serial_tail(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HostStorageError> {
        Ok(self.pool.serial_tail(id, max_bytes).await?)
    }

    async fn shared_pools(&self) -> Vec<SharedPoolReport> {
        Vec::new()
    }
}

struct LocalMemory {
    pool: Pool,
    memory: NewMemory,
}

#[async_trait]
impl UnfinishedMemory for LocalMemory {
    fn path(&self) -> Utf8PathBuf {
        self.memory.path().to_owned()
    }

    async fn flush(&self) -> Result<(), HostStorageError> {
        Ok(self.pool.flush_memory(&self.memory).await?)
    }

    async fn publish(self: Box<Self>, id: LayerId) -> Result<(), HostStorageError> {
        self.pool.publish_memory(self.memory, id).await?;
        Ok(())
    }
}

#[async_trait]
impl ExportedDisk for Export {
    fn size_bytes(&self) -> u64 {
        Self::size_bytes(self)
    }

    async fn read(&self) -> Result<ByteStream, HostStorageError> {
        let file = tokio::fs::File::from_std(self.open().await?);
        Ok(ReaderStream::with_capacity(file, READ_BYTES).boxed())
    }
}

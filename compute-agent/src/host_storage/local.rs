//! A single pool behind [`HostStorage`].

use async_trait::async_trait;
use camino::Utf8PathBuf;
use futures_util::{StreamExt, TryStreamExt};
use protocol::agent::{CopiedLayer, ImageSource, InstanceSpec, MemoryFile, SharedPoolReport, VolumeSpec};
use protocol::{InstanceId, LayerId, MIB, MemoryMib, MigrationId, Name, Sha256};
use storage::{Blame, Export, LentLayer, NewLayer, NewMemory, Pool, PoolError};
use tokio_util::io::ReaderStream;

use super::{
    BoxError, ByteStream, Chain, Doomed, ExportedDisk, Fetch, Files, HostStorage, HostStorageError, LentDisk,
    LocalPool, Needed, NewDisk, Places, UnfinishedMemory, Usage, Users,
};
use crate::chain;

/// What is read of a copied disk at once.
const READ_BYTES: usize = 256 << 10;

impl From<PoolError> for HostStorageError {
    fn from(error: PoolError) -> Self {
        match error.blame() {
            Blame::Source => Self::Fetch(error.into()),
            Blame::Image => Self::Image(error.into()),
            Blame::Space => Self::Full(error.into()),
            Blame::Reach => Self::Reach(error.into()),
            Blame::Chain => Self::Chain(error.into()),
            Blame::Deleted => Self::Deleted(error.into()),
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
        let pool = self.pool().await?;
        let found = pool.look(id).await?;
        let any = found.any || pool.has_any_layer(doomed.layers).await?;
        let mut files = Files { bases: true, volumes: true, seed: found.seed, any, ..Files::default() };
        for volume in idle {
            let found = pool.look_at_volume(volume).await?;
            files.bases &= found.base;
            files.volumes &= found.made;
            if !found.broken && volume.merges.iter().any(|layer| !found.merged.contains(layer)) {
                files.to_merge.push(volume.id);
            }
            files.merged.extend(found.merged);
        }
        for volume in in_use.iter().filter(|volume| !volume.merges.is_empty()) {
            files.merged.extend(pool.look_at_volume(volume).await?.merged);
        }
        Ok(files)
    }

    async fn trouble(&self) -> Option<String> {
        let error = self.pool().await.err()?;
        Some(format!("the pool at {} cannot be used: {}", self.root(), chain(&error)))
    }

    async fn places(&self, id: InstanceId) -> Result<Places, HostStorageError> {
        let paths = self.pool().await?.paths(id);
        Ok(Places { seed: paths.seed, serial_log: paths.serial_log })
    }

    async fn layer(&self, _: Option<&Name>, id: LayerId) -> Result<Utf8PathBuf, HostStorageError> {
        Ok(self.pool().await?.layer(id))
    }

    async fn chain(&self, volume: &VolumeSpec) -> Result<Chain, HostStorageError> {
        let pool = self.pool().await?;
        let base = volume.image.as_ref().map(|image| pool.base(image));
        Ok(Chain { base, layers: pool.layers(volume).await? })
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
        self.pool().await?.ensure_base(image, needed, fetch).await?;
        Ok(())
    }

    async fn trim_images(&self, needed: Needed<'_>) -> Result<(), HostStorageError> {
        Ok(self.pool().await?.trim_images(needed).await?)
    }

    async fn usage(&self) -> Result<Usage, HostStorageError> {
        Ok(self.pool().await?.usage().await?)
    }

    async fn ensure_volume(&self, volume: &VolumeSpec) -> Result<(), HostStorageError> {
        self.pool().await?.ensure_volume(volume).await?;
        Ok(())
    }

    async fn add_layer(
        &self,
        volume: &VolumeSpec,
        layer: LayerId,
        below: LayerId,
    ) -> Result<(), HostStorageError> {
        self.pool().await?.add_layer(volume, layer, Some(below)).await?;
        Ok(())
    }

    async fn merge_layers(&self, volume: &VolumeSpec) -> Result<(), HostStorageError> {
        Ok(self.pool().await?.merge_layers(volume).await?)
    }

    async fn new_memory(
        &self,
        _: Option<&Name>,
        size: MemoryMib,
    ) -> Result<Box<dyn UnfinishedMemory>, HostStorageError> {
        let pool = self.pool().await?;
        let memory = pool.new_memory(u64::from(size.0) * MIB).await?;
        Ok(Box::new(LocalMemory { pool: pool.clone(), memory }))
    }

    async fn memory(&self, file: &MemoryFile) -> Result<Option<Utf8PathBuf>, HostStorageError> {
        let pool = self.pool().await?;
        let is_there = pool.has_memory(file.id).await?;
        Ok(is_there.then(|| pool.memory(file.id)))
    }

    async fn ensure_seed(&self, spec: &InstanceSpec) -> Result<(), HostStorageError> {
        self.pool().await?.ensure_seed(spec.id, &spec.hostname, &spec.seed).await?;
        Ok(())
    }

    async fn remove_instance(&self, id: InstanceId) -> Result<(), HostStorageError> {
        self.pool().await?.remove_instance(id).await?;
        Ok(())
    }

    async fn remove_layers(&self, doomed: Doomed<'_>) -> Result<(), HostStorageError> {
        self.pool().await?.remove_layers(doomed.layers).await?;
        Ok(())
    }

    async fn export(&self, volume: &VolumeSpec) -> Result<Box<dyn ExportedDisk>, HostStorageError> {
        Ok(Box::new(self.pool().await?.export(volume).await?))
    }

    async fn has_layer(&self, layer: LayerId) -> Result<bool, HostStorageError> {
        Ok(self.pool().await?.has_layer(layer).await?)
    }

    async fn has_come(&self, layer: LayerId, by: MigrationId) -> Result<bool, HostStorageError> {
        Ok(self.pool().await?.has_come(layer, by).await?)
    }

    async fn lend_layer(
        &self,
        layer: LayerId,
        users: Users,
    ) -> Result<Option<Box<dyn LentDisk>>, HostStorageError> {
        let lent = self.pool().await?.lend_layer(layer, users).await?;
        Ok(lent.map(|lent| Box::new(lent) as _))
    }

    async fn fresh_layer(&self, of: &CopiedLayer, by: MigrationId) -> Result<(), HostStorageError> {
        Ok(self.pool().await?.fresh_layer(of, by).await?)
    }

    async fn new_layer(
        &self,
        of: &CopiedLayer,
        size_bytes: u64,
        needed: Needed<'_>,
    ) -> Result<Box<dyn NewDisk>, HostStorageError> {
        let pool = self.pool().await?;
        let new = pool.new_layer(of, size_bytes, needed).await?;
        Ok(Box::new(LocalNew { pool: pool.clone(), new, of: of.clone() }))
    }

    async fn serial_tail(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HostStorageError> {
        Ok(self.pool().await?.serial_tail(id, max_bytes).await?)
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
impl LentDisk for LentLayer {
    fn size_bytes(&self) -> u64 {
        Self::size_bytes(self)
    }

    async fn read(&self) -> Result<ByteStream, HostStorageError> {
        let file = tokio::fs::File::from_std(self.open().await?);
        Ok(ReaderStream::with_capacity(file, READ_BYTES).boxed())
    }

    async fn is_unchanged(&self) -> Result<(), HostStorageError> {
        Ok(Self::is_unchanged(self).await?)
    }
}

struct LocalNew {
    pool: Pool,
    new: NewLayer,
    of: CopiedLayer,
}

#[async_trait]
impl NewDisk for LocalNew {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), HostStorageError> {
        Ok(self.new.write(self.of.id, bytes).await?)
    }

    async fn publish(self: Box<Self>, sha256: Sha256, by: MigrationId) -> Result<(), HostStorageError> {
        Ok(self.pool.publish_layer(self.new, &self.of, sha256, by).await?)
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

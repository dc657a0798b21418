//! The local pool behind [`HostStorage`].

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use futures_util::TryStreamExt;
use protocol::agent::{ImageSource, InstanceSpec, VolumeSpec};
use protocol::{InstanceId, LayerId};
use storage::{Blame, Options, Pool, PoolError};

use super::{BoxError, Chain, Fetch, Files, HostStorage, HostStorageError, Needed, Places, Usage};

/// Disks as qcow2 files in a folder of this host.
#[derive(Debug, Clone)]
pub struct LocalPool {
    pool: Pool,
}

impl LocalPool {
    /// Opens the pool, which is made when it is missing, and clears away what an earlier agent left
    /// unfinished. Cached images may take so much; a share of the file system unless given.
    pub fn open(root: &Utf8Path, image_cache_bytes: Option<u64>) -> Result<Self, PoolError> {
        Ok(Self { pool: Pool::open(root, Options { image_cache_bytes, ..Options::new()? })? })
    }
}

impl From<PoolError> for HostStorageError {
    fn from(error: PoolError) -> Self {
        match error.blame() {
            Blame::Source => Self::Fetch(error.into()),
            Blame::Image => Self::Image(error.into()),
            Blame::Space => Self::Full(error.into()),
            Blame::Host => Self::Pool(error.into()),
        }
    }
}

#[async_trait]
impl HostStorage for LocalPool {
    async fn look(
        &self,
        id: InstanceId,
        volumes: &[&VolumeSpec],
        doomed: &[LayerId],
    ) -> Result<Files, HostStorageError> {
        let found = self.pool.look(id).await?;
        let any = found.any || self.pool.has_any_layer(doomed).await?;
        let mut files = Files { bases: true, volumes: true, seed: found.seed, any };
        for volume in volumes {
            let found = self.pool.look_at_volume(volume).await?;
            files.bases &= found.base;
            files.volumes &= found.made;
        }
        Ok(files)
    }

    fn places(&self, id: InstanceId) -> Places {
        let paths = self.pool.paths(id);
        Places { seed: paths.seed, serial_log: paths.serial_log }
    }

    fn layer(&self, id: LayerId) -> Utf8PathBuf {
        self.pool.layer(id)
    }

    fn chain(&self, volume: &VolumeSpec) -> Chain {
        let base = volume.image.as_ref().map(|image| self.pool.base(image));
        Chain { base, layers: self.pool.layers(volume) }
    }

    async fn ensure_base(
        &self,
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

    async fn add_layer(&self, volume: &VolumeSpec, layer: LayerId) -> Result<(), HostStorageError> {
        self.pool.add_layer(volume, layer).await?;
        Ok(())
    }

    async fn ensure_seed(&self, spec: &InstanceSpec) -> Result<(), HostStorageError> {
        self.pool.ensure_seed(spec.id, &spec.hostname, &spec.seed).await?;
        Ok(())
    }

    async fn remove_instance(&self, id: InstanceId) -> Result<(), HostStorageError> {
        self.pool.remove_instance(id).await?;
        Ok(())
    }

    async fn remove_layers(&self, layers: &[LayerId]) -> Result<(), HostStorageError> {
        self.pool.remove_layers(layers).await?;
        Ok(())
    }

    async fn serial_tail(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HostStorageError> {
        Ok(self.pool.serial_tail(id, max_bytes).await?)
    }
}

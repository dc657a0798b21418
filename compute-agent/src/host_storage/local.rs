//! The local pool behind [`HostStorage`].

use async_trait::async_trait;
use camino::Utf8Path;
use futures_util::TryStreamExt;
use protocol::InstanceId;
use protocol::agent::{ImageSource, InstanceSpec};
use storage::{Blame, Pool, PoolError};

use super::{BoxError, Fetch, Files, HostStorage, HostStorageError, Places};

/// Disks as qcow2 files in a folder of this host.
#[derive(Debug, Clone)]
pub struct LocalPool {
    pool: Pool,
}

impl LocalPool {
    /// Opens the pool, which is made when it is missing, and clears away what an earlier agent left
    /// unfinished.
    pub fn open(root: &Utf8Path) -> Result<Self, PoolError> {
        Ok(Self { pool: Pool::open(root)? })
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
    async fn look(&self, id: InstanceId, image: Option<&ImageSource>) -> Result<Files, HostStorageError> {
        let found = self.pool.look(id, image).await?;
        Ok(Files { base: found.base, overlay: found.overlay, seed: found.seed, any: found.any })
    }

    fn places(&self, id: InstanceId, image: &ImageSource) -> Places {
        let paths = self.pool.paths(id);
        Places {
            base: self.pool.base(image),
            overlay: paths.overlay,
            seed: paths.seed,
            serial_log: paths.serial_log,
        }
    }

    async fn ensure_base(&self, image: &ImageSource, fetch: Fetch<'_>) -> Result<(), HostStorageError> {
        let fetch = || async move {
            let bytes = fetch.await?;
            Ok::<_, BoxError>(bytes.map_err(BoxError::from))
        };
        self.pool.ensure_base(image, fetch).await?;
        Ok(())
    }

    async fn ensure_overlay(&self, spec: &InstanceSpec) -> Result<(), HostStorageError> {
        self.pool.ensure_overlay(spec.id, &spec.root_disk).await?;
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

    async fn serial_tail(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HostStorageError> {
        Ok(self.pool.serial_tail(id, max_bytes).await?)
    }
}

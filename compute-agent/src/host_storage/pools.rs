//! The host's own pool and those that it shares with others behind [`HostStorage`]: each volume is in one of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use futures_util::future::join_all;
use protocol::agent::{
    CopiedLayer, ImageSource, InstanceSpec, MemoryFile, SharedPoolReport, SharedPoolState, VolumeSpec,
};
use protocol::{HostId, InstanceId, LayerId, MemoryMib, MigrationId, Name};
use storage::SharedRoot;

use super::{
    Chain, Doomed, ExportedDisk, Fetch, Files, HostStorage, HostStorageError, LentDisk, LocalPool, Needed,
    NewDisk, Places, UnfinishedMemory, Usage, Users,
};
use crate::chain;

/// See the module.
#[derive(Debug, Clone)]
pub struct Pools {
    local: LocalPool,
    shared: Arc<BTreeMap<Name, LocalPool>>,
}

impl Pools {
    /// Shared pools need not be there yet.
    pub fn new(
        local: LocalPool,
        host: HostId,
        shared: impl IntoIterator<Item = (Name, Utf8PathBuf)>,
    ) -> Self {
        let shared = shared
            .into_iter()
            .map(|(name, root)| (name.clone(), local.beside(SharedRoot { name, root, host })))
            .collect();
        Self { local, shared: Arc::new(shared) }
    }

    fn pool(&self, name: Option<&Name>) -> Result<&LocalPool, HostStorageError> {
        let Some(name) = name else { return Ok(&self.local) };
        let unknown =
            || HostStorageError::Reach(format!("this host was told of no shared pool {name}").into());
        self.shared.get(name).ok_or_else(unknown)
    }

    /// INVARIANT: nobody looks into a shared pool, or makes anything in it, who has not asked here just before. One that
    /// is not mounted looks like one without any layers.
    async fn usable(&self, name: Option<&Name>) -> Result<&LocalPool, HostStorageError> {
        let pool = self.pool(name)?;
        pool.usable().await?;
        Ok(pool)
    }

    async fn usable_all(&self, names: &[Name]) -> Result<Vec<&LocalPool>, HostStorageError> {
        let mut pools = vec![&self.local];
        for name in names {
            pools.push(self.usable(Some(name)).await?);
        }
        Ok(pools)
    }
}

/// The volumes that are in this shared pool, or in the host's own.
fn those_of<'a>(volumes: &[&'a VolumeSpec], pool: Option<&Name>) -> Vec<&'a VolumeSpec> {
    volumes.iter().copied().filter(|volume| volume.pool.as_ref() == pool).collect()
}

#[async_trait]
impl HostStorage for Pools {
    async fn look(
        &self,
        id: InstanceId,
        idle: &[&VolumeSpec],
        in_use: &[&VolumeSpec],
        doomed: Doomed<'_>,
    ) -> Result<Files, HostStorageError> {
        let [local_idle, local_in_use] = [idle, in_use].map(|volumes| those_of(volumes, None));
        let mut files = self.local.look(id, &local_idle, &local_in_use, doomed).await?;
        for pool in self.usable_all(doomed.pools).await? {
            files.any |= pool.has_any_layer(doomed.layers).await?;
        }
        // What a guest has open is only looked at for its layers that are merged.
        let in_use: Vec<_> = in_use.iter().copied().filter(|volume| !volume.merges.is_empty()).collect();
        let mut names: Vec<_> =
            idle.iter().chain(&in_use).filter_map(|volume| volume.pool.as_ref()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let Ok(pool) = self.usable(Some(name)).await else {
                // Whoever needs them is told why when they are to be made.
                (files.bases, files.volumes) = (false, false);
                continue;
            };
            let [idle, in_use] = [idle, in_use.as_slice()].map(|volumes| those_of(volumes, Some(name)));
            let found = pool.look(id, &idle, &in_use, Doomed::default()).await?;
            files.bases &= found.bases;
            files.volumes &= found.volumes;
            files.to_merge.extend(found.to_merge);
            files.merged.extend(found.merged);
        }
        Ok(files)
    }

    async fn trouble(&self) -> Option<String> {
        self.local.trouble().await
    }

    async fn places(&self, id: InstanceId) -> Result<Places, HostStorageError> {
        self.local.places(id).await
    }

    async fn layer(&self, pool: Option<&Name>, id: LayerId) -> Result<Utf8PathBuf, HostStorageError> {
        self.pool(pool)?.layer(None, id).await
    }

    async fn chain(&self, volume: &VolumeSpec) -> Result<Chain, HostStorageError> {
        self.usable(volume.pool.as_ref()).await?.chain(volume).await
    }

    async fn ensure_base(
        &self,
        pool: Option<&Name>,
        image: &ImageSource,
        needed: Needed<'_>,
        fetch: Fetch<'_>,
    ) -> Result<(), HostStorageError> {
        self.usable(pool).await?.ensure_base(None, image, needed, fetch).await
    }

    async fn trim_images(&self, needed: Needed<'_>) -> Result<(), HostStorageError> {
        self.local.trim_images(needed).await
    }

    async fn usage(&self) -> Result<Usage, HostStorageError> {
        self.local.usage().await
    }

    async fn ensure_volume(&self, volume: &VolumeSpec) -> Result<(), HostStorageError> {
        self.usable(volume.pool.as_ref()).await?.ensure_volume(volume).await
    }

    async fn add_layer(
        &self,
        volume: &VolumeSpec,
        layer: LayerId,
        below: LayerId,
    ) -> Result<(), HostStorageError> {
        self.usable(volume.pool.as_ref()).await?.add_layer(volume, layer, below).await
    }

    async fn merge_layers(&self, volume: &VolumeSpec) -> Result<(), HostStorageError> {
        self.usable(volume.pool.as_ref()).await?.merge_layers(volume).await
    }

    async fn new_memory(
        &self,
        pool: Option<&Name>,
        size: MemoryMib,
    ) -> Result<Box<dyn UnfinishedMemory>, HostStorageError> {
        self.usable(pool).await?.new_memory(None, size).await
    }

    async fn memory(&self, file: &MemoryFile) -> Result<Option<Utf8PathBuf>, HostStorageError> {
        self.usable(file.pool.as_ref()).await?.memory(file).await
    }

    async fn ensure_seed(&self, spec: &InstanceSpec) -> Result<(), HostStorageError> {
        self.local.ensure_seed(spec).await
    }

    async fn remove_instance(&self, id: InstanceId) -> Result<(), HostStorageError> {
        self.local.remove_instance(id).await
    }

    async fn remove_layers(&self, doomed: Doomed<'_>) -> Result<(), HostStorageError> {
        for pool in self.usable_all(doomed.pools).await? {
            pool.remove_layers(Doomed { pools: &[], ..doomed }).await?;
        }
        Ok(())
    }

    async fn has_layer(&self, layer: LayerId) -> Result<bool, HostStorageError> {
        self.local.has_layer(layer).await
    }

    async fn has_come(&self, layer: LayerId, by: MigrationId) -> Result<bool, HostStorageError> {
        self.local.has_come(layer, by).await
    }

    async fn lend_layer(
        &self,
        layer: LayerId,
        users: Users,
    ) -> Result<Option<Box<dyn LentDisk>>, HostStorageError> {
        self.local.lend_layer(layer, users).await
    }

    async fn fresh_layer(&self, of: &CopiedLayer, by: MigrationId) -> Result<(), HostStorageError> {
        self.local.fresh_layer(of, by).await
    }

    async fn new_layer(
        &self,
        of: &CopiedLayer,
        size_bytes: u64,
        needed: Needed<'_>,
    ) -> Result<Box<dyn NewDisk>, HostStorageError> {
        self.local.new_layer(of, size_bytes, needed).await
    }

    async fn serial_tail(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HostStorageError> {
        self.local.serial_tail(id, max_bytes).await
    }

    async fn export(&self, volume: &VolumeSpec) -> Result<Box<dyn ExportedDisk>, HostStorageError> {
        self.usable(volume.pool.as_ref()).await?.export(volume).await
    }

    async fn shared_pools(&self) -> Vec<SharedPoolReport> {
        join_all(self.shared.iter().map(|(name, pool)| report(name.clone(), pool.clone()))).await
    }
}

async fn report(name: Name, pool: LocalPool) -> SharedPoolReport {
    let state = match pool.usable().await {
        Ok(Some(usable)) => SharedPoolState::Ready {
            identity: usable.identity,
            total_bytes: usable.space.total_bytes,
            free_bytes: usable.space.free_bytes,
        },
        Ok(None) => SharedPoolState::Unusable { reason: "it is not shared".to_owned() },
        Err(error) => SharedPoolState::Unusable { reason: chain(&error) },
    };
    SharedPoolReport { name, state }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use camino::Utf8PathBuf;
    use storage::Pool;
    use uuid::Uuid;

    use super::*;
    use crate::host_storage::OwnPool;
    use crate::samples;

    #[tokio::test]
    async fn a_volume_is_in_its_pool_alone_and_nothing_is_made_while_that_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let work = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
        let (root, away) = (work.join("shared"), work.join("away"));
        fs::create_dir(&root).unwrap();
        let name: Name = "fast".parse().unwrap();
        Pool::make_shared(&name, &root).unwrap();
        let local = LocalPool::open(OwnPool::new(&work.join("own"), &work.join("record"))).unwrap();
        let pools = Pools::new(local, HostId::from_uuid(Uuid::from_u128(1)), [(name.clone(), root.clone())]);
        let mut volume = samples::disk(Uuid::from_u128(5)).volume;
        volume.image = None;
        volume.pool = Some(name.clone());
        let layers = volume.layers.clone();
        let doomed = Doomed { layers: &layers, pools: std::slice::from_ref(&name) };
        let id = samples::instance_id();

        fs::rename(&root, &away).unwrap();
        fs::create_dir(&root).unwrap();
        let reach = |outcome: Result<(), HostStorageError>| match outcome {
            Err(HostStorageError::Reach(_)) => {}
            other => panic!("{other:?}"),
        };
        reach(pools.ensure_volume(&volume).await);
        reach(pools.remove_layers(doomed).await);
        reach(pools.look(id, &[], &[], doomed).await.map(drop));
        let found = pools.look(id, &[&volume], &[], Doomed::default()).await.unwrap();
        assert!(!found.bases && !found.volumes);
        assert!(matches!(pools.shared_pools().await[0].state, SharedPoolState::Unusable { .. }));
        assert_eq!(root.read_dir_utf8().unwrap().count(), 0);
        fs::remove_dir(&root).unwrap();
        fs::rename(&away, &root).unwrap();

        assert!(!pools.look(id, &[&volume], &[], Doomed::default()).await.unwrap().volumes);
        pools.ensure_volume(&volume).await.unwrap();
        assert!(pools.look(id, &[&volume], &[], doomed).await.unwrap().volumes);
        let chain = pools.chain(&volume).await.unwrap();
        assert_eq!(chain.layers, [root.join(format!("layers/{}.qcow2", layers[0]))]);
        assert!(fs::exists(&chain.layers[0]).unwrap());
        assert!(matches!(pools.shared_pools().await[0].state, SharedPoolState::Ready { .. }));
        // It is not the host's own, so an order about those leaves it.
        pools.remove_layers(Doomed { layers: &layers, pools: &[] }).await.unwrap();
        assert!(pools.look(id, &[], &[], doomed).await.unwrap().any);
        pools.remove_layers(doomed).await.unwrap();
        assert!(!pools.look(id, &[], &[], doomed).await.unwrap().any);
        volume.pool = Some("other".parse().unwrap());
        reach(pools.ensure_volume(&volume).await);
    }
}

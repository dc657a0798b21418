//! A simulated host's own disks and the shared pool of its group behind [`HostStorage`].
//!
//! The pool is a real directory with a real identity, and the leases in it are real files. What else is in it is simulated,
//! once for all hosts of the group.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use protocol::agent::{
    CopiedLayer, ImageSource, InstanceSpec, MemoryFile, SharedPoolReport, SharedPoolState, VolumeSpec,
};
use protocol::{GIB, InstanceId, LayerId, MemoryMib, MigrationId, Name, SizeGib};

use crate::chain;
use crate::durable::off_thread;
use crate::host_storage::{
    Chain, Doomed, ExportedDisk, Fetch, Files, HostStorage, HostStorageError, LentDisk, Needed, NewDisk,
    Places, SimulatedStorage, UnfinishedMemory, Usage, Users,
};

/// How a host reaches the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Way {
    #[default]
    Open,
    Gone,
    Hangs,
}

/// The way of one host to the pool.
#[derive(Debug, Default)]
pub(super) struct PoolWay {
    way: Mutex<Way>,
    changed: Condvar,
}

impl PoolWay {
    pub(super) fn set(&self, way: Way) {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
        self.changed.notify_all();
    }

    fn get(&self) -> Way {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does not return while it hangs; what was begun before goes on then.
    pub(super) fn take(&self) -> io::Result<()> {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        while *way == Way::Hangs {
            way = self.changed.wait(way).unwrap_or_else(PoisonError::into_inner);
        }
        if *way == Way::Gone { Err(gone()) } else { Ok(()) }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "simulated: the pool is away")
}

/// The shared pool of a group.
#[derive(Debug)]
pub(super) struct GroupPool {
    pub(super) name: Name,
    pub(super) root: Utf8PathBuf,
    pub(super) size: SizeGib,
    pub(super) content: SimulatedStorage,
}

impl GroupPool {
    /// Makes the directory a pool the first time.
    pub(super) fn open(
        name: Name,
        root: &Utf8Path,
        content: SimulatedStorage,
        size: SizeGib,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let root = root.canonicalize_utf8()?;
        if storage::shared_identity(&name, &root).is_err() {
            storage::Pool::make_shared(&name, &root)?;
        }
        Ok(Self { name, root, size, content })
    }
}

/// See the module.
pub(super) struct SharingStorage {
    pub(super) own: Arc<SimulatedStorage>,
    pub(super) pool: Arc<GroupPool>,
    pub(super) way: Arc<PoolWay>,
}

type Outcome<T> = Result<T, HostStorageError>;

impl SharingStorage {
    async fn identity(&self) -> io::Result<uuid::Uuid> {
        match self.way.get() {
            Way::Open => {}
            Way::Gone => return Err(gone()),
            Way::Hangs => return Err(io::Error::new(io::ErrorKind::TimedOut, "simulated: the pool hangs")),
        }
        let pool = Arc::clone(&self.pool);
        off_thread(move || storage::shared_identity(&pool.name, &pool.root)).await
    }

    /// What is in the pool, if that is there, or in the host's own.
    async fn of(&self, pool: Option<&Name>) -> Outcome<&SimulatedStorage> {
        let Some(name) = pool else { return Ok(&self.own) };
        if *name != self.pool.name {
            return Err(HostStorageError::Reach(format!("simulated: there is no shared pool {name}").into()));
        }
        self.identity().await.map_err(|error| HostStorageError::Reach(error.into()))?;
        Ok(&self.pool.content)
    }
}

/// The volumes that are in a shared pool, or in the host's own.
fn those<'a>(volumes: &[&'a VolumeSpec], shared: bool) -> Vec<&'a VolumeSpec> {
    volumes.iter().copied().filter(|volume| volume.pool.is_some() == shared).collect()
}

#[async_trait]
impl HostStorage for SharingStorage {
    async fn look(
        &self,
        id: InstanceId,
        idle: &[&VolumeSpec],
        in_use: &[&VolumeSpec],
        doomed: Doomed<'_>,
    ) -> Outcome<Files> {
        let mut files = self.own.look(id, &those(idle, false), &those(in_use, false), doomed).await?;
        for name in doomed.pools {
            files.any |= self.of(Some(name)).await?.look(id, &[], &[], doomed).await?.any;
        }
        let [idle, in_use] = [idle, in_use].map(|volumes| those(volumes, true));
        if idle.is_empty() && in_use.is_empty() {
            return Ok(files);
        }
        let Ok(pool) = self.of(Some(&self.pool.name)).await else {
            (files.bases, files.volumes) = (false, false);
            return Ok(files);
        };
        let found = pool.look(id, &idle, &in_use, Doomed::default()).await?;
        files.bases &= found.bases;
        files.volumes &= found.volumes;
        files.to_merge.extend(found.to_merge);
        files.merged.extend(found.merged);
        Ok(files)
    }

    async fn trouble(&self) -> Option<String> {
        self.own.trouble().await
    }

    async fn places(&self, id: InstanceId) -> Outcome<Places> {
        self.own.places(id).await
    }

    async fn layer(&self, pool: Option<&Name>, id: LayerId) -> Outcome<Utf8PathBuf> {
        self.own.layer(pool, id).await
    }

    async fn chain(&self, volume: &VolumeSpec) -> Outcome<Chain> {
        self.of(volume.pool.as_ref()).await?.chain(volume).await
    }

    async fn ensure_base(
        &self,
        pool: Option<&Name>,
        image: &ImageSource,
        needed: Needed<'_>,
        fetch: Fetch<'_>,
    ) -> Outcome<()> {
        self.of(pool).await?.ensure_base(pool, image, needed, fetch).await
    }

    async fn trim_images(&self, needed: Needed<'_>) -> Outcome<()> {
        self.own.trim_images(needed).await
    }

    async fn usage(&self) -> Outcome<Usage> {
        self.own.usage().await
    }

    async fn ensure_volume(&self, volume: &VolumeSpec) -> Outcome<()> {
        self.of(volume.pool.as_ref()).await?.ensure_volume(volume).await
    }

    async fn add_layer(&self, volume: &VolumeSpec, layer: LayerId, below: LayerId) -> Outcome<()> {
        self.of(volume.pool.as_ref()).await?.add_layer(volume, layer, below).await
    }

    async fn merge_layers(&self, volume: &VolumeSpec) -> Outcome<()> {
        self.of(volume.pool.as_ref()).await?.merge_layers(volume).await
    }

    async fn new_memory(&self, pool: Option<&Name>, size: MemoryMib) -> Outcome<Box<dyn UnfinishedMemory>> {
        self.of(pool).await?.new_memory(pool, size).await
    }

    async fn memory(&self, file: &MemoryFile) -> Outcome<Option<Utf8PathBuf>> {
        self.of(file.pool.as_ref()).await?.memory(file).await
    }

    async fn ensure_seed(&self, spec: &InstanceSpec) -> Outcome<()> {
        self.own.ensure_seed(spec).await
    }

    async fn remove_instance(&self, id: InstanceId) -> Outcome<()> {
        self.own.remove_instance(id).await
    }

    async fn remove_layers(&self, doomed: Doomed<'_>) -> Outcome<()> {
        for name in doomed.pools {
            self.of(Some(name)).await?.remove_layers(doomed).await?;
        }
        self.own.remove_layers(doomed).await
    }

    async fn export(&self, volume: &VolumeSpec) -> Outcome<Box<dyn ExportedDisk>> {
        self.of(volume.pool.as_ref()).await?.export(volume).await
    }

    async fn has_layer(&self, layer: LayerId) -> Outcome<bool> {
        self.own.has_layer(layer).await
    }

    async fn has_come(&self, layer: LayerId, by: MigrationId) -> Outcome<bool> {
        self.own.has_come(layer, by).await
    }

    async fn lend_layer(&self, layer: LayerId, users: Users) -> Outcome<Option<Box<dyn LentDisk>>> {
        self.own.lend_layer(layer, users).await
    }

    async fn fresh_layer(&self, of: &CopiedLayer, by: MigrationId) -> Outcome<()> {
        self.own.fresh_layer(of, by).await
    }

    async fn new_layer(
        &self,
        of: &CopiedLayer,
        size_bytes: u64,
        needed: Needed<'_>,
    ) -> Outcome<Box<dyn NewDisk>> {
        self.own.new_layer(of, size_bytes, needed).await
    }

    async fn serial_tail(&self, id: InstanceId, max_bytes: usize) -> Outcome<Vec<u8>> {
        self.own.serial_tail(id, max_bytes).await
    }

    async fn shared_pools(&self) -> Vec<SharedPoolReport> {
        let total_bytes = u64::from(self.pool.size.0) * GIB;
        let state = match self.identity().await {
            Ok(identity) => SharedPoolState::Ready { identity, total_bytes, free_bytes: total_bytes / 2 },
            Err(error) => SharedPoolState::Unusable { reason: chain(&error) },
        };
        vec![SharedPoolReport { name: self.pool.name.clone(), state }]
    }
}

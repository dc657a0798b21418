//! Disks that take no space, with the order of a real pool: no layer without what it stands on.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use camino::Utf8PathBuf;
use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::agent::{CopiedLayer, ImageSource, InstanceSpec, MemoryFile, SharedPoolReport, VolumeSpec};
use protocol::{GIB, InstanceId, LayerId, MemoryMib, MigrationId, Name, Sha256, SizeGib};
use serde::{Deserialize, Serialize};
use sha2::Digest;
use storage::Space;

use super::{
    ByteStream, Chain, Doomed, ExportedDisk, Fetch, Files, HostStorage, HostStorageError, LentDisk, Needed,
    NewDisk, Places, UnfinishedMemory, Usage, Users,
};
use crate::kept::{Keep, KeptFile, Locked};

/// As the simulated machine says, unless told otherwise.
const USUAL_SIZE: SizeGib = SizeGib(1024);

/// See the module. Image bytes are fetched, counted and dropped.
#[derive(Debug)]
pub struct SimulatedStorage {
    size: SizeGib,
    /// How long each call takes that writes something of an instance.
    latency: Duration,
    state: Arc<Mutex<State>>,
    /// Held by the one who fetches an image, so that the others share what it brings.
    fetching: Mutex<HashMap<Sha256, Arc<tokio::sync::Mutex<()>>>>,
    /// Each copy of a disk has one.
    exports: Arc<()>,
}

/// A copy of a disk: the ids of its layers, in a word each.
#[derive(Debug)]
struct SimulatedExport {
    bytes: Bytes,
    _counted: Arc<()>,
}

#[async_trait]
impl ExportedDisk for SimulatedExport {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn read(&self) -> Result<ByteStream, HostStorageError> {
        let words = self.bytes.chunks(8).map(Bytes::copy_from_slice).map(Ok).collect::<Vec<_>>();
        Ok(stream::iter(words).boxed())
    }
}

/// A layer on its way to another host: its id.
#[derive(Debug)]
struct SimulatedLoan {
    bytes: Bytes,
}

#[async_trait]
impl LentDisk for SimulatedLoan {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn read(&self) -> Result<ByteStream, HostStorageError> {
        let bytes = self.bytes.clone();
        Ok(stream::iter([Ok(bytes)]).boxed())
    }

    async fn is_unchanged(&self) -> Result<(), HostStorageError> {
        Ok(())
    }
}

/// A layer on its way from another host.
#[derive(Debug)]
struct SimulatedNew {
    state: Arc<Mutex<State>>,
    of: CopiedLayer,
    bytes: Vec<u8>,
}

#[async_trait]
impl NewDisk for SimulatedNew {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), HostStorageError> {
        self.bytes.extend(bytes);
        Ok(())
    }

    async fn publish(self: Box<Self>, sha256: Sha256, _: MigrationId) -> Result<(), HostStorageError> {
        let mut state = Locked::of(&self.state);
        let is_whole = Sha256::from_bytes(sha2::Sha256::digest(&self.bytes).into()) == sha256
            && self.bytes == self.of.id.to_string().as_bytes();
        if !is_whole {
            return Err(HostStorageError::Fetch("simulated: that is another layer".into()));
        }
        if self.of.below.is_some_and(|below| !state.layers.contains_key(&below)) {
            return Err(HostStorageError::Chain("simulated: it stands on nothing".into()));
        }
        state.layers.insert(self.of.id, self.of.size_gib);
        Ok(())
    }
}

/// Memory that is being written.
struct SimulatedMemory {
    state: Arc<Mutex<State>>,
}

#[async_trait]
impl UnfinishedMemory for SimulatedMemory {
    fn path(&self) -> Utf8PathBuf {
        "/nonexistent/memory".into()
    }

    async fn flush(&self) -> Result<(), HostStorageError> {
        Ok(())
    }

    async fn publish(self: Box<Self>, id: LayerId) -> Result<(), HostStorageError> {
        Locked::of(&self.state).memories.insert(id);
        Ok(())
    }
}

/// What has no file of its own is of no disk, and goes with the process.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    #[serde(skip)]
    file: KeptFile,
    /// Of guests.
    memories: HashSet<LayerId>,
    bases: HashSet<Sha256>,
    /// The instances with files, and whether there is a seed among them.
    instances: HashMap<InstanceId, bool>,
    layers: HashMap<LayerId, SizeGib>,
    /// Those that were removed by order.
    #[serde(default)]
    removed: HashSet<LayerId>,
    /// On which nothing stands any more.
    merged: HashSet<LayerId>,
    #[serde(skip)]
    layers_made: u32,
    #[serde(skip)]
    failures_left: u32,
    #[serde(skip)]
    is_full: bool,
    /// Copies are not finished before this is taken back.
    #[serde(skip)]
    exports_held: bool,
}

impl Keep for State {
    fn keep(&mut self) {
        if self.file.is_there() {
            let mut file = std::mem::take(&mut self.file);
            file.write(self);
            self.file = file;
        }
    }
}

impl Default for SimulatedStorage {
    fn default() -> Self {
        Self::with(State::default(), USUAL_SIZE, Duration::ZERO)
    }
}

fn layer_path(id: LayerId) -> Utf8PathBuf {
    format!("/nonexistent/{id}").into()
}

impl SimulatedStorage {
    /// A pool of that size, of which a file says what is in it: it outlives the process.
    pub fn kept_in(file: Utf8PathBuf, size: SizeGib, latency: Duration) -> io::Result<Self> {
        let (file, state) = KeptFile::open::<State>(file)?;
        Ok(Self::with(State { file, ..state }, size, latency))
    }

    fn with(state: State, size: SizeGib, latency: Duration) -> Self {
        let (state, fetching, exports) = (Arc::new(Mutex::new(state)), Mutex::default(), Arc::default());
        Self { size, latency, state, fetching, exports }
    }

    async fn step(&self) {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
    }

    /// The next `times` calls that write are refused.
    pub fn fail_next(&self, times: u32) {
        self.lock().failures_left = times;
    }

    /// Whether the pool has room left, from now on.
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Holds copies of disks in their middle, or lets them go on.
    pub fn hold_exports(&self, held: bool) {
        self.lock().exports_held = held;
    }

    /// Copies of disks that are there, finished or not.
    pub fn exports(&self) -> usize {
        Arc::strong_count(&self.exports) - 1
    }

    /// How many layers were made anew.
    pub fn layers_made(&self) -> u32 {
        self.lock().layers_made
    }

    /// The layers that there are.
    pub fn layers(&self) -> Vec<LayerId> {
        self.lock().layers.keys().copied().collect()
    }

    /// The memories of guests that there are.
    pub fn memories(&self) -> Vec<LayerId> {
        self.lock().memories.iter().copied().collect()
    }

    /// The instances that have files.
    pub fn instances(&self) -> Vec<InstanceId> {
        self.lock().instances.keys().copied().collect()
    }

    fn fetching(&self, image: Sha256) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(fetching.entry(image).or_default())
    }

    fn lock(&self) -> Locked<'_, State> {
        Locked::of(&self.state)
    }

    fn writing(&self) -> Result<Locked<'_, State>, HostStorageError> {
        let mut state = self.lock();
        if state.failures_left == 0 {
            return Ok(state);
        }
        state.failures_left -= 1;
        Err(HostStorageError::Pool("simulated: refused on demand".into()))
    }
}

impl State {
    fn is_made(&self, volume: &VolumeSpec) -> bool {
        let large_enough = |layer| self.layers.get(&layer).is_some_and(|size| *size >= volume.size_gib);
        self.to_make(volume).next().is_none() && volume.top().is_none_or(large_enough)
    }

    /// What is merged, or to be merged before it was ever made, is not made.
    fn to_make(&self, volume: &VolumeSpec) -> impl Iterator<Item = LayerId> {
        volume.kept().filter(|layer| !self.layers.contains_key(layer))
    }

    /// A layer of the chain that is missing below one that is there.
    fn lost(&self, volume: &VolumeSpec) -> Option<LayerId> {
        let kept: Vec<_> = volume.kept().collect();
        let top = kept.iter().rposition(|layer| self.layers.contains_key(layer))?;
        kept[..top].iter().copied().find(|layer| !self.layers.contains_key(layer))
    }

    /// Those that are seen to be merged, and whether that is all of those that shall be.
    fn merged(&self, volume: &VolumeSpec) -> (Vec<LayerId>, bool) {
        let merged: Vec<_> =
            volume.merges.iter().copied().filter(|layer| self.merged.contains(layer)).collect();
        let all = merged.len() == volume.merges.len();
        (merged, all)
    }
}

#[async_trait]
impl HostStorage for SimulatedStorage {
    async fn look(
        &self,
        id: InstanceId,
        idle: &[&VolumeSpec],
        in_use: &[&VolumeSpec],
        doomed: Doomed<'_>,
    ) -> Result<Files, HostStorageError> {
        let state = self.lock();
        let cached = |volume: &&VolumeSpec| {
            volume.image.as_ref().is_none_or(|image| state.bases.contains(&image.sha256))
        };
        let instance = state.instances.get(&id);
        let to_merge = |volume: &&&VolumeSpec| state.lost(volume).is_none() && !state.merged(volume).1;
        // What a guest does with its files is not seen in these: the hypervisor says it.
        let in_use = in_use.iter().flat_map(|volume| volume.merges.clone());
        Ok(Files {
            bases: idle.iter().all(cached),
            volumes: idle.iter().all(|volume| state.is_made(volume)),
            to_merge: idle.iter().filter(to_merge).map(|volume| volume.id).collect(),
            merged: idle.iter().flat_map(|volume| state.merged(volume).0).chain(in_use).collect(),
            seed: instance.is_some_and(|seed| *seed),
            any: instance.is_some() || doomed.layers.iter().any(|layer| state.layers.contains_key(layer)),
        })
    }

    async fn trouble(&self) -> Option<String> {
        None
    }

    async fn places(&self, id: InstanceId) -> Result<Places, HostStorageError> {
        let dir = Utf8PathBuf::from(format!("/nonexistent/{id}"));
        Ok(Places { seed: dir.join("seed.img"), serial_log: dir.join("serial.log") })
    }

    async fn layer(&self, _: Option<&Name>, id: LayerId) -> Result<Utf8PathBuf, HostStorageError> {
        Ok(layer_path(id))
    }

    async fn chain(&self, volume: &VolumeSpec) -> Result<Chain, HostStorageError> {
        let state = self.lock();
        let base = volume.image.as_ref().map(|image| format!("/nonexistent/{}", image.sha256).into());
        let stands = |layer: &&LayerId| state.layers.contains_key(layer) && !state.merged.contains(layer);
        let layers = volume.layers.iter().filter(stands).map(|layer| layer_path(*layer));
        Ok(Chain { base, layers: layers.collect() })
    }

    async fn ensure_base(
        &self,
        _: Option<&Name>,
        image: &ImageSource,
        _: Needed<'_>,
        fetch: Fetch<'_>,
    ) -> Result<(), HostStorageError> {
        let fetching = self.fetching(image.sha256);
        let _one_at_a_time = fetching.lock().await;
        if self.lock().bases.contains(&image.sha256) {
            return Ok(());
        }
        let bytes = fetch.await.map_err(HostStorageError::Fetch)?;
        let received = bytes
            .try_fold(0_u64, |sum, chunk| async move { Ok(sum + chunk.len() as u64) })
            .await
            .map_err(|error| HostStorageError::Fetch(error.into()))?;
        if received != image.size_bytes {
            let short = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(HostStorageError::Image(short.into()));
        }
        self.writing()?.bases.insert(image.sha256);
        Ok(())
    }

    async fn trim_images(&self, _: Needed<'_>) -> Result<(), HostStorageError> {
        Ok(())
    }

    async fn usage(&self) -> Result<Usage, HostStorageError> {
        let total_bytes = u64::from(self.size.0) * GIB;
        let free_bytes = if self.lock().is_full { 0 } else { total_bytes / 2 };
        Ok(Usage { space: Space { total_bytes, free_bytes }, image_cache_bytes: 0 })
    }

    async fn ensure_volume(&self, volume: &VolumeSpec) -> Result<(), HostStorageError> {
        self.step().await;
        let mut state = self.writing()?;
        if volume.image.as_ref().is_some_and(|image| !state.bases.contains(&image.sha256)) {
            return Err(HostStorageError::Pool("simulated: the image is not cached".into()));
        }
        if let Some(layer) = state.lost(volume) {
            return Err(HostStorageError::Chain(format!("simulated: layer {layer} is lost").into()));
        }
        if let Some(layer) = state.to_make(volume).find(|layer| state.removed.contains(layer)) {
            return Err(HostStorageError::Deleted(format!("simulated: layer {layer} was removed").into()));
        }
        for layer in state.to_make(volume).collect::<Vec<_>>() {
            state.layers.insert(layer, volume.size_gib);
            state.layers_made += 1;
        }
        if let Some(top) = volume.top() {
            state.layers.insert(top, volume.size_gib);
        }
        Ok(())
    }

    async fn add_layer(
        &self,
        volume: &VolumeSpec,
        layer: LayerId,
        below: LayerId,
    ) -> Result<(), HostStorageError> {
        self.step().await;
        let mut state = self.writing()?;
        if !state.layers.contains_key(&below) {
            return Err(HostStorageError::Chain(format!("simulated: layer {below} is lost").into()));
        }
        let is_new = state.layers.insert(layer, volume.size_gib).is_none();
        state.layers_made += u32::from(is_new);
        Ok(())
    }

    async fn merge_layers(&self, volume: &VolumeSpec) -> Result<(), HostStorageError> {
        self.step().await;
        self.writing()?.merged.extend(&volume.merges);
        Ok(())
    }

    async fn new_memory(
        &self,
        _: Option<&Name>,
        _: MemoryMib,
    ) -> Result<Box<dyn UnfinishedMemory>, HostStorageError> {
        if self.writing()?.is_full {
            return Err(HostStorageError::Full("simulated: there is no room".into()));
        }
        Ok(Box::new(SimulatedMemory { state: Arc::clone(&self.state) }))
    }

    async fn memory(&self, file: &MemoryFile) -> Result<Option<Utf8PathBuf>, HostStorageError> {
        let is_there = self.lock().memories.contains(&file.id);
        Ok(is_there.then(|| format!("/nonexistent/{}.memory", file.id).into()))
    }

    async fn ensure_seed(&self, spec: &InstanceSpec) -> Result<(), HostStorageError> {
        self.step().await;
        self.writing()?.instances.insert(spec.id, true);
        Ok(())
    }

    async fn remove_layers(&self, doomed: Doomed<'_>) -> Result<(), HostStorageError> {
        self.step().await;
        let mut state = self.writing()?;
        for layer in doomed.layers {
            if state.layers.remove(layer).is_some() {
                state.removed.insert(*layer);
            }
            state.memories.remove(layer);
        }
        Ok(())
    }

    async fn remove_instance(&self, id: InstanceId) -> Result<(), HostStorageError> {
        self.step().await;
        self.writing()?.instances.remove(&id);
        Ok(())
    }

    async fn export(&self, volume: &VolumeSpec) -> Result<Box<dyn ExportedDisk>, HostStorageError> {
        let counted = Arc::clone(&self.exports);
        while self.lock().exports_held {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let state = self.writing()?;
        let there: Vec<_> = volume.layers.iter().filter(|layer| state.layers.contains_key(layer)).collect();
        if there.is_empty() {
            return Err(HostStorageError::Image("simulated: nothing was ever written".into()));
        }
        let words: Vec<_> = there.into_iter().map(LayerId::to_string).collect();
        Ok(Box::new(SimulatedExport { bytes: words.join(" ").into(), _counted: counted }))
    }

    async fn has_layer(&self, layer: LayerId) -> Result<bool, HostStorageError> {
        Ok(self.lock().layers.contains_key(&layer))
    }

    async fn has_come(&self, layer: LayerId, _: MigrationId) -> Result<bool, HostStorageError> {
        self.has_layer(layer).await
    }

    async fn lend_layer(
        &self,
        layer: LayerId,
        _: Users,
    ) -> Result<Option<Box<dyn LentDisk>>, HostStorageError> {
        let is_there = self.lock().layers.contains_key(&layer);
        Ok(is_there.then(|| Box::new(SimulatedLoan { bytes: layer.to_string().into() }) as _))
    }

    async fn fresh_layer(&self, of: &CopiedLayer, _: MigrationId) -> Result<(), HostStorageError> {
        let mut state = self.writing()?;
        if state.is_full {
            return Err(HostStorageError::Full("simulated: there is no room".into()));
        }
        if of.below.is_some_and(|below| !state.layers.contains_key(&below)) {
            return Err(HostStorageError::Chain("simulated: it stands on nothing".into()));
        }
        state.layers.entry(of.id).or_insert(of.size_gib);
        Ok(())
    }

    async fn new_layer(
        &self,
        of: &CopiedLayer,
        _: u64,
        _: Needed<'_>,
    ) -> Result<Box<dyn NewDisk>, HostStorageError> {
        if self.writing()?.is_full {
            return Err(HostStorageError::Full("simulated: there is no room".into()));
        }
        Ok(Box::new(SimulatedNew { state: Arc::clone(&self.state), of: of.clone(), bytes: Vec::new() }))
    }

    async fn serial_tail(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HostStorageError> {
        let mut log = format!("simulated guest {id}\n").into_bytes();
        log.truncate(max_bytes);
        Ok(log)
    }

    async fn shared_pools(&self) -> Vec<SharedPoolReport> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{instance_id, running};

    #[tokio::test]
    async fn what_is_in_the_pool_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = Utf8PathBuf::from_path_buf(dir.path().join("disks.json")).unwrap();
        let open = || SimulatedStorage::kept_in(file.clone(), SizeGib(7), Duration::ZERO).unwrap();
        let mut spec = running(instance_id());
        spec.disks[0].volume.image = None;
        let volume = spec.disks[0].volume.clone();
        let first = open();
        first.ensure_volume(&volume).await.unwrap();
        first.ensure_seed(&spec).await.unwrap();
        drop(first);

        let second = open();
        let files = second.look(spec.id, &[&volume], &[], Doomed::default()).await.unwrap();
        assert!(files.volumes && files.seed && files.any);
        assert_eq!(second.usage().await.unwrap().space.total_bytes, 7 * GIB);
        second.remove_instance(spec.id).await.unwrap();
        let doomed = Doomed { layers: &volume.layers, ..Doomed::default() };
        second.remove_layers(doomed).await.unwrap();
        drop(second);
        assert_eq!((open().instances(), open().layers()), (Vec::new(), Vec::new()));
    }
}

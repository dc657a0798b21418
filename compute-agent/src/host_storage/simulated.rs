//! Disks that take no space, with the order of a real pool: no overlay without its base.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use camino::Utf8PathBuf;
use futures_util::TryStreamExt;
use protocol::agent::{ImageSource, InstanceSpec};
use protocol::{InstanceId, Sha256};

use super::{Fetch, Files, HostStorage, HostStorageError, Places};

/// See the module. Image bytes are fetched, counted and dropped.
#[derive(Debug, Default)]
pub struct SimulatedStorage {
    state: Mutex<State>,
    /// Held by the one who fetches an image, so that the others share what it brings.
    fetching: Mutex<HashMap<Sha256, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug, Default)]
struct State {
    bases: HashSet<Sha256>,
    instances: HashMap<InstanceId, Files>,
    overlays_made: u32,
    failures_left: u32,
}

impl SimulatedStorage {
    /// The next `times` calls that write are refused.
    pub fn fail_next(&self, times: u32) {
        self.lock().failures_left = times;
    }

    /// How many root disks were made anew.
    pub fn overlays_made(&self) -> u32 {
        self.lock().overlays_made
    }

    /// The instances that have files.
    pub fn instances(&self) -> Vec<InstanceId> {
        self.lock().instances.keys().copied().collect()
    }

    fn fetching(&self, image: Sha256) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(fetching.entry(image).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> Result<MutexGuard<'_, State>, HostStorageError> {
        let mut state = self.lock();
        if state.failures_left == 0 {
            return Ok(state);
        }
        state.failures_left -= 1;
        Err(HostStorageError::Pool("simulated: refused on demand".into()))
    }
}

#[async_trait]
impl HostStorage for SimulatedStorage {
    async fn look(&self, id: InstanceId, image: Option<&ImageSource>) -> Result<Files, HostStorageError> {
        let state = self.lock();
        let base = image.is_some_and(|image| state.bases.contains(&image.sha256));
        Ok(Files { base, ..state.instances.get(&id).copied().unwrap_or_default() })
    }

    fn places(&self, id: InstanceId, image: &ImageSource) -> Places {
        let dir = Utf8PathBuf::from(format!("/nonexistent/{id}"));
        Places {
            base: Utf8PathBuf::from(format!("/nonexistent/{}", image.sha256)),
            overlay: dir.join("root.qcow2"),
            seed: dir.join("seed.img"),
            serial_log: dir.join("serial.log"),
        }
    }

    async fn ensure_base(&self, image: &ImageSource, fetch: Fetch<'_>) -> Result<(), HostStorageError> {
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

    async fn ensure_overlay(&self, spec: &InstanceSpec) -> Result<(), HostStorageError> {
        let mut state = self.writing()?;
        if !state.bases.contains(&spec.root_disk.image.sha256) {
            return Err(HostStorageError::Pool("simulated: the image is not cached".into()));
        }
        let files = state.instances.entry(spec.id).or_default();
        let made = !std::mem::replace(&mut files.overlay, true);
        files.any = true;
        state.overlays_made += u32::from(made);
        Ok(())
    }

    async fn ensure_seed(&self, spec: &InstanceSpec) -> Result<(), HostStorageError> {
        let mut state = self.writing()?;
        let files = state.instances.entry(spec.id).or_default();
        files.seed = true;
        files.any = true;
        Ok(())
    }

    async fn remove_instance(&self, id: InstanceId) -> Result<(), HostStorageError> {
        self.writing()?.instances.remove(&id);
        Ok(())
    }

    async fn serial_tail(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HostStorageError> {
        let mut log = format!("simulated guest {id}\n").into_bytes();
        log.truncate(max_bytes);
        Ok(log)
    }
}

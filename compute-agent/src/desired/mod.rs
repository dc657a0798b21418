//! The last desired state, on disk before anything is done about it.
//!
//! One file per instance. The store refuses what is older than what it has, and a deletion is final: no
//! later word about that instance starts it again. What a complete page does not name is *unknown* to the
//! control plane; it is set aside (left as it is, and counted), because an unknown instance is more likely
//! a restored database than an order to destroy.

pub mod feed;
pub mod images;
pub mod removals;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::agent::{
    DesiredBody, DesiredPage, Disk, InstanceSpec, Migration, Nic, SaveMemory, UnknownSpec,
};
use protocol::{Generation, InstanceId, LayerId, Name, OperationId, Sha256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use tokio::sync::{Notify, watch};

use crate::durable;
use crate::host_storage::Doomed;

/// What is wanted of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "wanted", rename_all = "snake_case")]
pub enum Wanted {
    Instance(Box<InstanceSpec>),
    Deleted {
        id: InstanceId,
        generation: Generation,
        /// Of the volumes that go with it.
        #[serde(default)]
        layers: Vec<LayerId>,
        /// Shared pools that some of the layers are in.
        #[serde(default)]
        pools: Vec<Name>,
        operation_id: Option<OperationId>,
    },
}

impl Wanted {
    pub fn id(&self) -> InstanceId {
        match self {
            Self::Instance(spec) => spec.id,
            Self::Deleted { id, .. } => *id,
        }
    }

    pub fn generation(&self) -> Generation {
        match self {
            Self::Instance(spec) => spec.generation,
            Self::Deleted { generation, .. } => *generation,
        }
    }

    /// The operation whose trail the steps belong to.
    pub fn operation_id(&self) -> Option<OperationId> {
        match self {
            Self::Instance(spec) => spec.operation_id,
            Self::Deleted { operation_id, .. } => *operation_id,
        }
    }

    pub fn disks(&self) -> &[Disk] {
        match self {
            Self::Instance(spec) => &spec.disks,
            Self::Deleted { .. } => &[],
        }
    }

    /// The layers that go with the instance.
    pub fn doomed(&self) -> Doomed<'_> {
        match self {
            Self::Instance(_) => Doomed::default(),
            Self::Deleted { layers, pools, .. } => Doomed { layers, pools },
        }
    }

    /// Whether it has disks that other hosts reach, too.
    pub fn is_shared(&self) -> bool {
        self.disks().iter().any(|disk| disk.volume.pool.is_some())
    }

    /// What is to be kept of its guest's memory.
    pub fn save_memory(&self) -> Option<&SaveMemory> {
        match self {
            Self::Instance(spec) => spec.save_memory.as_ref(),
            Self::Deleted { .. } => None,
        }
    }

    /// The part of this host in a migration.
    pub fn migration(&self) -> Option<Migration> {
        match self {
            Self::Instance(spec) => spec.migration,
            Self::Deleted { .. } => None,
        }
    }

    pub fn nics(&self) -> &[Nic] {
        match self {
            Self::Instance(spec) => &spec.nics,
            Self::Deleted { .. } => &[],
        }
    }

    fn from_body(body: &DesiredBody) -> Option<Self> {
        match body {
            DesiredBody::Instance(spec) => Some(Self::Instance(spec.clone())),
            DesiredBody::DeleteInstance { id, generation, layers, pools, operation_id } => {
                Some(Self::Deleted {
                    id: *id,
                    generation: *generation,
                    layers: layers.clone(),
                    pools: pools.clone(),
                    operation_id: *operation_id,
                })
            }
            DesiredBody::Network(_)
            | DesiredBody::SendSerialLog { .. }
            | DesiredBody::SendImage { .. }
            | DesiredBody::TakeDisks { .. }
            | DesiredBody::GiveDisks { .. }
            | DesiredBody::RemoveLayers { .. }
            | DesiredBody::Unknown => None,
        }
    }
}

/// Something is wanted of an instance, unless the control plane no longer knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// Unknown to the control plane: do nothing.
    #[serde(default)]
    set_aside: bool,
    #[serde(serialize_with = "serialize_shared", deserialize_with = "deserialize_shared")]
    wanted: Arc<Wanted>,
}

fn serialize_shared<S: Serializer>(wanted: &Arc<Wanted>, serializer: S) -> Result<S::Ok, S::Error> {
    wanted.as_ref().serialize(serializer)
}

fn deserialize_shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Wanted>, D::Error> {
    Wanted::deserialize(deserializer).map(Arc::new)
}

/// See the module.
#[derive(Debug)]
pub struct DesiredStore {
    folder: Utf8PathBuf,
    entries: Mutex<HashMap<InstanceId, Entry>>,
    /// Counts the changes.
    changes: watch::Sender<u64>,
    /// Wishes were refused because their instance was deleted here; the record of that is not forgotten yet.
    refused: Mutex<HashSet<InstanceId>>,
    /// A wish that was refused would be taken by now.
    asked_anew: Notify,
}

impl DesiredStore {
    /// Opens the store in `folder`, which is made when it is missing.
    pub fn open(folder: Utf8PathBuf) -> io::Result<Self> {
        durable::make_folder(&folder)?;
        let entries = durable::read_json_folder(&folder)?.into_iter().collect();
        let (entries, changes) = (Mutex::new(entries), watch::Sender::new(0));
        Ok(Self { folder, entries, changes, refused: Mutex::default(), asked_anew: Notify::new() })
    }

    /// What is wanted of an instance; `None` when nothing is, or nobody knows.
    pub fn get(&self, id: InstanceId) -> Option<Arc<Wanted>> {
        self.lock().get(&id).filter(|entry| !entry.set_aside).map(|entry| Arc::clone(&entry.wanted))
    }

    /// The images of all instances, also of those that the control plane does not know any more.
    pub fn images(&self) -> HashSet<Sha256> {
        let entries = self.lock();
        let disks = entries.values().flat_map(|entry| entry.wanted.disks());
        disks.filter_map(|disk| Some(disk.volume.image.as_ref()?.sha256)).collect()
    }

    /// Every instance of which something is wanted.
    pub fn ids(&self) -> Vec<InstanceId> {
        self.lock().iter().filter(|(_, entry)| !entry.set_aside).map(|(id, _)| *id).collect()
    }

    /// What was wanted of one that the control plane does not know any more.
    pub fn last_spec(&self, id: InstanceId) -> Option<UnknownSpec> {
        let entries = self.lock();
        match &*entries.get(&id).filter(|entry| entry.set_aside)?.wanted {
            Wanted::Instance(spec) => Some(UnknownSpec::of(spec)),
            Wanted::Deleted { .. } => None,
        }
    }

    /// What was wanted of those that the control plane does not know any more.
    pub fn set_aside(&self) -> Vec<Arc<Wanted>> {
        let entries = self.lock();
        entries.values().filter(|entry| entry.set_aside).map(|entry| Arc::clone(&entry.wanted)).collect()
    }

    /// Takes a page in. When this returns, it is on disk; the instances whose wishes changed are named.
    pub fn take(&self, page: &DesiredPage) -> io::Result<Vec<InstanceId>> {
        let changes = {
            let entries = self.lock();
            let (changes, refused) = changes(&entries, page);
            self.refused().extend(refused);
            changes
        };
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut files = Vec::with_capacity(changes.len());
        for (id, entry) in &changes {
            files.push((file_name(*id), serde_json::to_vec(entry)?));
        }
        durable::write_all(
            &self.folder,
            files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())),
        )?;
        let changed = changes.keys().copied().collect();
        self.lock().extend(changes);
        self.changes.send_modify(|count| *count += 1);
        Ok(changed)
    }

    /// Forgets a deletion that is done and acknowledged. False when something else is wanted by now. An instance that came
    /// back here meanwhile was refused, and nobody names it a second time: see [`Self::asks_anew`].
    pub fn forget_deleted(&self, id: InstanceId, acknowledged: Generation) -> io::Result<bool> {
        let done = |entry: &Entry| match *entry.wanted {
            Wanted::Deleted { generation, .. } => generation == acknowledged,
            Wanted::Instance(_) => false,
        };
        if !self.lock().get(&id).is_some_and(done) {
            return Ok(false);
        }
        durable::remove(&path(&self.folder, id))?;
        let was_refused = {
            let mut entries = self.lock();
            entries.remove(&id);
            self.refused().remove(&id)
        };
        self.changes.send_modify(|count| *count += 1);
        if was_refused {
            self.asked_anew.notify_one();
        }
        Ok(true)
    }

    /// Returns when the control plane has to be asked for everything, because a wish that was refused would be taken by
    /// now. For one caller; each time is told once.
    pub async fn asks_anew(&self) {
        self.asked_anew.notified().await;
    }

    /// Returns when something else than `wanted` is wanted of its instance.
    pub async fn superseded(&self, wanted: &Arc<Wanted>) {
        let mut changes = self.changes.subscribe();
        // The sender lives in `self`, so the channel cannot be closed.
        while self.get(wanted.id()).is_some_and(|now| Arc::ptr_eq(&now, wanted))
            && changes.changed().await.is_ok()
        {}
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever needs the entries, too, locks them first.
    fn refused(&self) -> MutexGuard<'_, HashSet<InstanceId>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_name(id: InstanceId) -> String {
    format!("{id}.json")
}

fn path(folder: &Utf8Path, id: InstanceId) -> Utf8PathBuf {
    folder.join(file_name(id))
}

/// The entries that a page changes, and the instances that it names in vain because they were deleted here.
fn changes(
    entries: &HashMap<InstanceId, Entry>,
    page: &DesiredPage,
) -> (HashMap<InstanceId, Entry>, Vec<InstanceId>) {
    let mut changes: HashMap<InstanceId, Entry> = HashMap::new();
    let mut refused = Vec::new();
    let mut named = HashSet::new();
    for wanted in page.objects.iter().filter_map(|object| Wanted::from_body(&object.body)) {
        let id = wanted.id();
        named.insert(id);
        let known = changes.get(&id).or_else(|| entries.get(&id));
        if let Some(refusal) = known.and_then(|known| refusal(&known.wanted, &wanted)) {
            tracing::warn!(instance = %id, generation = %wanted.generation(), %refusal, "desired state refused");
            if refusal == Refusal::Deleted {
                refused.push(id);
            }
            continue;
        }
        if known.is_none_or(|known| known.set_aside || *known.wanted != wanted) {
            changes.insert(id, Entry { set_aside: false, wanted: Arc::new(wanted) });
        }
    }
    if page.complete {
        for (id, entry) in
            entries.iter().filter(|(id, entry)| !named.contains(*id) && may_be_set_aside(entry))
        {
            tracing::warn!(instance = %id, "unknown to the control plane: set aside, left as it is");
            changes.insert(*id, Entry { set_aside: true, wanted: Arc::clone(&entry.wanted) });
        }
    }
    (changes, refused)
}

/// Why a wish is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
enum Refusal {
    #[error("it was deleted")]
    Deleted,
    #[error("a newer generation has been seen")]
    Older,
}

/// INVARIANT: a generation never goes back, and a deletion is never taken back: an instance that returns waits until the
/// record of its deletion is forgotten.
fn refusal(known: &Wanted, new: &Wanted) -> Option<Refusal> {
    match (known, new) {
        (Wanted::Deleted { .. }, Wanted::Instance(_)) => Some(Refusal::Deleted),
        _ if new.generation() < known.generation() => Some(Refusal::Older),
        _ => None,
    }
}

/// A recorded deletion is carried out even when the control plane has forgotten it in the meantime.
fn may_be_set_aside(entry: &Entry) -> bool {
    !entry.set_aside && matches!(*entry.wanted, Wanted::Instance(_))
}

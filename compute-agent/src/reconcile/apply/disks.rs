//! The steps about disks: made, plugged in and out, changed, snapshotted and merged.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use protocol::agent::{Disk, ImageSource, InstanceSpec, MemoryFile, NOT_FROZEN, NotTaken};
use protocol::{InstanceId, Name, VolumeId};

use super::{Reconciler, StepError, unless_ignored};
use crate::desired::Wanted;
use crate::host_storage::{BoxError, ByteStream, HostStorageError};
use crate::hypervisor::{Beside, DomainDisk, HypervisorError, Merge, NewLayer};
use crate::reconcile::plan::{AddedLayer, MergeStep, tuning};

/// How soon to look whether a merge is done.
const MERGE_LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How soon to try again what the hypervisor or the guest refused.
const TRY_AGAIN: Duration = Duration::from_secs(15);

const NOT_ATTACHED: &str =
    "The host could not plug a disk in yet. Should that last, stop and start the instance.";
const NOT_CHANGED: &str = "The host could not change a disk.";
const NO_SNAPSHOT: &str = "The host could not take the snapshot.";
const NO_MEMORY: &str = "The host could not save the memory of the guest for the snapshot.";

impl Reconciler {
    /// Fetches, unless something else is wanted in the meantime. An unfinished download is no finished image.
    pub(super) async fn ensure_bases(&self, wanted: &Arc<Wanted>) -> Result<(), StepError> {
        let volumes = wanted.disks().iter().map(|disk| &disk.volume);
        let images = volumes.filter_map(|volume| Some((volume.pool.as_ref(), volume.image.as_ref()?)));
        let fetch_all = async {
            for (pool, image) in images {
                self.fetch(pool, image).await?;
            }
            Ok(())
        };
        tokio::select! {
            done = fetch_all => done,
            () = self.parts.desired.superseded(wanted) => Err(StepError::LookAgain),
        }
    }

    pub(super) async fn ensure_volumes(
        &self,
        spec: &InstanceSpec,
        volumes: &[VolumeId],
    ) -> Result<(), StepError> {
        let _turn = self.turn().await;
        for volume in volumes {
            self.parts.storage.ensure_volume(&disk(spec, *volume)?.volume).await?;
        }
        Ok(())
    }

    /// Asked for by one of those who need the image; the others wait without taking up a place.
    async fn fetch(&self, pool: Option<&Name>, image: &ImageSource) -> Result<(), StepError> {
        let (control_plane, sha256) = (Arc::clone(&self.parts.control_plane), image.sha256);
        let downloads = Arc::clone(&self.limits.downloads);
        let fetch = async move {
            let place = downloads.acquire_owned().await?;
            let bytes = control_plane.blob(sha256).await?;
            // The place is taken until the last byte.
            Ok::<ByteStream, BoxError>(bytes.inspect(move |_| _ = &place).boxed())
        };
        let needed = || self.parts.desired.images();
        Ok(self.parts.storage.ensure_base(pool, image, &needed, fetch.boxed()).await?)
    }

    pub(super) async fn attach_disk(&self, spec: &InstanceSpec, volume: VolumeId) -> Result<(), StepError> {
        let _turn = self.turn().await;
        let disk = disk(spec, volume)?;
        let attached = self.parts.hypervisor.attach_disk(spec.id, &self.domain_disk(disk).await?).await;
        attached.map_err(|error| StepError::of(error, NOT_ATTACHED))?;
        self.remember(spec.id, |memory| memory.tuned.extend([tuning(disk)]));
        Ok(())
    }

    pub(super) async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<(), StepError> {
        let _turn = self.turn().await;
        let now = self.parts.clock.now();
        let asked = self.parts.hypervisor.detach_disk(id, volume).await;
        self.remember(id, |memory| {
            memory.letting_go.insert(volume, now);
        });
        unless_ignored(id, asked)
    }

    pub(super) async fn tune_disk(&self, spec: &InstanceSpec, volume: VolumeId) -> Result<(), StepError> {
        let _turn = self.turn().await;
        let disk = disk(spec, volume)?;
        let size = disk.volume.size_gib;
        let tuned = self.parts.hypervisor.tune_disk(spec.id, volume, size, disk.limits).await;
        tuned.map_err(|error| StepError::of(error, NOT_CHANGED))?;
        self.remember(spec.id, |memory| memory.tuned.extend([tuning(disk)]));
        Ok(())
    }

    /// The files come first: what is killed before the snapshot leaves empty layers, which the next one takes.
    ///
    /// INVARIANT: before a guest is frozen it is written down that it may be, and that stays until it was seen to be
    /// thawed: whoever dies on the way, the next agent thaws it.
    pub(super) async fn snapshot(
        &self,
        wanted: &Arc<Wanted>,
        layers: &[AddedLayer],
        memory: Option<&MemoryFile>,
    ) -> Result<(), StepError> {
        let (spec, turn) = (super::instance(wanted)?, self.turn().await);
        let (id, mut new) = (spec.id, Vec::with_capacity(layers.len()));
        for added in layers {
            let disk = disk(spec, added.volume)?;
            self.parts.storage.add_layer(&disk.volume, added.layer, added.below).await?;
            let layer = self.parts.storage.layer(disk.volume.pool.as_ref(), added.layer).await?;
            new.push(NewLayer { volume: added.volume, shared: disk.volume.pool.is_some(), layer });
        }
        if let Some(memory) = memory {
            drop(turn);
            return self.snapshot_with_memory(wanted, spec, &new, memory).await;
        }
        if !spec.freeze {
            let taken = self.parts.hypervisor.snapshot(id, &new, &Beside::Nothing).await;
            return taken.map_err(|error| StepError::of(error, NO_SNAPSHOT));
        }
        // A guest may take its time.
        drop(turn);
        self.amend_record(id, |record| record.freezing = true).await?;
        let taken = self.parts.hypervisor.snapshot(id, &new, &Beside::Rest).await;
        match &taken {
            Ok(()) | Err(HypervisorError::NoGuestAgent) => {
                self.amend_record(id, |record| record.freezing = false).await?;
            }
            // When that fails, too, it is a step of its own.
            Err(_) => drop(self.thaw(id).await),
        }
        let not_taken = match &taken {
            Err(HypervisorError::NoGuestAgent) => NotTaken::NoGuestAgent,
            Err(HypervisorError::NotFrozen(_)) => NotTaken::NotFrozen,
            _ => return taken.map_err(|error| StepError::of(error, NO_SNAPSHOT)),
        };
        self.remember(id, |memory| memory.not_taken = Some((spec.generation, not_taken)));
        taken.map_err(|error| StepError::of(error, NOT_FROZEN))
    }

    /// The memory has its name when the guest has its layers. Whoever dies in between leaves the layers alone, and so no
    /// snapshot.
    async fn snapshot_with_memory(
        &self,
        wanted: &Arc<Wanted>,
        spec: &InstanceSpec,
        layers: &[NewLayer],
        memory: &MemoryFile,
    ) -> Result<(), StepError> {
        let refuse = |why| self.remember(spec.id, |memory| memory.not_taken = Some((spec.generation, why)));
        let new = match self.parts.storage.new_memory(memory.pool.as_ref(), spec.memory_mib).await {
            Err(error @ HostStorageError::Full(_)) => {
                refuse(NotTaken::NoRoom);
                return Err(error.into());
            }
            new => new?,
        };
        let beside = Beside::Memory { file: new.path(), size: spec.memory_mib };
        if let Err(error) = self.parts.hypervisor.snapshot(spec.id, layers, &beside).await {
            if matches!(error, HypervisorError::Refused { .. }) {
                refuse(NotTaken::MemoryNotSaved);
            }
            return Err(StepError::of(error, NO_MEMORY));
        }
        new.flush().await?;
        // Who needs it no longer has perhaps had it removed already.
        let newest = self.parts.desired.get(spec.id);
        let save = newest.as_ref().and_then(|newest| newest.save_memory());
        if save.is_none_or(|save| save.file != *memory) {
            tracing::info!(instance = %wanted.id(), "the memory that was saved is not wanted any more");
            return Ok(());
        }
        Ok(new.publish(memory.id).await?)
    }

    pub(super) async fn thaw(&self, id: InstanceId) -> Result<(), StepError> {
        match self.parts.hypervisor.thaw(id).await {
            Ok(()) => {
                self.remember(id, |memory| memory.thaw_again = None);
                self.amend_record(id, |record| record.freezing = false).await
            }
            Err(error @ HypervisorError::Unreachable(_)) => Err(StepError::Blind(error)),
            refused => {
                let again = self.parts.clock.now() + TRY_AGAIN;
                self.remember(id, |memory| memory.thaw_again = Some(again));
                unless_ignored(id, refused)
            }
        }
    }

    pub(super) async fn merge(&self, spec: &InstanceSpec, step: &MergeStep) -> Result<(), StepError> {
        let _turn = self.turn().await;
        let (now, volume) = (self.parts.clock.now(), step.volume);
        let (id, pool) = (spec.id, disk(spec, volume)?.volume.pool.as_ref());
        let storage = &self.parts.storage;
        let (into, from) = (storage.layer(pool, step.into).await?, storage.layer(pool, step.from).await?);
        let asked = self.parts.hypervisor.merge(id, &Merge { volume, into, from }).await;
        let again = now + if asked.is_ok() { MERGE_LOOK_AGAIN } else { TRY_AGAIN };
        self.remember(id, |memory| {
            memory.merging.insert(volume, again);
        });
        unless_ignored(id, asked)
    }

    /// Ends early when something else is wanted. What was cut off is begun again.
    pub(super) async fn merge_at_rest(
        &self,
        wanted: &Arc<Wanted>,
        volumes: &[VolumeId],
    ) -> Result<(), StepError> {
        self.ensure_bases(wanted).await?;
        let disks = wanted.disks().iter().filter(|disk| volumes.contains(&disk.volume.id));
        let merge_all = async {
            let Ok(_turn) = self.limits.merges.acquire().await else { return Err(StepError::LookAgain) };
            for disk in disks {
                self.parts.storage.ensure_volume(&disk.volume).await?;
                self.parts.storage.merge_layers(&disk.volume).await?;
            }
            Ok(())
        };
        tokio::select! {
            done = merge_all => done,
            () = self.parts.desired.superseded(wanted) => Err(StepError::LookAgain),
        }
    }

    pub(super) async fn domain_disk(&self, disk: &Disk) -> Result<DomainDisk, StepError> {
        let chain = self.parts.storage.chain(&disk.volume).await?;
        Ok(DomainDisk {
            volume: disk.volume.id,
            shared: disk.volume.pool.is_some(),
            size_gib: disk.volume.size_gib,
            limits: disk.limits,
            base: chain.base,
            layers: chain.layers,
        })
    }
}

/// The disk with the volume, or a fresh look if it is not wanted any more.
fn disk(spec: &InstanceSpec, volume: VolumeId) -> Result<&Disk, StepError> {
    spec.disks.iter().find(|disk| disk.volume.id == volume).ok_or(StepError::LookAgain)
}

//! The steps about disks: made, plugged in and out, changed, snapshotted and merged.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use protocol::agent::{Disk, ImageSource, InstanceSpec};
use protocol::{InstanceId, LayerId, Name, VolumeId};

use super::{Reconciler, StepError, unless_ignored};
use crate::desired::Wanted;
use crate::host_storage::{BoxError, ByteStream};
use crate::hypervisor::{DomainDisk, Merge, NewLayer};
use crate::reconcile::plan::{MergeStep, tuning};

const NOT_ATTACHED: &str =
    "The host could not plug a disk in yet. Should that last, stop and start the instance.";
const NOT_CHANGED: &str = "The host could not change a disk.";
const NO_SNAPSHOT: &str = "The host could not take the snapshot.";
const NOT_FROZEN: &str =
    "The guest's file systems could not be frozen for the snapshot: the guest agent has to run in it.";

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
        let attached = self.parts.hypervisor.attach_disk(spec.id, &self.domain_disk(disk)).await;
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
        let tuned = self.parts.hypervisor.tune_disk(spec.id, &self.domain_disk(disk)).await;
        tuned.map_err(|error| StepError::of(error, NOT_CHANGED))?;
        self.remember(spec.id, |memory| memory.tuned.extend([tuning(disk)]));
        Ok(())
    }

    /// The files come first: what is killed before the snapshot leaves empty layers, which the next one takes.
    pub(super) async fn snapshot(
        &self,
        spec: &InstanceSpec,
        layers: &[(VolumeId, LayerId)],
    ) -> Result<(), StepError> {
        let _turn = self.turn().await;
        let mut new = Vec::with_capacity(layers.len());
        for (volume, layer) in layers {
            let disk = disk(spec, *volume)?;
            self.parts.storage.add_layer(&disk.volume, *layer).await?;
            new.push(NewLayer {
                volume: *volume,
                layer: self.parts.storage.layer(disk.volume.pool.as_ref(), *layer),
            });
        }
        let taken = self.parts.hypervisor.snapshot(spec.id, &new, spec.freeze).await;
        taken.map_err(|error| StepError::of(error, if spec.freeze { NOT_FROZEN } else { NO_SNAPSHOT }))
    }

    pub(super) async fn merge(&self, spec: &InstanceSpec, step: &MergeStep) -> Result<(), StepError> {
        let _turn = self.turn().await;
        let (now, volume) = (self.parts.clock.now(), step.volume);
        let (id, pool) = (spec.id, disk(spec, volume)?.volume.pool.as_ref());
        let [into, from] = [step.into, step.from].map(|layer| self.parts.storage.layer(pool, layer));
        let merge = Merge { volume, into, from, is_top: step.is_top };
        let asked = self.parts.hypervisor.merge(id, &merge).await;
        self.remember(id, |memory| {
            memory.merging.insert(volume, now);
        });
        unless_ignored(id, asked)
    }

    pub(super) fn domain_disk(&self, disk: &Disk) -> DomainDisk {
        let chain = self.parts.storage.chain(&disk.volume);
        DomainDisk {
            volume: disk.volume.id,
            shared: disk.volume.pool.is_some(),
            size_gib: disk.volume.size_gib,
            limits: disk.limits,
            base: chain.base,
            layers: chain.layers,
        }
    }
}

/// The disk with the volume, or a fresh look if it is not wanted any more.
fn disk(spec: &InstanceSpec, volume: VolumeId) -> Result<&Disk, StepError> {
    spec.disks.iter().find(|disk| disk.volume.id == volume).ok_or(StepError::LookAgain)
}

//! The decision about the disks of an instance. Pure.
//!
//! A disk is told by its volume. Like a card, it is pulled out only with the help of the guest, and nothing
//! waits for that but those who want the volume elsewhere.

use std::time::Duration;

use protocol::agent::{Disk, InstanceSpec, MemoryFile, VolumeReport, VolumeSpec, VolumeState};
use protocol::{Generation, LayerId, VolumeId};
use time::OffsetDateTime;

use super::chains::{Chain, broken, chain_of};
use super::guarded::plan_unguard;
use super::plan::{AddedLayer, MergeStep, Plan, Seen, Step};
use crate::desired::Wanted;
use crate::host_storage::BROKEN_CHAIN;
use crate::hypervisor::{Domain, SeenVolume};

/// How often a guest is asked to let go of a disk.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// How soon to look whether it has, or whether layers are merged.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The volumes that no guest of this instance has open, so that their files may be changed, and the others.
pub(super) fn idle<'a>(
    wanted: &'a Wanted,
    live: Option<&Domain>,
) -> (Vec<&'a VolumeSpec>, Vec<&'a VolumeSpec>) {
    let is_open = |volume: &&VolumeSpec| live.is_some_and(|domain| domain.volume(volume.id).is_some());
    wanted.disks().iter().map(|disk| &disk.volume).partition(|volume| !is_open(volume))
}

/// What is left to do for an instance of which no domain is there and none is wanted.
pub(super) fn plan_at_rest(seen: &Seen) -> Plan {
    if let Some(unguard) = plan_unguard(seen) {
        return Plan::Do(unguard);
    }
    let volumes = seen.files.to_merge.clone();
    if volumes.is_empty() || seen.domain.is_some() {
        return Plan::Settled;
    }
    Plan::Do(Step::MergeAtRest { volumes })
}

/// What has to be done before a domain can have the disks; `None` when it can.
pub(super) fn plan_files(volumes: Vec<VolumeId>, seen: &Seen) -> Option<Step> {
    if !seen.files.bases {
        Some(Step::EnsureBases)
    } else if !seen.files.volumes {
        Some(Step::EnsureVolumes { volumes })
    } else {
        None
    }
}

/// Makes the disks of a running domain those that are wanted.
pub(super) fn plan_disks(spec: &InstanceSpec, domain: &Domain, seen: &Seen, now: OffsetDateTime) -> Plan {
    let leaving: Vec<_> = leaving(spec, domain).collect();
    let asked = |volume: &VolumeId| seen.memory.letting_go.get(volume).copied();
    if let Some(volume) = leaving.iter().find(|volume| asked(volume).is_none_or(|at| now >= at + ASK_AGAIN)) {
        return Plan::Do(Step::DetachDisk { volume: *volume });
    }
    let missing: Vec<_> = volumes(spec).filter(|volume| domain.volume(*volume).is_none()).collect();
    if let Some(first) = missing.first().copied() {
        return Plan::Do(plan_files(missing, seen).unwrap_or(Step::AttachDisk { volume: first }));
    }
    let chains = || spec.disks.iter().map(|disk| (disk, chain_of(&disk.volume, domain)));
    let added = added_layers(spec, domain);
    // All at one instant, or none.
    let is_whole = broken(spec, domain).next().is_none();
    let must_thaw_first = spec.freeze && seen.may_be_frozen();
    if !added.is_empty() && is_whole && !must_thaw_first {
        let memory = memory_of(spec, &added, seen);
        return Plan::Do(Step::Snapshot { layers: added, memory });
    }
    let merges: Vec<_> = chains().filter_map(|(disk, chain)| merge_of(disk, &chain?)).collect();
    let is_due = |one: &&MergeStep| seen.memory.merging.get(&one.volume).is_none_or(|at| now >= *at);
    if let Some(due) = merges.iter().find(is_due) {
        return Plan::Do(Step::Merge(due.clone()));
    }
    // While layers are merged, the disk cannot be changed.
    let is_merging = |disk: &Disk| merges.iter().any(|one| one.volume == disk.volume.id);
    if let Some(disk) = spec.disks.iter().find(|disk| !is_tuned(disk, seen) && !is_merging(disk)) {
        return Plan::Do(Step::TuneDisk { volume: disk.volume.id });
    }
    let is_told = |disk: &Disk, chain: &Chain| merged(disk, chain, seen).len() == disk.volume.merges.len();
    let all_told = chains().all(|(disk, chain)| chain.is_none_or(|chain| is_told(disk, &chain)));
    let is_done = leaving.is_empty() && all_told && (added.is_empty() || !is_whole);
    if is_done { Plan::Settled } else { Plan::Wait(now + LOOK_AGAIN) }
}

/// The volumes that the instance has: in its domain, or for its next start.
pub(super) fn held(wanted: &Wanted, seen: &Seen, is_preparing: bool) -> Vec<VolumeReport> {
    let Some(domain) = seen.live() else {
        let state = if is_preparing { VolumeState::Preparing } else { VolumeState::Ready };
        let is_merged = |layer: &LayerId| seen.files.merged.contains(layer);
        let merged = |disk: &Disk| disk.volume.merges.iter().copied().filter(is_merged).collect();
        return wanted.disks().iter().map(|disk| report(disk, state, merged(disk))).collect();
    };
    let held = |disk: &Disk| {
        let chain = chain_of(&disk.volume, domain);
        // Merging goes on behind what the guest has.
        let has_top = chain.as_ref().is_some_and(|chain| chain.missing.is_empty());
        let ready = has_top && domain.volume(disk.volume.id).is_some() && is_tuned(disk, seen);
        let state = if ready { VolumeState::Ready } else { VolumeState::Preparing };
        report(disk, state, chain.map(|chain| merged(disk, &chain, seen)).unwrap_or_default())
    };
    let wanted_here = wanted.disks().iter().map(held);
    let is_leaving = |volume: &&SeenVolume| !wanted.disks().iter().any(|disk| disk.volume.id == volume.id);
    let leaving = domain.volumes.iter().filter(is_leaving).map(|volume| VolumeReport {
        id: volume.id,
        generation: Generation(0),
        state: VolumeState::Detaching,
        merged: Vec::new(),
    });
    wanted_here.chain(leaving).collect()
}

/// Why the disks are not yet as wanted, for the instance's owner.
pub(super) fn waiting(spec: &InstanceSpec, seen: &Seen) -> Option<String> {
    let domain = seen.live()?;
    if broken(spec, domain).next().is_some() {
        return Some(BROKEN_CHAIN.to_owned());
    }
    let volume = leaving(spec, domain).next()?;
    Some(format!("The guest has been asked to let go of the disk {}.", volume.serial()))
}

/// The next layer of each volume that lacks one at its top in the domain. Those that lack more than others come first:
/// the last ones are those that all get at one instant.
fn added_layers(spec: &InstanceSpec, domain: &Domain) -> Vec<AddedLayer> {
    let missing = |volume: &VolumeSpec| chain_of(volume, domain).map_or(0, |chain| chain.missing.len());
    let most = spec.disks.iter().map(|disk| missing(&disk.volume)).max().unwrap_or_default();
    let next = |volume: &VolumeSpec| {
        let layer = chain_of(volume, domain)?.missing.first().copied()?;
        let below = domain.volume(volume.id)?.layers.last().copied()?;
        Some(AddedLayer { volume: volume.id, layer, below })
    };
    let due = spec.disks.iter().map(|disk| &disk.volume).filter(|volume| missing(volume) == most);
    due.filter_map(next).collect()
}

/// The memory that is kept with these layers: of their instant, or none.
fn memory_of(spec: &InstanceSpec, added: &[AddedLayer], seen: &Seen) -> Option<MemoryFile> {
    let save = spec.save_memory.as_ref().filter(|_| !seen.memory_saved)?;
    let is_added = |layer: &LayerId| added.iter().any(|one| one.layer == *layer);
    save.above.iter().all(is_added).then(|| save.file.clone())
}

fn merge_of(disk: &Disk, chain: &Chain) -> Option<MergeStep> {
    chain.merge.map(|[into, from]| MergeStep { volume: disk.volume.id, into, from })
}

/// The layers to merge that are merged: the domain does not have them, and the files say so, too.
fn merged(disk: &Disk, chain: &Chain, seen: &Seen) -> Vec<LayerId> {
    let is_merged = |layer: &LayerId| chain.merged.contains(layer) && seen.files.merged.contains(layer);
    disk.volume.merges.iter().copied().filter(is_merged).collect()
}

fn report(disk: &Disk, state: VolumeState, merged: Vec<LayerId>) -> VolumeReport {
    VolumeReport { id: disk.volume.id, generation: disk.volume.generation, state, merged }
}

/// Volumes that the domain has and shall not have.
fn leaving(spec: &InstanceSpec, domain: &Domain) -> impl Iterator<Item = VolumeId> {
    let is_leaving = |volume: &VolumeId| !volumes(spec).any(|wanted| wanted == *volume);
    domain.volumes.iter().map(|volume| volume.id).filter(is_leaving)
}

fn volumes(spec: &InstanceSpec) -> impl Iterator<Item = VolumeId> {
    spec.disks.iter().map(|disk| disk.volume.id)
}

fn is_tuned(disk: &Disk, seen: &Seen) -> bool {
    seen.memory.tuned.get(&disk.volume.id) == Some(&(disk.volume.size_gib, disk.limits))
}

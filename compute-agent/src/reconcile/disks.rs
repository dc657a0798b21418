//! The decision about the disks of an instance. Pure.
//!
//! A disk is told by its volume. Like a card, it is pulled out only with the help of the guest, and nothing
//! waits for that but those who want the volume elsewhere.

use std::time::Duration;

use protocol::agent::{Disk, InstanceSpec, VolumeReport, VolumeSpec, VolumeState};
use protocol::{Generation, LayerId, VolumeId};
use time::OffsetDateTime;

use super::plan::{MergeStep, Plan, Seen, Step};
use crate::desired::Wanted;
use crate::hypervisor::{Domain, SeenVolume};

/// How often a guest is asked to let go of a disk.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// How soon to look whether it has.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The volumes that no guest of this instance has open: their files may be looked at and changed.
pub(super) fn idle<'a>(wanted: &'a Wanted, live: Option<&Domain>) -> Vec<&'a VolumeSpec> {
    let is_open = |volume: &&VolumeSpec| live.is_some_and(|domain| domain.volume(volume.id).is_some());
    wanted.disks().iter().map(|disk| &disk.volume).filter(|volume| !is_open(volume)).collect()
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
    let added = added_layers(spec, domain);
    if !added.is_empty() {
        return Plan::Do(Step::Snapshot { layers: added });
    }
    let merges: Vec<_> = spec.disks.iter().filter_map(|disk| merge_of(&disk.volume, domain)).collect();
    let looked_after = |volume| seen.memory.merging.get(volume).copied();
    if let Some(due) =
        merges.iter().find(|one| looked_after(&one.volume).is_none_or(|at| now >= at + LOOK_AGAIN))
    {
        return Plan::Do(Step::Merge(due.clone()));
    }
    // While layers are merged, the disk cannot be changed.
    let is_merging = |disk: &Disk| merges.iter().any(|one| one.volume == disk.volume.id);
    if let Some(disk) = spec.disks.iter().find(|disk| !is_tuned(disk, seen) && !is_merging(disk)) {
        return Plan::Do(Step::TuneDisk { volume: disk.volume.id });
    }
    if leaving.is_empty() && merges.is_empty() { Plan::Settled } else { Plan::Wait(now + LOOK_AGAIN) }
}

/// The volumes that the instance has: in its domain, or for its next start.
pub(super) fn held(wanted: &Wanted, seen: &Seen, is_preparing: bool) -> Vec<VolumeReport> {
    let Some(domain) = seen.live() else {
        let state = if is_preparing { VolumeState::Preparing } else { VolumeState::Ready };
        return wanted.disks().iter().map(|disk| report(disk, state)).collect();
    };
    let state = |disk: &Disk| {
        let has_layers = domain.volume(disk.volume.id).is_some_and(|seen| seen.layers == disk.volume.layers);
        let ready = has_layers && is_tuned(disk, seen);
        if ready { VolumeState::Ready } else { VolumeState::Preparing }
    };
    let wanted_here = wanted.disks().iter().map(|disk| report(disk, state(disk)));
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
    let volume = leaving(spec, seen.live()?).next()?;
    Some(format!("The guest has been asked to let go of the disk {}.", volume.serial()))
}

/// The next layer of each volume whose chain in the domain has an end in the wanted one.
fn added_layers(spec: &InstanceSpec, domain: &Domain) -> Vec<(VolumeId, LayerId)> {
    let next = |volume: &VolumeSpec| {
        let top = domain.volume(volume.id)?.layers.last().copied()?;
        let above = volume.layers.iter().skip_while(|layer| **layer != top).nth(1)?;
        Some((volume.id, *above))
    };
    spec.disks.iter().filter_map(|disk| next(&disk.volume)).collect()
}

/// The first layer in the domain's chain that is wanted no more, and the one below it.
fn merge_of(volume: &VolumeSpec, domain: &Domain) -> Option<MergeStep> {
    let seen = domain.volume(volume.id)?;
    let is_excess = |pair: &&[LayerId]| volume.layers.contains(&pair[0]) && !volume.layers.contains(&pair[1]);
    let pair = seen.layers.windows(2).find(is_excess)?;
    let is_top = seen.layers.last() == Some(&pair[1]);
    Some(MergeStep { volume: volume.id, into: pair[0], from: pair[1], is_top })
}

fn report(disk: &Disk, state: VolumeState) -> VolumeReport {
    VolumeReport { id: disk.volume.id, generation: disk.volume.generation, state, merged: Vec::new() }
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

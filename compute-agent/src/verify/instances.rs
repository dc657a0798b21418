//! Instances: what the planner would do next, and what it has no step for.

use std::collections::{HashMap, HashSet};

use networking::names;
use protocol::InstanceId;
use protocol::agent::{DriftCode, DriftSubject, PauseReason, VolumeSpec};
use time::OffsetDateTime;
use uuid::Uuid;

use super::pools::Pools;
use super::{Difference, Host};
use crate::desired::Wanted;
use crate::host_storage::Files;
use crate::hypervisor::{Domain, DomainState};
use crate::networks::{Readiness, devices};
use crate::reconcile::chains::broken;
use crate::reconcile::plan::{Memory, Plan, Seen, Step, plan, tuning};

/// What differs of the instances of which something is wanted.
pub(super) fn differences(
    host: &Host,
    domains: &HashMap<InstanceId, Domain>,
    pools: &Pools,
    machine_boot: Uuid,
    now: OffsetDateTime,
) -> Vec<Difference> {
    let devices = devices();
    let is_cached =
        |volume: &VolumeSpec| volume.image.as_ref().is_none_or(|image| pools.has_image(volume, image));
    let mut ids = host.desired.ids();
    ids.sort_unstable();
    let mut found = Vec::new();
    for wanted in ids.into_iter().filter_map(|id| host.desired.get(id)) {
        let id = wanted.id();
        let about = DriftSubject::Instance(id);
        let files = pools.local.instances.get(&id);
        let (domain, record) = (domains.get(&id).cloned(), host.boots.get(id));
        let live = domain.as_ref().filter(|domain| domain.state != DomainState::Off);
        let guard = host.guards.look(&wanted, record.as_ref().map(|record| record.boot), live);
        let seen = Seen {
            domain,
            record,
            guard: guard.unwrap_or_default(),
            files: Files {
                bases: volumes(&wanted).all(is_cached),
                volumes: volumes(&wanted).all(|volume| pools.has_layers(volume)),
                // What stands on what is written in files that guests use.
                to_merge: Vec::new(),
                merged: volumes(&wanted).flat_map(|volume| volume.merges.clone()).collect(),
                seed: files.is_some_and(|files| files.seed),
                any: files.is_some() || pools.has_any(wanted.doomed()),
            },
            // What is wrong with their networks is said of those.
            ports: wanted.nics().iter().map(|nic| (nic.port_id, Readiness::Ready)).collect(),
            has_room: false,
            machine_boot,
            memory_saved: false,
            transfer: None,
            networks: HashMap::new(),
            expected_at: None,
            // Sizes and limits of disks are known to the hypervisor alone.
            memory: Memory { tuned: wanted.disks().iter().map(tuning).collect(), ..Memory::default() },
        };
        if seen.domain.as_ref().is_some_and(|domain| domain.state == DomainState::Unreadable) {
            let detail =
                "look at its domain with virsh dumpxml: the agent cannot read it, and leaves it alone";
            found.push(Difference::new(DriftCode::InstanceUnreadable, about, detail.to_owned()));
            continue;
        }
        match seen.live().and_then(|domain| paused(domain.state)) {
            Some(detail) => found.push(Difference::new(DriftCode::InstanceStandsStill, about, detail)),
            None if pools.are_known(&wanted) => found.extend(next(&plan(&wanted, &seen, now), about)),
            None => {}
        }
        let missing = missing(&wanted, &seen, &devices).into_iter();
        found.extend(missing.map(|(code, detail)| Difference::new(code, about, detail)));
    }
    found
}

fn volumes(wanted: &Wanted) -> impl Iterator<Item = &VolumeSpec> {
    wanted.disks().iter().map(|disk| &disk.volume)
}

fn paused(state: DomainState) -> Option<String> {
    let DomainState::Paused(reason) = state else { return None };
    let text = match reason {
        PauseReason::PoolFull => "make room in the pool: its guest stands still until there is some",
        PauseReason::IoError => {
            "look at the disks of this host: reading or writing failed, and its guest stands still until that works"
        }
        PauseReason::Suspended => "let its guest go on with virsh resume: somebody has suspended it",
        PauseReason::Requested => return None,
    };
    Some(text.to_owned())
}

fn next(plan: &Plan, about: DriftSubject) -> Option<Difference> {
    match plan {
        Plan::Settled => None,
        Plan::Wait(_) => {
            let detail = "wait: it is on its way to what is wanted".to_owned();
            Some(Difference::passing("instances", about, detail))
        }
        // It may have been asked for, and take its time.
        Plan::Do(step @ Step::Merge(_)) => Some(Difference::passing("instances", about, words(step))),
        Plan::Do(step) => Some(Difference::new(DriftCode::InstanceDiffers, about, words(step))),
    }
}

fn words(step: &Step) -> String {
    let text = match step {
        Step::EnsureBases => "fetch its images",
        Step::EnsureVolumes { .. } => "make its disks",
        Step::EnsureNetwork => "make its networks",
        Step::EnsureSeed => "make its seed",
        Step::Guard(_) => "let the guard know of it",
        Step::Unguard => "let the guard forget it",
        Step::RecordStarting | Step::CreateDomain => "start it",
        Step::RecordStarted { .. } => "write down that it runs",
        Step::RecordStopping { .. } | Step::PressPowerButton => "ask its guest to stop",
        Step::AttachNic { .. } => "plug in a network card",
        Step::DetachNic { mac } => return format!("pull out the network card {mac}"),
        Step::AttachDisk { volume } => return format!("plug in the disk {}", volume.serial()),
        Step::DetachDisk { volume } => return format!("pull out the disk {}", volume.serial()),
        Step::TuneDisk { volume } => return format!("change the disk {}", volume.serial()),
        Step::Snapshot { .. } => "take a snapshot",
        Step::Thaw => "let its guest write again",
        Step::Merge(_) | Step::MergeAtRest { .. } => "merge layers of a disk",
        Step::RecordPaused { .. } => "write down whether it is to stand still",
        Step::Suspend => "let its guest stand still",
        Step::Resume => "let its guest go on",
        Step::RecordResumed => "write down that its guest goes on",
        Step::RecordIncoming { .. } | Step::CreateWaiting { .. } => {
            "make a place for its guest, which comes from another host"
        }
        Step::Expect { .. } => "listen for its guest, which comes from another host",
        Step::RecordArrived => "write down that its guest has come",
        Step::RecordOutgoing { .. } => "write down what becomes of its guest, which is to go to another host",
        Step::Mirror { .. } => "write what its guest writes to at another host, too",
        Step::Send { .. } | Step::SwitchOver { .. } => "send its guest to another host",
        Step::CallOff { .. } => "send its guest no further",
        Step::DestroyDomain => "cut its power",
        Step::RecordEnded { .. } => "write down that it has ended",
        Step::RemoveFiles => "remove its files",
        Step::ForgetRecord => "forget its boots",
    };
    text.to_owned()
}

/// What a running domain lacks. No step brings it back: the guest has to be stopped and started.
fn missing(wanted: &Wanted, seen: &Seen, devices: &HashSet<String>) -> Vec<(DriftCode, String)> {
    let (Wanted::Instance(spec), Some(domain)) = (wanted, seen.live()) else { return Vec::new() };
    let files = [("disk", seen.files.volumes), ("image", seen.files.bases), ("seed", seen.files.seed)];
    let files = files.into_iter().filter(|(_, is_there)| !is_there);
    let plugged = spec.nics.iter().filter(|nic| domain.cards.iter().any(|card| card.mac == nic.mac));
    let taps = plugged.map(|nic| names::tap(nic.port_id)).filter(|tap| !devices.contains(tap));
    let broken = broken(spec, domain).map(|volume| {
        let serial = volume.serial();
        let detail = format!("look at its disk {serial}: its layers are not those that it shall have");
        (DriftCode::InstanceDiskDiffers, detail)
    });
    let gone = |what: &str| format!("stop and start it: it runs, but its {what} is gone");
    let unplugged = |tap: String| format!("stop and start it: its network card has no device {tap}");
    files
        .map(|(what, _)| (DriftCode::InstanceFileMissing, gone(what)))
        .chain(broken)
        .chain(taps.map(|tap| (DriftCode::InstanceCardMissing, unplugged(tap))))
        .collect()
}

//! The decision: from what is wanted and what was seen to the next step. Pure.
//!
//! Only one step is ever decided, because after each the world is looked at again. That is also why the
//! process may die anywhere: the next look decides the same as if nothing had happened.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use protocol::agent::{
    Disk, EndReason, InstanceSpec, IoLimits, MemoryFile, NotTaken, PauseReason, Power, StopMode,
};
use protocol::{Generation, LayerId, MacAddress, MigrationId, NetworkId, PortId, SizeGib, VolumeId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::boots::{BootRecord, Phase};
use super::cards::{plan_cards, plan_network};
use super::disks::{plan_at_rest, plan_disks, plan_files};
use super::guarded::{plan_guard, plan_guard_of_running, plan_unguard};
use super::migrating::{Stage, Turn, plan_migration};
use super::pauses::{Resumed, plan_paused};
use crate::desired::Wanted;
use crate::guard::{Entry, Guarding};
use crate::host_storage::Files;
use crate::hypervisor::{Domain, DomainState, EndCause, Transfer};
use crate::networks::Readiness;

/// A guest that ignores the power button is asked again this often: some only listen once they have booted.
const PRESS_AGAIN: Duration = Duration::from_secs(5);
/// How long a missing domain may wait for the event that says why.
const WHY_GRACE: Duration = Duration::from_secs(1);
/// How long a start that an earlier agent asked for may take to become visible.
const ORPHANED_START_GRACE: Duration = Duration::from_secs(3);
/// How soon to look again at a domain that is on its way out.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What was seen of one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub domain: Option<Domain>,
    pub record: Option<BootRecord>,
    pub files: Files,
    /// How it is guarded.
    pub guard: Guarding,
    /// Of the network cards that are wanted.
    pub ports: HashMap<PortId, Readiness>,
    /// Of the networks that a guest which comes from another host needs.
    pub networks: HashMap<NetworkId, Readiness>,
    /// Whether a guest that had no room in the pool may go on.
    pub has_room: bool,
    /// The machine's current boot.
    pub machine_boot: Uuid,
    /// Whether the file is there that is to have the guest's memory.
    pub memory_saved: bool,
    /// Of a guest that comes from another host or goes to one.
    pub transfer: Option<Transfer>,
    /// Where this host expects it.
    pub expected_at: Option<SocketAddr>,
    pub memory: Memory,
}

/// What this process knows beyond the disk. Losing it costs a repetition, never a wrong step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Memory {
    /// The boot that this process has written down as about to start.
    pub starting: Option<i64>,
    /// The boot whose domain this process has started.
    pub created: Option<i64>,
    /// The generation that the seed on disk was made for.
    pub seed_made: Option<Generation>,
    /// Why the domain ended, from an event.
    pub ended: Option<EndCause>,
    /// Since when the domain of a started boot is missing.
    pub missing_since: Option<OffsetDateTime>,
    /// When the power button was last pressed.
    pub pressed_at: Option<OffsetDateTime>,
    /// When the guest was last asked to let go of the card with this address.
    pub detaching: HashMap<MacAddress, OffsetDateTime>,
    /// When the guest was last asked to let go of the disk with this volume.
    pub letting_go: HashMap<VolumeId, OffsetDateTime>,
    /// When to look again after a merge of the volume's layers.
    pub merging: HashMap<VolumeId, OffsetDateTime>,
    /// When to try again to thaw the guest.
    pub thaw_again: Option<OffsetDateTime>,
    /// What the disks of the running domain were last given.
    pub tuned: HashMap<VolumeId, (SizeGib, IoLimits)>,
    /// Since when the guest stands still.
    pub paused_since: Option<OffsetDateTime>,
    /// When the guest was last told to go on, while its disks stop it now and then.
    pub resumed: Option<Resumed>,
    /// Why the snapshot of that generation was not taken.
    pub not_taken: Option<(Generation, NotTaken)>,
    /// What this process may do next to send the guest, once.
    pub may_send: Option<(MigrationId, Turn)>,
    /// The one that cannot go before it has been started anew.
    pub started_earlier: Option<MigrationId>,
    /// The one that was called off, and when last.
    pub called_off: Option<(MigrationId, OffsetDateTime)>,
    /// Why the last step failed, for the instance's owner; gone with the next that works.
    pub failure: Option<&'static str>,
    /// Since when no step has worked.
    pub failing_since: Option<OffsetDateTime>,
    /// Since when the guard does not let a guest of another host come here.
    pub unguarded_since: Option<OffsetDateTime>,
}

impl Memory {
    /// Why the snapshot that this generation asks for was not taken.
    pub(super) fn not_taken(&self, wanted: Generation) -> Option<NotTaken> {
        self.not_taken.filter(|(generation, _)| *generation == wanted).map(|(_, reason)| reason)
    }
}

/// One idempotent deed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Bring the images of all volumes into the cache.
    EnsureBases,
    /// Make these volumes, which nobody uses.
    EnsureVolumes {
        volumes: Vec<VolumeId>,
    },
    /// Make the host's networks as they shall be.
    EnsureNetwork,
    EnsureSeed,
    /// Write down, for the guard, that the guest is guarded.
    Guard(Entry),
    /// Forget that.
    Unguard,
    /// Write down that the boot is about to start.
    RecordStarting,
    CreateDomain,
    /// Write down that a domain of that boot runs.
    RecordStarted {
        boot: i64,
    },
    /// Write down until when the guest may take to go down.
    RecordStopping {
        deadline: OffsetDateTime,
    },
    /// Plug a network card in.
    AttachNic {
        port_id: PortId,
    },
    /// Ask the guest to let go of a network card.
    DetachNic {
        mac: MacAddress,
    },
    /// Plug a disk in.
    AttachDisk {
        volume: VolumeId,
    },
    /// Ask the guest to let go of a disk.
    DetachDisk {
        volume: VolumeId,
    },
    /// Give volumes of the running domain a new layer each, at one instant, and keep the guest's memory of that.
    Snapshot {
        layers: Vec<AddedLayer>,
        memory: Option<MemoryFile>,
    },
    /// Let a guest write again that may be frozen, and write that down.
    Thaw,
    /// Merge a layer of the running domain into the one below.
    Merge(MergeStep),
    /// Merge layers of these volumes, which nobody uses.
    MergeAtRest {
        volumes: Vec<VolumeId>,
    },
    /// Give a disk of the running domain its size and limits.
    TuneDisk {
        volume: VolumeId,
    },
    /// Write down whether the guest stands still because its owner wants that.
    RecordPaused {
        paused: bool,
    },
    /// Let a running guest stand still.
    Suspend,
    /// Let a guest go on that its disks or its owner have stopped, or that has just been loaded.
    Resume,
    /// Write down that the guest goes on from the memory with which its boot began.
    RecordResumed,
    /// Write down that a domain of that boot is to wait for a guest of another host.
    RecordIncoming {
        id: MigrationId,
    },
    /// Make that domain, and write down that it is there.
    CreateWaiting {
        id: MigrationId,
    },
    /// Listen for the guest.
    Expect {
        id: MigrationId,
    },
    /// Write down that the guest is this host's.
    RecordArrived,
    /// Write down what becomes of a guest that is to go to another host.
    RecordOutgoing {
        id: MigrationId,
        stage: Stage,
    },
    /// Begin to write what it writes to at the other host, too.
    Mirror {
        id: MigrationId,
    },
    /// Send it.
    Send {
        id: MigrationId,
    },
    /// Let what it writes to be all at the other host, and send what is left of it.
    SwitchOver {
        id: MigrationId,
    },
    /// Send it no further.
    CallOff {
        id: MigrationId,
    },
    PressPowerButton,
    DestroyDomain,
    /// Write down that the boot is over.
    RecordEnded {
        reason: EndReason,
    },
    RemoveFiles,
    ForgetRecord,
}

/// A layer that a volume of the domain gets on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedLayer {
    pub volume: VolumeId,
    pub layer: LayerId,
    /// The one that the guest writes to now.
    pub below: LayerId,
}

/// Two neighbours in the chain of a volume, on which another stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeStep {
    pub volume: VolumeId,
    pub into: LayerId,
    pub from: LayerId,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    Do(Step),
    /// Nothing to do before that time, unless something happens.
    Wait(OffsetDateTime),
    /// The instance is as it shall be.
    Settled,
}

impl Plan {
    pub(super) fn no_later_than(self, at: OffsetDateTime) -> Self {
        match self {
            Self::Do(step) => Self::Do(step),
            Self::Wait(until) => Self::Wait(until.min(at)),
            Self::Settled => Self::Wait(at),
        }
    }
}

impl Seen {
    /// The domain, unless its guest has ended.
    pub fn live(&self) -> Option<&Domain> {
        self.domain.as_ref().filter(|domain| domain.state != DomainState::Off)
    }

    /// Whether its guest stands still because its owner wants that, or is about to.
    pub fn is_paused_on_request(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.paused)
    }

    /// Whether its guest was to be frozen and has not been seen to be thawed since.
    pub fn may_be_frozen(&self) -> bool {
        let live = self.live();
        let of_it = |record: &&BootRecord| live.is_some_and(|domain| domain.boot == record.boot);
        self.record.as_ref().filter(of_it).is_some_and(|record| record.freezing)
    }
}

pub fn plan(wanted: &Wanted, seen: &Seen, now: OffsetDateTime) -> Plan {
    if let Some(plan) = plan_migration(wanted, seen, now) {
        return plan;
    }
    match wanted {
        Wanted::Instance(spec) if seen.may_be_frozen() && !is_cut_off(spec) => {
            let again = seen.memory.thaw_again.unwrap_or(now);
            if again <= now {
                Plan::Do(Step::Thaw)
            } else {
                plan_thawed(wanted, seen, now).no_later_than(again)
            }
        }
        _ => plan_thawed(wanted, seen, now),
    }
}

/// Whose power is cut needs no thawing.
pub(super) fn is_cut_off(spec: &InstanceSpec) -> bool {
    spec.power == Power::Stopped && spec.stop == StopMode::Force
}

fn plan_thawed(wanted: &Wanted, seen: &Seen, now: OffsetDateTime) -> Plan {
    match wanted {
        Wanted::Deleted { .. } => plan_deleted(seen, now),
        Wanted::Instance(spec) => match (spec.power, seen.live()) {
            (Power::Running | Power::Paused, Some(domain)) if domain.boot >= spec.boot => {
                plan_running(spec, domain, seen, now)
            }
            (_, Some(domain)) => plan_stop(spec.stop, domain, seen, now),
            (Power::Running, None) => plan_start(spec, seen, now),
            (Power::Stopped, None) => plan_stopped(seen),
            (Power::Paused, None) => plan_lost(seen, now),
        },
    }
}

/// The power is cut first: nothing may write to a disk that is being removed.
fn plan_deleted(seen: &Seen, now: OffsetDateTime) -> Plan {
    if seen.domain.is_some() {
        return Plan::Do(Step::DestroyDomain);
    }
    match seen.memory.missing_since.map(|since| since + ORPHANED_START_GRACE) {
        Some(until) if start_may_be_underway(seen) && now < until => Plan::Wait(until),
        _ => plan_removal(seen),
    }
}

/// An agent that dies while it starts a domain leaves a request behind that may yet be carried out.
fn start_may_be_underway(seen: &Seen) -> bool {
    seen.record.as_ref().is_some_and(|record| {
        record.phase == Phase::Starting
            && record.machine_boot == seen.machine_boot
            && seen.memory.created != Some(record.boot)
    })
}

fn plan_removal(seen: &Seen) -> Plan {
    if let Some(unguard) = plan_unguard(seen) {
        Plan::Do(unguard)
    } else if seen.files.any {
        Plan::Do(Step::RemoveFiles)
    } else if seen.record.is_some() {
        Plan::Do(Step::ForgetRecord)
    } else {
        Plan::Settled
    }
}

/// The domain is the one that is wanted; the record must say so, and that nobody is stopping it.
fn plan_running(spec: &InstanceSpec, domain: &Domain, seen: &Seen, now: OffsetDateTime) -> Plan {
    let told = seen.record.as_ref().is_some_and(|record| {
        is_started(record, domain.boot, seen.machine_boot) && record.stop_deadline.is_none()
    });
    if !told {
        return Plan::Do(Step::RecordStarted { boot: domain.boot });
    }
    if seen.record.as_ref().is_some_and(|record| record.to_resume) {
        return plan_going_on(domain);
    }
    let rest = match domain.state {
        DomainState::ShuttingDown | DomainState::Off | DomainState::Unreadable => return Plan::Settled,
        state if spec.power == Power::Paused => plan_pause(state, seen),
        DomainState::Running if seen.is_paused_on_request() => Plan::Do(Step::RecordPaused { paused: false }),
        DomainState::Running => plan_devices(spec, domain, seen, now),
        // Nothing is plugged in or out, changed or merged while the guest stands still.
        DomainState::Paused(reason) => plan_paused(reason, seen, now),
    };
    plan_guard_of_running(seen, now, rest)
}

/// A guest that was loaded or has come from elsewhere.
fn plan_going_on(domain: &Domain) -> Plan {
    let stands_still = domain.state == DomainState::Paused(PauseReason::Suspended);
    Plan::Do(if stands_still { Step::Resume } else { Step::RecordResumed })
}

/// What is written down first tells whoever comes later that the guest may go on when its owner wants it to.
fn plan_pause(state: DomainState, seen: &Seen) -> Plan {
    if !seen.is_paused_on_request() {
        Plan::Do(Step::RecordPaused { paused: true })
    } else if state == DomainState::Running {
        Plan::Do(Step::Suspend)
    } else {
        Plan::Settled
    }
}

/// Disks and cards wait for the guest side by side.
fn plan_devices(spec: &InstanceSpec, domain: &Domain, seen: &Seen, now: OffsetDateTime) -> Plan {
    match (plan_disks(spec, domain, seen, now), plan_cards(spec, domain, seen, now)) {
        (Plan::Do(step), _) | (_, Plan::Do(step)) => Plan::Do(step),
        (Plan::Wait(one), Plan::Wait(other)) => Plan::Wait(one.min(other)),
        (Plan::Settled, waiting) | (waiting, Plan::Settled) => waiting,
    }
}

fn plan_stop(mode: StopMode, domain: &Domain, seen: &Seen, now: OffsetDateTime) -> Plan {
    let timeout = match mode {
        StopMode::Force => return Plan::Do(Step::DestroyDomain),
        StopMode::Graceful { timeout_seconds } => Duration::from_secs(timeout_seconds.into()),
    };
    if seen.record.as_ref().is_some_and(|record| record.boot > domain.boot) {
        // A newer boot has been here; this one is a leftover that must not run beside or after it.
        return Plan::Do(Step::DestroyDomain);
    }
    let Some(record) = seen.record.as_ref().filter(|r| is_started(r, domain.boot, seen.machine_boot)) else {
        return Plan::Do(Step::RecordStarted { boot: domain.boot });
    };
    // A later request may shorten the time, never lengthen it.
    let deadline = match record.stop_deadline {
        Some(deadline) if deadline <= now + timeout => deadline,
        _ => return Plan::Do(Step::RecordStopping { deadline: now + timeout }),
    };
    if now >= deadline {
        return Plan::Do(Step::DestroyDomain);
    }
    // It hears of the button when it goes on.
    if record.to_resume {
        return plan_going_on(domain);
    }
    if let DomainState::Paused(reason) = domain.state
        && let resume @ Plan::Do(_) = plan_paused(reason, seen, now)
    {
        return resume;
    }
    match seen.memory.pressed_at.map(|pressed| pressed + PRESS_AGAIN) {
        Some(again) if again > now => Plan::Wait(again.min(deadline)),
        _ => Plan::Do(Step::PressPowerButton),
    }
}

fn plan_start(spec: &InstanceSpec, seen: &Seen, now: OffsetDateTime) -> Plan {
    let Some(record) = seen.record.as_ref().filter(|record| record.boot >= spec.boot) else {
        return plan_launch(spec, seen, now, Step::RecordStarting);
    };
    match record.phase {
        Phase::Ended(_) => plan_at_rest(seen),
        // The machine itself went down with the domain.
        _ if record.machine_boot != seen.machine_boot => plan_launch(spec, seen, now, Step::RecordStarting),
        Phase::Starting if seen.memory.created == Some(record.boot) => {
            Plan::Do(Step::RecordStarted { boot: record.boot })
        }
        // An earlier agent had started it, and this one heard it end before it could write down the start.
        // What is heard of a boot that this agent is starting itself may be late word of the boot before.
        Phase::Starting if seen.memory.starting != Some(record.boot) && seen.memory.ended.is_some() => {
            plan_ended(seen, now)
        }
        Phase::Starting => plan_launch(spec, seen, now, Step::CreateDomain),
        Phase::Started => plan_ended(seen, now),
    }
}

/// Everything a domain needs, then `last`.
fn plan_launch(spec: &InstanceSpec, seen: &Seen, now: OffsetDateTime, last: Step) -> Plan {
    let seed_is_fresh = seen.files.seed && seen.memory.seed_made == Some(spec.generation);
    if seen.domain.is_some() {
        // The remains of the boot before.
        Plan::Do(Step::DestroyDomain)
    } else if seen.guard.unready.is_some() {
        // Nothing is written into its pools either.
        plan_guard(seen, now).unwrap_or(Plan::Settled)
    } else if let Some(step) = plan_files(spec.disks.iter().map(|disk| disk.volume.id).collect(), seen) {
        Plan::Do(step)
    } else if !seen.files.to_merge.is_empty() {
        // A chain may have grown too long for any guest to start with.
        Plan::Do(Step::MergeAtRest { volumes: seen.files.to_merge.clone() })
    } else if let Some(unready) = plan_network(spec, seen, now) {
        unready
    } else if !seed_is_fresh {
        Plan::Do(Step::EnsureSeed)
    } else {
        plan_guard(seen, now).unwrap_or(Plan::Do(last))
    }
}

/// A boot that was running has no domain any more, and nobody had asked for that.
fn plan_ended(seen: &Seen, now: OffsetDateTime) -> Plan {
    let reason = match seen.memory.ended {
        _ if seen.guard.is_fenced => EndReason::Fenced,
        Some(EndCause::GuestShutdown) => EndReason::GuestShutdown,
        // Not by us: the plan destroys only where the boot is not wanted any more.
        Some(EndCause::Crashed | EndCause::Destroyed) => EndReason::Crashed,
        None => {
            let until = seen.memory.missing_since.unwrap_or(now) + WHY_GRACE;
            if now < until {
                return Plan::Wait(until);
            }
            EndReason::Unobserved
        }
    };
    Plan::Do(Step::RecordEnded { reason })
}

/// It was to stand still, and what it had in memory is gone: nothing starts it again but its owner.
fn plan_lost(seen: &Seen, now: OffsetDateTime) -> Plan {
    match &seen.record {
        Some(record) if matches!(record.phase, Phase::Starting | Phase::Started) => {
            if record.machine_boot == seen.machine_boot {
                plan_ended(seen, now)
            } else {
                Plan::Do(Step::RecordEnded { reason: EndReason::Unobserved })
            }
        }
        _ => plan_at_rest(seen),
    }
}

fn plan_stopped(seen: &Seen) -> Plan {
    match seen.record.as_ref().map(|record| record.phase) {
        Some(Phase::Starting | Phase::Started) => {
            Plan::Do(Step::RecordEnded { reason: EndReason::Requested })
        }
        Some(Phase::Ended(_)) | None => plan_at_rest(seen),
    }
}

fn is_started(record: &BootRecord, boot: i64, machine_boot: Uuid) -> bool {
    record.boot == boot && record.phase == Phase::Started && record.machine_boot == machine_boot
}

/// What a disk of a running domain is given.
pub fn tuning(disk: &Disk) -> (VolumeId, (SizeGib, IoLimits)) {
    (disk.volume.id, (disk.volume.size_gib, disk.limits))
}

/// When a settled instance has to be looked at again without being told to.
pub fn look_again(seen: &Seen, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let passing = |state| matches!(state, DomainState::Off | DomainState::ShuttingDown);
    seen.domain.as_ref().is_some_and(|domain| passing(domain.state)).then(|| now + LOOK_AGAIN)
}

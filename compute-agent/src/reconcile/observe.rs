//! What to tell the control plane: from what is wanted and what was seen to a state, and which steps of an
//! operation's trail are thereby done. Pure.

use protocol::agent::{EndReason, ObservedState, PauseReason, Power, Step as Told, VolumeReport};

use super::boots::Phase;
use super::plan::{Seen, Step};
use super::{cards, disks, guarded, migrating, pauses};
use crate::desired::Wanted;
use crate::hypervisor::{Domain, DomainState};

const MAY_BE_FROZEN: &str = "The guest's file systems were frozen for a snapshot, and the agent in it does not \
     answer: it may be unable to write. Should that last, restart the instance.";

/// What is true of one instance, in the words of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observation {
    pub state: ObservedState,
    pub boot: i64,
    pub volumes: Vec<VolumeReport>,
    pub paused: Option<PauseReason>,
    pub detail: Option<String>,
}

impl Observation {
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.state, ObservedState::Stopped { .. })
    }
}

/// `None` while the truth is being found out: the last word stands.
pub(super) fn observe(wanted: &Wanted, seen: &Seen) -> Option<Observation> {
    if migrating::is_silent(wanted, seen) {
        return None;
    }
    let failure = seen.memory.failure;
    if let Some(domain) = seen.live() {
        let state = live_state(wanted, domain);
        let paused = match domain.state {
            DomainState::Paused(_) if is_paused(wanted) => Some(PauseReason::Requested),
            DomainState::Paused(said) => Some(pauses::cause(said, seen)),
            _ => None,
        };
        if state == ObservedState::Running
            && failure.is_none()
            && (!is_recorded(seen, domain)
                || is_loading(seen)
                || guarded::is_unguarded(seen)
                || (paused.is_none() && is_being_attached(wanted, domain, seen)))
        {
            return None;
        }
        let is_frozen = seen.may_be_frozen() && seen.memory.thaw_again.is_some();
        let frozen = is_frozen.then_some(MAY_BE_FROZEN);
        let detail = frozen.or(failure).or(paused.and_then(pauses::detail)).map(str::to_owned);
        let detail = detail.or_else(|| waiting(wanted, seen).filter(|_| state == ObservedState::Running));
        let volumes = disks::held(wanted, seen, false);
        return Some(Observation { state, boot: domain.boot, volumes, paused, detail });
    }
    let (state, boot) = match wanted {
        Wanted::Deleted { .. } => without_domain_deleted(seen),
        Wanted::Instance(spec) => match recorded_end(seen) {
            Some((reason, boot)) if spec.power != Power::Running || boot >= spec.boot => {
                (ObservedState::Stopped { reason }, boot)
            }
            _ if spec.power == Power::Running => {
                if is_missing(seen, spec.boot) {
                    return None;
                }
                (ObservedState::Preparing, spec.boot)
            }
            _ if seen.record.is_some() => return None,
            _ => (ObservedState::Stopped { reason: EndReason::NeverStarted }, spec.boot),
        },
    };
    let is_final = matches!(state, ObservedState::Absent)
        || (matches!(state, ObservedState::Stopped { .. }) && matches!(wanted, Wanted::Instance(_)));
    let state = if failure.is_some() && !is_final { ObservedState::Failed } else { state };
    let detail = failure.map(str::to_owned);
    let detail = detail.or_else(|| waiting(wanted, seen).filter(|_| state == ObservedState::Preparing));
    let volumes = disks::held(wanted, seen, !is_final);
    Some(Observation { state, boot, volumes, paused: None, detail })
}

/// What is still to come of network cards and disks.
fn waiting(wanted: &Wanted, seen: &Seen) -> Option<String> {
    match wanted {
        Wanted::Instance(spec) => {
            let unguarded = if seen.live().is_none() { guarded::waiting(seen) } else { None };
            unguarded.or_else(|| cards::waiting(spec, seen)).or_else(|| disks::waiting(spec, seen))
        }
        Wanted::Deleted { .. } => None,
    }
}

/// The next word is better said when the card is there.
fn is_being_attached(wanted: &Wanted, domain: &Domain, seen: &Seen) -> bool {
    match wanted {
        Wanted::Instance(spec) => cards::is_being_attached(spec, domain, seen),
        Wanted::Deleted { .. } => false,
    }
}

/// Whether its owner wants it to stand still, whatever else stops it.
fn is_paused(wanted: &Wanted) -> bool {
    matches!(wanted, Wanted::Instance(spec) if spec.power == Power::Paused)
}

fn live_state(wanted: &Wanted, domain: &Domain) -> ObservedState {
    let is_wanted = match wanted {
        Wanted::Instance(spec) => spec.power != Power::Stopped && domain.boot >= spec.boot,
        Wanted::Deleted { .. } => false,
    };
    let is_leaving = domain.state == DomainState::ShuttingDown;
    if is_wanted && !is_leaving { ObservedState::Running } else { ObservedState::Stopping }
}

/// Said to run only once that is written down: whoever hears it may rely on it.
fn is_recorded(seen: &Seen, domain: &Domain) -> bool {
    seen.record.as_ref().is_some_and(|record| record.boot == domain.boot && record.phase == Phase::Started)
}

/// It stands still for a moment, and nobody has to know.
fn is_loading(seen: &Seen) -> bool {
    seen.record.as_ref().is_some_and(|record| record.to_resume)
}

fn without_domain_deleted(seen: &Seen) -> (ObservedState, i64) {
    let boot = seen.record.as_ref().map_or(0, |record| record.boot);
    if seen.domain.is_none() && !seen.files.any && seen.record.is_none() {
        (ObservedState::Absent, boot)
    } else {
        (ObservedState::Stopped { reason: EndReason::Requested }, boot)
    }
}

fn recorded_end(seen: &Seen) -> Option<(EndReason, i64)> {
    match seen.record.as_ref()? {
        record if let Phase::Ended(reason) = record.phase => Some((reason, record.boot)),
        _ => None,
    }
}

/// A boot that had been started on this boot of the machine has no domain any more.
fn is_missing(seen: &Seen, boot: i64) -> bool {
    seen.record.as_ref().is_some_and(|record| {
        record.boot >= boot && record.phase == Phase::Started && record.machine_boot == seen.machine_boot
    })
}

/// The steps of the trail that a deed completes. On the first boot each names those before it as well: an
/// image that was cached already is as good as one just fetched, and an agent that died between a deed and
/// its note is made up for. The outbox keeps each step once.
pub(super) fn told_after(step: &Step, seen: &Seen) -> &'static [Told] {
    let (first_boot, has_cards) = (seen.record.is_none(), !seen.ports.is_empty());
    match step {
        Step::EnsureBases => &[Told::ImageCached],
        Step::EnsureVolumes { .. } => &[Told::ImageCached, Told::DiskMade],
        Step::EnsureNetwork if first_boot && seen.live().is_none() => {
            &[Told::ImageCached, Told::DiskMade, Told::NetworkReady]
        }
        Step::EnsureNetwork => &[Told::NetworkReady],
        Step::EnsureSeed if first_boot && has_cards => {
            &[Told::ImageCached, Told::DiskMade, Told::NetworkReady, Told::SeedMade]
        }
        Step::EnsureSeed if has_cards => &[Told::NetworkReady, Told::SeedMade],
        Step::EnsureSeed if first_boot => &[Told::ImageCached, Told::DiskMade, Told::SeedMade],
        Step::EnsureSeed => &[Told::SeedMade],
        Step::RecordStarting if first_boot && has_cards => {
            &[Told::ImageCached, Told::DiskMade, Told::NetworkReady, Told::SeedMade]
        }
        Step::RecordStarting if first_boot => &[Told::ImageCached, Told::DiskMade, Told::SeedMade],
        Step::CreateDomain => &[Told::DomainDefined],
        Step::RecordResumed => &[Told::DomainDefined, Told::MemoryLoaded],
        Step::RecordStarted { .. } if seen.memory.created.is_some() => &[Told::DomainDefined],
        Step::PressPowerButton => &[Told::PowerButtonPressed],
        Step::DestroyDomain => &[Told::PowerCut],
        Step::RemoveFiles => &[Told::DiskRemoved],
        Step::AttachNic { .. } => &[Told::NetworkReady],
        Step::AttachDisk { .. } => &[Told::DiskAttached],
        Step::DetachDisk { .. } => &[Told::DiskDetachRequested],
        Step::Snapshot { .. } => &[Told::SnapshotTaken],
        Step::Merge(_) => &[Told::LayersMerging],
        // What an earlier agent gave it is not known, and given again.
        Step::TuneDisk { volume } if seen.memory.tuned.contains_key(volume) => &[Told::DiskChanged],
        Step::TuneDisk { .. }
        | Step::DetachNic { .. }
        | Step::RecordIncoming { .. }
        | Step::CreateWaiting { .. }
        | Step::Expect { .. }
        | Step::RecordArrived
        | Step::RecordOutgoing { .. }
        | Step::Mirror { .. }
        | Step::Send { .. }
        | Step::SwitchOver { .. }
        | Step::CallOff { .. }
        | Step::Guard(_)
        | Step::Unguard
        | Step::Thaw
        | Step::MergeAtRest { .. }
        | Step::Resume
        | Step::Suspend
        | Step::RecordPaused { .. }
        | Step::RecordStarting
        | Step::RecordStarted { .. }
        | Step::RecordStopping { .. }
        | Step::RecordEnded { .. }
        | Step::ForgetRecord => &[],
    }
}

/// The steps of the trail that being settled completes.
pub(super) fn told_when_settled(wanted: &Wanted, seen: &Seen) -> &'static [Told] {
    match wanted {
        Wanted::Deleted { .. } => &[Told::DiskRemoved, Told::Absent],
        Wanted::Instance(spec) => match (spec.power, seen.live()) {
            (Power::Running, Some(_)) => &[Told::DomainDefined, Told::Running],
            (Power::Paused, Some(_)) => &[Told::Paused],
            _ => &[Told::Stopped],
        },
    }
}

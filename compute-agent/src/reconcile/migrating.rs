//! The decision about a guest that comes from another host or goes to one. Pure.
//!
//! INVARIANT: what was handed over is written down before it is told, and never goes on here. A guest that has come goes on
//! when the instance is this host's, which the control plane says only after that.

use std::time::Duration;

use protocol::agent::{InstanceSpec, Migration, MigrationReport, MigrationState, Power};
use protocol::{MigrationId, VolumeId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::boots::{BootRecord, Phase};
use super::cards::{plan_bridges, plan_network};
use super::guarded::{is_unguarded, plan_guard};
use super::plan::{Plan, Seen, Step, is_cut_off};
use crate::desired::Wanted;
use crate::hypervisor::{Domain, DomainState, Transfer};

/// How soon to look how far a guest is.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The same when it stands still for that.
const LOOK_SOON: Duration = Duration::from_millis(50);
/// How much longer than it may a guest stands still for its way before it is called back: the other side is gone.
const STOOD_STILL: Duration = Duration::from_secs(10);
/// How soon to call off once more what goes on all the same.
const CALL_OFF_AGAIN: Duration = Duration::from_secs(5);
/// How long a domain that is to take a guest may fail to be made, or wait for the guard, before that is said, which ends the
/// migration.
const PATIENCE: Duration = Duration::from_secs(60);
/// How soon to look at a guest that waits.
const WAITS: Duration = Duration::from_secs(5);

const NOT_SENT: &str = "The guest could not be sent to the other host, or not in one piece.";
const STARTED_EARLIER: &str = "The guest was started before QEMU or the agent was upgraded. It can go once it has been stopped and started.";
const HAS_ENDED: &str = "The guest has ended before it was sent.";
const STANDS_STILL: &str = "The guest stands still.";
const STILL_HERE: &str = "The other host has a virtual machine of an earlier stay still.";
pub(super) const NOT_EXPECTED: &str = "The other host could not open a way for the guest.";
const DID_NOT_WAIT: &str = "The virtual machine that was to take the guest has ended.";
const WAS_FENCED: &str = "The other host lost its lease in the shared pool of the guest's disks, and with it what was to take the guest.";

/// What a host has begun to do with a guest that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    pub id: MigrationId,
    pub stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It may be on its way.
    Begun,
    /// The destination has it: it never goes on here.
    HandedOver,
    /// It stays, and is not sent any more under this id.
    Kept,
}

/// What is to be done to send a guest, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Begin,
    /// Its disks are mirrored.
    Send,
    /// It stands still.
    SwitchOver,
}

/// The volumes of an instance on the disk of its host, which go with it.
pub(super) fn going_along(spec: &InstanceSpec) -> Vec<VolumeId> {
    let volumes = spec.disks.iter().map(|disk| &disk.volume);
    volumes.filter(|volume| volume.pool.is_none()).map(|volume| volume.id).collect()
}

/// Whether the guest's transfer has to be looked at.
pub(super) fn is_underway(record: Option<&BootRecord>) -> bool {
    record.is_some_and(|record| {
        record.incoming.is_some() || record.outgoing.is_some_and(|one| one.stage == Stage::Begun)
    })
}

/// `None` when the instance is made as it is wanted like any other.
pub(super) fn plan_migration(wanted: &Wanted, seen: &Seen, now: OffsetDateTime) -> Option<Plan> {
    let Wanted::Instance(spec) = wanted else { return None };
    match spec.migration {
        Some(Migration::Incoming { id, .. }) => Some(plan_incoming(spec, id, seen, now)),
        Some(Migration::Outgoing { .. }) | None => {
            plan_arrived(spec, seen, now).or_else(|| plan_outgoing(spec, seen, now))
        }
    }
}

/// Makes a domain that waits, and says where. One that is guarded is so before it is there, as for a start: it may have been
/// handed over by the time that anybody looks again.
fn plan_incoming(spec: &InstanceSpec, id: MigrationId, seen: &Seen, now: OffsetDateTime) -> Plan {
    let record = seen.record.as_ref().filter(|record| record.incoming == Some(id));
    match (&seen.domain, record) {
        (Some(Domain { state: DomainState::Running, .. }), _) => Plan::Wait(now + WAITS),
        (Some(_), Some(_)) if is_unguarded(seen) => plan_guard(seen, now).unwrap_or(Plan::Wait(now + WAITS)),
        (Some(_), Some(_)) if seen.transfer != Some(Transfer::Waiting) => Plan::Wait(now + WAITS),
        (Some(_), Some(_)) if seen.expected_at.is_some() => Plan::Wait(now + WAITS),
        (Some(_), Some(_)) if seen.guard.unready.is_some() => Plan::Wait(now + WAITS),
        (Some(_), Some(_)) => Plan::Do(Step::Expect { id }),
        // Of an earlier attempt; nothing of it has run.
        (Some(_), None) => Plan::Do(Step::DestroyDomain),
        // One is enough: the source has sent what it had.
        (None, Some(record)) if record.phase == Phase::Started => Plan::Settled,
        (None, _) if !seen.files.seed || seen.memory.seed_made != Some(spec.generation) => {
            Plan::Do(Step::EnsureSeed)
        }
        (None, known) => {
            let made = || match known {
                None => Step::RecordIncoming { id },
                Some(_) => Step::CreateWaiting { id },
            };
            let is_unready = plan_bridges(spec, seen, now).or_else(|| plan_guard(seen, now));
            is_unready.unwrap_or_else(|| Plan::Do(made()))
        }
    }
}

/// The instance is this host's now. One that has no domain any more has ended, like one whose QEMU has crashed.
fn plan_arrived(spec: &InstanceSpec, seen: &Seen, now: OffsetDateTime) -> Option<Plan> {
    seen.record.as_ref()?.incoming?;
    let Some(domain) = seen.live() else { return Some(Plan::Do(Step::RecordArrived)) };
    // INVARIANT: it never goes on here when it has been started anew since, as after the failure of its source.
    let is_left = seen.guard.is_required && domain.boot < spec.boot;
    if is_left || seen.transfer == Some(Transfer::Waiting) {
        return Some(Plan::Do(Step::DestroyDomain));
    }
    // Its power is cut whether or not it has a network.
    if is_cut_off(spec) {
        return Some(Plan::Do(Step::RecordArrived));
    }
    Some(plan_network(spec, seen, now).unwrap_or(Plan::Do(Step::RecordArrived)))
}

fn plan_outgoing(spec: &InstanceSpec, seen: &Seen, now: OffsetDateTime) -> Option<Plan> {
    let record = seen.record.as_ref()?;
    let (asked, downtime) = match spec.migration {
        Some(Migration::Outgoing { id, cancelled, max_downtime_ms, .. }) => {
            (Some((id, cancelled)), Duration::from_millis(max_downtime_ms.into()))
        }
        _ => (None, Duration::ZERO),
    };
    match record.outgoing {
        Some(Outgoing { id, stage: Stage::HandedOver }) if asked.is_some_and(|(asked, _)| asked == id) => {
            Some(Plan::Settled)
        }
        // Nobody has taken it: its boot is over.
        Some(Outgoing { stage: Stage::HandedOver, .. }) => seen.live().map(|_| Plan::Do(Step::DestroyDomain)),
        Some(Outgoing { id, stage: Stage::Begun }) if spec.power != Power::Stopped => {
            seen.live()?;
            let has_stood = seen.memory.paused_since.map_or(time::Duration::ZERO, |since| now - since);
            let is_wanted = asked == Some((id, false)) && has_stood < downtime + STOOD_STILL;
            Some(plan_begun(id, is_wanted, spec, seen, now))
        }
        known => {
            let (id, cancelled) = asked.filter(|(id, _)| known.is_none_or(|known| known.id != *id))?;
            let domain = seen.live()?;
            let is_at_rest = record.phase == Phase::Started
                && record.boot == spec.boot
                && record.stop_deadline.is_none()
                && !record.to_resume
                && !record.freezing;
            let goes = domain.state == DomainState::Running && is_at_rest && !cancelled;
            let stage = if goes { Stage::Begun } else { Stage::Kept };
            Some(Plan::Do(Step::RecordOutgoing { id, stage }))
        }
    }
}

fn plan_begun(
    id: MigrationId,
    is_wanted: bool,
    spec: &InstanceSpec,
    seen: &Seen,
    now: OffsetDateTime,
) -> Plan {
    // Only the process that has written it down sends it: whatever an earlier one had begun has ended with that.
    let may = seen.memory.may_send.filter(|(one, _)| is_wanted && *one == id).map(|(_, turn)| turn);
    let stands_still = seen.live().is_some_and(|domain| domain.state != DomainState::Running);
    let was_called_off =
        seen.memory.called_off.is_some_and(|(one, at)| one == id && now < at + CALL_OFF_AGAIN);
    match seen.transfer {
        Some(Transfer::Sent) => Plan::Do(Step::RecordOutgoing { id, stage: Stage::HandedOver }),
        Some(Transfer::Sending { .. }) if !is_wanted && !was_called_off => Plan::Do(Step::CallOff { id }),
        Some(Transfer::Switching) if may == Some(Turn::SwitchOver) => Plan::Do(Step::SwitchOver { id }),
        Some(Transfer::Switching) if !was_called_off => Plan::Do(Step::CallOff { id }),
        Some(Transfer::Switching) => Plan::Wait(now + LOOK_SOON),
        Some(Transfer::Sending { .. }) if stands_still => Plan::Wait(now + LOOK_SOON),
        Some(Transfer::Sending { .. }) => Plan::Wait(now + LOOK_AGAIN),
        Some(Transfer::Mirroring { .. }) if may == Some(Turn::Send) => Plan::Wait(now + LOOK_AGAIN),
        Some(Transfer::Mirrored) if may == Some(Turn::Send) => Plan::Do(Step::Send { id }),
        Some(Transfer::Idle) if may == Some(Turn::Begin) && going_along(spec).is_empty() => {
            Plan::Do(Step::Send { id })
        }
        Some(Transfer::Idle) if may == Some(Turn::Begin) => Plan::Do(Step::Mirror { id }),
        Some(Transfer::Idle | Transfer::Mirroring { .. } | Transfer::Mirrored) => {
            Plan::Do(Step::RecordOutgoing { id, stage: Stage::Kept })
        }
        Some(Transfer::Waiting) | None => Plan::Wait(now + LOOK_AGAIN),
    }
}

/// What the control plane is to know of it.
pub(super) fn told(wanted: &Wanted, seen: &Seen, now: OffsetDateTime) -> Option<MigrationReport> {
    let Wanted::Instance(spec) = wanted else { return None };
    let state = match spec.migration? {
        Migration::Incoming { id, .. } => incoming(id, seen, now)?,
        Migration::Outgoing { id, cancelled, .. } => outgoing(id, cancelled, seen)?,
    };
    Some(MigrationReport { id: spec.migration?.id(), instance_id: spec.id, state })
}

fn incoming(id: MigrationId, seen: &Seen, now: OffsetDateTime) -> Option<MigrationState> {
    let refused = |detail: &str| Some(MigrationState::Refused { detail: detail.to_owned() });
    let waits = seen.record.as_ref().filter(|record| record.incoming == Some(id));
    let lasts = |since: Option<OffsetDateTime>| since.is_some_and(|since| now >= since + PATIENCE);
    let unready = seen.guard.unready.filter(|_| lasts(seen.memory.unguarded_since));
    match (&seen.domain, waits) {
        (Some(Domain { state: DomainState::Running, .. }), _) => refused(STILL_HERE),
        (None, Some(record)) if record.phase == Phase::Started => {
            refused(if seen.guard.is_fenced { WAS_FENCED } else { DID_NOT_WAIT })
        }
        _ if let Some(unready) = unready => refused(unready.of_destination()),
        // What fails may work the next time.
        (None, _) => seen.memory.failure.filter(|_| lasts(seen.memory.failing_since)).and_then(refused),
        (Some(_), _) => match seen.expected_at {
            Some(address) => Some(MigrationState::Ready { address }),
            // What is wrong with its address or its certificate stays wrong: a guest is not held up for that.
            None => seen.memory.failure.filter(|failure| *failure == NOT_EXPECTED).and_then(refused),
        },
    }
}

fn outgoing(id: MigrationId, cancelled: bool, seen: &Seen) -> Option<MigrationState> {
    let ended = |detail: &str| Some(MigrationState::Ended { detail: detail.to_owned() });
    let stage = seen.record.as_ref().and_then(|record| record.outgoing).filter(|one| one.id == id);
    match (stage.map(|one| one.stage), seen.live()) {
        (Some(Stage::HandedOver), _) => Some(MigrationState::HandedOver),
        (Some(Stage::Kept), Some(Domain { state: DomainState::Paused(_), .. })) => ended(STANDS_STILL),
        (Some(Stage::Kept), Some(_)) if seen.memory.started_earlier == Some(id) => ended(STARTED_EARLIER),
        (Some(Stage::Kept), Some(_)) => ended(NOT_SENT),
        (Some(Stage::Begun), Some(_)) => match seen.transfer {
            Some(Transfer::Sending { done_bytes, total_bytes }) if total_bytes > 0 => {
                Some(MigrationState::Transferring { done_bytes, total_bytes })
            }
            Some(Transfer::Mirroring { done_bytes, total_bytes }) if total_bytes > 0 => {
                Some(MigrationState::Mirroring { done_bytes, total_bytes })
            }
            _ => None,
        },
        (None, Some(_)) => None,
        (_, None) => {
            // Its machine may have lost its power, and nothing be started there yet: what is called off is not sent then, either.
            let is_over = seen.record.as_ref().is_some_and(|record| matches!(record.phase, Phase::Ended(_)));
            if is_over || cancelled { ended(HAS_ENDED) } else { None }
        }
    }
}

/// Whether nothing is said of the instance itself: it is another host's, or about to be.
pub(super) fn is_silent(wanted: &Wanted, seen: &Seen) -> bool {
    let comes = matches!(wanted, Wanted::Instance(spec)
        if matches!(spec.migration, Some(Migration::Incoming { .. })));
    let stands_still = seen.live().is_some_and(|domain| domain.state != DomainState::Running);
    let record = seen.record.as_ref();
    comes
        || record.is_some_and(|record| record.incoming.is_some())
        || stands_still
            && record.and_then(|record| record.outgoing).is_some_and(|one| one.stage != Stage::Kept)
}

//! The decision about a guest that stands still because of its disks. Pure.
//!
//! What it could not read or write is tried again when it goes on, so there is nothing to lose by letting it: a cause
//! that is still there stops it again at once. A full pool is waited for; anything else is tried, ever more slowly.

use std::time::Duration;

use protocol::agent::PauseReason;
use time::OffsetDateTime;

use super::plan::{Plan, Seen, Step};
use crate::host_storage::Usage;
use crate::hypervisor::{Domain, DomainState};

/// How soon to look again whether there is room.
const ROOM_AGAIN: Duration = Duration::from_secs(5);
/// How long a guest stands still at least. QEMU may tell an error of a disk up to a second late (10.0), and libvirt (11.3)
/// takes a guest for stopped then that has gone on meanwhile.
const SETTLE: Duration = Duration::from_secs(2);
/// Pauses between attempts to let a guest go on.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// One that has run for so long after an attempt begins anew.
const CALM: Duration = Duration::from_secs(60);
/// What has to be free before guests go on that had no room: so much that they do not stop again at once.
const ROOM_BYTES: u64 = 1 << 30;
/// The same in a small pool, as a part of it.
const ROOM_PART: u64 = 50;

/// Attempts to let a guest go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// The last one.
    pub at: OffsetDateTime,
    pub times: u32,
}

impl Resumed {
    /// One more attempt.
    pub(super) fn again(before: Option<Self>, at: OffsetDateTime) -> Self {
        Self { at, times: before.map_or(0, |before| before.times).saturating_add(1) }
    }

    /// What is to be remembered of attempts when a domain looks like this.
    pub(super) fn kept(self, domain: Option<&Domain>, now: OffsetDateTime) -> Option<Self> {
        let runs = domain.is_some_and(|domain| domain.state == DomainState::Running);
        (!runs || now < self.at + CALM).then_some(self)
    }

    fn next(self) -> OffsetDateTime {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.times.saturating_sub(1).min(16));
        self.at + pause.min(LONGEST_PAUSE)
    }
}

/// Whether guests may go on that had no room.
pub fn has_room(usage: &Usage) -> bool {
    usage.space.free_bytes >= ROOM_BYTES.min(usage.space.total_bytes / ROOM_PART)
}

/// What to do about a guest that stands still.
pub(super) fn plan_paused(reason: PauseReason, seen: &Seen, now: OffsetDateTime) -> Plan {
    let settled = seen.memory.paused_since.map_or(now, |since| since + SETTLE);
    let due = seen.memory.resumed.map_or(settled, |resumed| resumed.next().max(settled));
    match reason {
        PauseReason::Suspended | PauseReason::Requested if seen.is_paused_on_request() => {
            Plan::Do(Step::Resume)
        }
        // Whoever did that has a reason, and undoes it.
        PauseReason::Suspended | PauseReason::Requested => Plan::Settled,
        PauseReason::PoolFull if !seen.has_room => Plan::Wait(now + ROOM_AGAIN),
        PauseReason::PoolFull | PauseReason::IoError if now >= due => Plan::Do(Step::Resume),
        PauseReason::PoolFull | PauseReason::IoError => Plan::Wait(due),
    }
}

/// Why a guest really stands still of which the hypervisor says this. QEMU says what went wrong with a disk first, and
/// sticks to that (10.0); but where there is no room that is what is lacking, and where there was some when the guest
/// last went on it is not.
pub(super) fn cause(said: PauseReason, seen: &Seen) -> PauseReason {
    match said {
        PauseReason::Suspended | PauseReason::Requested if seen.is_paused_on_request() => {
            PauseReason::Requested
        }
        PauseReason::Suspended | PauseReason::Requested => PauseReason::Suspended,
        _ if !seen.has_room => PauseReason::PoolFull,
        _ if seen.memory.resumed.is_some() => PauseReason::IoError,
        said => said,
    }
}

/// For the instance's owner.
pub(super) const fn detail(reason: PauseReason) -> Option<&'static str> {
    Some(match reason {
        PauseReason::PoolFull => {
            "The host has no disk space left. The instance stands still and goes on by itself when there is some."
        }
        PauseReason::IoError => {
            "The host cannot read or write a disk. The instance stands still; the host tries again by itself."
        }
        PauseReason::Suspended => "Somebody has suspended the instance on its host.",
        PauseReason::Requested => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::Space;
    use time::macros::datetime;

    #[test]
    fn attempts_slow_down_until_the_guest_has_run_for_a_while() {
        let now = datetime!(2030-01-01 00:00 UTC);
        let (mut resumed, mut pauses) = (None, Vec::new());
        for _ in 0..9 {
            let attempt = Resumed::again(resumed, now);
            pauses.push((attempt.next() - now).whole_seconds());
            resumed = Some(attempt);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 120, 120, 120]);
        assert_eq!(resumed.unwrap().kept(None, now + 2 * CALM), resumed, "it does not run");
    }

    #[test]
    fn guests_go_on_when_there_is_more_than_a_little_room() {
        let usage = |total_bytes, free_bytes| Usage {
            space: Space { total_bytes, free_bytes },
            image_cache_bytes: 0,
        };
        const GIB: u64 = 1 << 30;
        for (total, free, expected) in
            [(1000 * GIB, GIB - 1, false), (1000 * GIB, GIB, true), (100, 1, false), (100, 2, true)]
        {
            assert_eq!(has_room(&usage(total, free)), expected, "{free} of {total}");
        }
    }
}

//! What is known of a host, and what it offers.

use protocol::agent::Inventory;
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

/// A host that has been silent for this long is called unreachable. That says nothing about its instances.
pub(crate) const UNREACHABLE_AFTER: Duration = Duration::seconds(20);

/// Virtual processors given away per real one.
const VCPUS_PER_CPU: u32 = 4;
/// Memory that is kept for the host itself.
const HOST_MEMORY_MIB: u32 = 512;
/// Part of the pool that is kept free, in per cent.
const DISK_RESERVE_PERCENT: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// It has joined, but its agent has not reported yet.
    Joining,
    Ready,
    /// The agent lives but cannot see its domains.
    Degraded,
    /// Nothing was heard for a while. Its instances may well run.
    Unreachable,
}

impl HostState {
    pub(crate) fn of(last_seen: Option<OffsetDateTime>, degraded: bool, now: OffsetDateTime) -> Self {
        match last_seen {
            None => Self::Joining,
            Some(seen) if now - seen > UNREACHABLE_AFTER => Self::Unreachable,
            Some(_) if degraded => Self::Degraded,
            Some(_) => Self::Ready,
        }
    }
}

/// What placement may give away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offered {
    pub vcpus: i32,
    pub memory_mib: i32,
    pub disk_gib: i32,
}

/// `disk_overcommit` GiB of disk are promised for each one that there is.
pub(super) fn offered_capacity(inventory: &Inventory, disk_overcommit: f64) -> Offered {
    let signed = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    Offered {
        vcpus: signed(inventory.cpus.saturating_mul(VCPUS_PER_CPU)),
        memory_mib: signed(inventory.memory_mib.0.saturating_sub(HOST_MEMORY_MIB)),
        disk_gib: offered_disk_gib(inventory, disk_overcommit),
    }
}

pub(super) fn offered_disk_gib(inventory: &Inventory, disk_overcommit: f64) -> i32 {
    let real = u64::from(inventory.disk_gib.0) * u64::from(100 - DISK_RESERVE_PERCENT) / 100;
    // Far from where a float is no whole number any more; what is too large becomes the largest.
    (real as f64 * disk_overcommit) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn disk_is_offered_as_often_as_the_operator_says_and_a_twentieth_is_kept() {
        let inventory = |gib| Inventory { disk_gib: protocol::SizeGib(gib), ..crate::testing::inventory() };
        for (gib, overcommit, expected) in
            [(100, 1.0, 95), (100, 1.5, 142), (100, 0.5, 47), (0, 10.0, 0), (u32::MAX, 10.0, i32::MAX)]
        {
            let offered = offered_capacity(&inventory(gib), overcommit);
            assert_eq!(offered.disk_gib, expected, "{gib} GiB, {overcommit}");
        }
    }

    #[test]
    fn silence_makes_unreachable_and_nothing_more() {
        let now = datetime!(2026-01-01 12:00 UTC);
        let seen = |seconds| Some(now - Duration::seconds(seconds));
        assert_eq!(HostState::of(None, false, now), HostState::Joining);
        assert_eq!(HostState::of(seen(20), false, now), HostState::Ready);
        assert_eq!(HostState::of(seen(20), true, now), HostState::Degraded);
        assert_eq!(HostState::of(seen(21), true, now), HostState::Unreachable);
    }
}

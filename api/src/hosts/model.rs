//! What is known of a host, and what it offers.

use protocol::agent::{EARLIEST_PROTOCOL_VERSION, Inventory, PROTOCOL_VERSION};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

/// A host that has been silent for this long is called unreachable. That says nothing about its instances.
pub(crate) const UNREACHABLE_AFTER: Duration = Duration::seconds(20);

/// What a host says of leases counts for so long.
pub(crate) const WITNESS_FRESH: Duration = Duration::seconds(15);

/// Memory that is kept for the host itself.
const HOST_MEMORY_MIB: u32 = 512;
/// Part of the pool that is kept free, in per cent.
const DISK_RESERVE_PERCENT: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Unreachable => "unreachable",
        }
    }

    pub(crate) fn of(last_seen: Option<OffsetDateTime>, degraded: bool, now: OffsetDateTime) -> Self {
        match last_seen {
            None => Self::Joining,
            Some(seen) if now - seen > UNREACHABLE_AFTER => Self::Unreachable,
            Some(_) if degraded => Self::Degraded,
            Some(_) => Self::Ready,
        }
    }
}

/// Why an agent that speaks this version is not let in, and what helps.
pub(crate) fn refused_version(version: u32) -> Option<String> {
    let what_helps = if version < EARLIEST_PROTOCOL_VERSION {
        "upgrade cumulo-agent on the host to the release of the control plane"
    } else if version > PROTOCOL_VERSION {
        "upgrade the control plane first, all replicas of it, or install the cumulo-agent of its release on the host"
    } else {
        return None;
    };
    Some(format!(
        "the agent speaks version {version} of the agent protocol, and this control plane versions \
         {EARLIEST_PROTOCOL_VERSION} and {PROTOCOL_VERSION}: {what_helps}"
    ))
}

/// Whether an agent that speaks this version is of an earlier release than the control plane.
pub(crate) fn is_outdated(version: i32) -> bool {
    u32::try_from(version).is_ok_and(|version| version < PROTOCOL_VERSION)
}

/// What placement may give away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Offered {
    pub vcpus: i32,
    pub memory_mib: i32,
    pub disk_gib: i32,
}

/// How much is promised for each processor, MiB and GiB that there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Overcommit {
    pub vcpus: f64,
    pub memory: f64,
    pub disk: f64,
}

pub(super) fn offered_capacity(inventory: &Inventory, overcommit: Overcommit) -> Offered {
    // Far from where a float is no whole number any more; what is too large becomes the largest.
    let offered = |real: u64, ratio: f64| (real as f64 * ratio) as i32;
    let disk = u64::from(inventory.disk_gib.0) * u64::from(100 - DISK_RESERVE_PERCENT) / 100;
    Offered {
        vcpus: offered(inventory.cpus.into(), overcommit.vcpus),
        memory_mib: offered(inventory.memory_mib.0.saturating_sub(HOST_MEMORY_MIB).into(), overcommit.memory),
        disk_gib: offered(disk, overcommit.disk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn processors_and_memory_are_offered_as_often_as_the_operator_says() {
        let inventory = |cpus, mib| Inventory {
            cpus,
            memory_mib: protocol::MemoryMib(mib),
            ..crate::testing::inventory()
        };
        let offered = |inventory: &Inventory, vcpus, memory| {
            let offered = offered_capacity(inventory, Overcommit { vcpus, memory, disk: 1.0 });
            (offered.vcpus, offered.memory_mib)
        };
        assert_eq!(offered(&inventory(4, 8192), 4.0, 1.0), (16, 7680));
        assert_eq!(offered(&inventory(4, 8192), 1.6, 1.5), (6, 11_520));
        assert_eq!(offered(&inventory(u32::MAX, 100), 64.0, 4.0), (i32::MAX, 0));
    }

    #[test]
    fn disk_is_offered_as_often_as_the_operator_says_and_a_twentieth_is_kept() {
        let inventory = |gib| Inventory { disk_gib: protocol::SizeGib(gib), ..crate::testing::inventory() };
        for (gib, overcommit, expected) in
            [(100, 1.0, 95), (100, 1.5, 142), (100, 0.5, 47), (0, 10.0, 0), (u32::MAX, 10.0, i32::MAX)]
        {
            let overcommit = Overcommit { vcpus: 4.0, memory: 1.0, disk: overcommit };
            let offered = offered_capacity(&inventory(gib), overcommit);
            assert_eq!(offered.disk_gib, expected, "{gib} GiB, {overcommit:?}");
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

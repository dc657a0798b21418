//! Leases of hosts in shared pools: how it is known without the network that a host's guests are gone.
//!
//! On each host a guard writes `<pool>/leases/<host id>` every [`LEASE_WRITE_SECONDS`]. When no write has completed that
//! began less than [`LEASE_SECONDS`] ago, it cuts the power of every guarded guest with a disk in that pool. So whoever
//! sees a lease unchanged for [`TAKEOVER_SECONDS`] knows that no such guest runs there any more.
//!
//! INVARIANT of agents, without which that is not so: a guest with [`OnHostFailure::Restart`] is started, and anything in
//! its shared pools is written to, only while the leases are fresh and have been so without a gap since the agent *began*
//! the request for the feed whose answer last confirmed the wish. After a gap it asks the feed again first: its instances
//! may have been given to other hosts meanwhile. A report of a generation with `Restart` says that the guard knows of it.

use serde::{Deserialize, Serialize};

use crate::{HostId, Name};

/// How often a lease is written.
pub const LEASE_WRITE_SECONDS: u32 = 5;
/// How long a lease lasts from the beginning of the write that renewed it.
pub const LEASE_SECONDS: u32 = 40;
/// How long a lease has to have been unchanged, by the clock of who looks, before others take over.
pub const TAKEOVER_SECONDS: u32 = 60;
/// The most leases that a witness tells of.
pub const MAX_SEEN_LEASES: usize = 1000;

/// What becomes of an instance when its host dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnHostFailure {
    /// It waits for its host, or for the operator's word that this is dead.
    #[default]
    Wait,
    /// It starts on another host once it is proven that it does not run any more.
    Restart,
}

impl OnHostFailure {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Restart => "restart",
        }
    }

    /// What bears this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Wait, Self::Restart].into_iter().find(|which| which.as_str() == name)
    }

    /// Whether it needs no guard.
    pub fn is_wait(&self) -> bool {
        *self == Self::Wait
    }
}

/// A shared pool in which this host's guard keeps its lease fresh now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardedPool {
    /// As in [`super::SharedPoolReport`]: hosts know pools by their names.
    pub pool: Name,
    /// What the lease said last. It only grows, also over restarts of the guard.
    pub counter: u64,
}

/// Another host's lease, as this one, the witness, reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenLease {
    pub pool: Name,
    pub host: HostId,
    pub counter: u64,
    /// Since the witness first saw this counter, by its own monotonic clock.
    pub unchanged_seconds: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Heartbeat;

    #[test]
    fn what_older_peers_say_reads_as_nothing() {
        let beat = r#"{"epoch": 1, "hypervisor": {"status": "ok"}, "quarantined": 0, "observed_digest":
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;
        let beat: Heartbeat = serde_json::from_str(beat).unwrap();
        assert!(beat.guarded_pools.is_empty() && beat.seen_leases.is_empty());
        let told = serde_json::to_value(&beat).unwrap();
        assert!(told.get("guarded_pools").is_none() && told.get("seen_leases").is_none(), "{told}");
    }

    #[test]
    fn a_guard_has_killed_before_anybody_takes_over() {
        // Time to kill, and writes that fail a few times.
        const { assert!(LEASE_SECONDS + 4 * LEASE_WRITE_SECONDS <= TAKEOVER_SECONDS) };
        const { assert!(LEASE_SECONDS >= 4 * LEASE_WRITE_SECONDS) };
    }
}

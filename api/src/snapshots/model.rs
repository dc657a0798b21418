//! The rules of snapshots. No I/O.

use protocol::MemoryMib;
use protocol::agent::{NotTaken, memory_seconds};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// How long a guest has to freeze its file systems.
pub(crate) const FREEZES_WITHIN: time::Duration = time::Duration::seconds(60);

/// How long a host may be silent beside the time that it has for a guest's memory.
const SILENT: time::Duration = time::Duration::seconds(120);

/// How long a snapshot may be taken of a guest with so much memory; some take as long as it takes.
pub(super) fn taken_within(
    consistency: Consistency,
    with_memory: bool,
    memory: MemoryMib,
) -> Option<time::Duration> {
    match consistency {
        Consistency::Filesystem => Some(FREEZES_WITHIN),
        Consistency::Crash if with_memory => {
            Some(SILENT + time::Duration::seconds(memory_seconds(memory).into()))
        }
        Consistency::Crash => None,
    }
}

/// What of a snapshot's hardware is another now, in words. Both are as `instance_hardware()` of the database gives them.
pub(super) fn changed_hardware(then: &Value, now: &Value) -> Vec<&'static str> {
    let parts = [
        ("size", "its size or firmware"),
        ("machine", "the hardware of its type"),
        ("processor", "the processor of its host"),
        ("volumes", "its volumes or their sizes"),
        ("cards", "its network cards"),
    ];
    parts.into_iter().filter(|(key, _)| then[*key] != now[*key]).map(|(_, words)| words).collect()
}

/// The longest chain of which a snapshot may be taken, which adds a layer. What stands on an image has one file more. libvirt
/// cannot read what QEMU says of 26 files, nor pull out a disk of 25: its parser of JSON ends at 32 levels, and each file
/// is one.
pub(crate) const MAX_CHAIN: usize = 20;

/// How a snapshot fares, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// A host is taking it.
    Creating,
    Available,
    /// There is nothing in it; `failure` says why.
    Failed,
}

impl SnapshotState {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::Failed => "failed",
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "available" => Self::Available,
            "failed" => Self::Failed,
            _ => Self::Creating,
        }
    }
}

/// What is certain of the data in a snapshot of a guest that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// As after a loss of power: all disks at one instant, without what the guest has not written yet.
    #[default]
    Crash,
    /// The guest has written everything, and its file systems are clean. Needs the guest agent.
    Filesystem,
}

impl Consistency {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Filesystem => "filesystem",
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        if text == "filesystem" { Self::Filesystem } else { Self::Crash }
    }
}

/// What a report says of a snapshot that is being taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taking {
    pub consistency: Consistency,
    /// Whether all its volumes have their new layers.
    pub covered: bool,
    /// Whether the guest runs that was there when it was asked for.
    pub same_guest: bool,
    /// Why its host, which has heard of it, did not take it.
    pub not_taken: Option<NotTaken>,
    /// Whether the guest's memory is there, if it shall be.
    pub has_memory: Option<bool>,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Open,
    Taken,
    /// The layers came when no guest was there that could have been frozen.
    Unfrozen,
    NotTaken(NotTaken),
}

pub(super) fn verdict(taking: Taking) -> Verdict {
    match taking {
        Taking { covered: false, not_taken: Some(why), .. } => Verdict::NotTaken(why),
        Taking { covered: false, .. } => Verdict::Open,
        // That of another instant would fit to nothing.
        Taking { has_memory: Some(false), .. } => Verdict::NotTaken(NotTaken::MemoryNotSaved),
        Taking { consistency: Consistency::Filesystem, same_guest: false, .. } => Verdict::Unfrozen,
        _ => Verdict::Taken,
    }
}

/// What the owner reads of a snapshot that a host did not take.
pub(super) const fn not_taken(why: NotTaken) -> &'static str {
    match why {
        NotTaken::NoGuestAgent => {
            "no guest agent is connected: install and start qemu-guest-agent in the guest, or take one with the \
             consistency crash"
        }
        NotTaken::NotFrozen => "the agent in the guest did not freeze its file systems",
        NotTaken::NoRoom => "the host or the pool has too little room for the memory of the guest",
        NotTaken::MemoryNotSaved => {
            "the memory of the guest was not saved: guest and agent of its host have to go on until it is; take another"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_frozen_is_never_said_to_be() {
        use Consistency::{Crash, Filesystem};
        let refused = Some(NotTaken::NotFrozen);
        for (consistency, covered, same_guest, not_taken, has_memory, expected) in [
            (Crash, false, true, None, None, Verdict::Open),
            (Crash, true, true, None, None, Verdict::Taken),
            (Crash, true, false, None, None, Verdict::Taken),
            (Crash, false, true, None, Some(true), Verdict::Open),
            (Crash, true, true, None, Some(true), Verdict::Taken),
            (Crash, true, false, None, Some(true), Verdict::Taken),
            (Crash, true, true, None, Some(false), Verdict::NotTaken(NotTaken::MemoryNotSaved)),
            (Crash, false, true, Some(NotTaken::NoRoom), Some(false), Verdict::NotTaken(NotTaken::NoRoom)),
            (Filesystem, false, false, None, None, Verdict::Open),
            (Filesystem, false, true, refused, None, Verdict::NotTaken(NotTaken::NotFrozen)),
            (Filesystem, true, true, refused, None, Verdict::Taken),
            (Filesystem, true, false, None, None, Verdict::Unfrozen),
        ] {
            let taking = Taking { consistency, covered, same_guest, not_taken, has_memory };
            assert_eq!(verdict(taking), expected, "{taking:?}");
        }
    }
}

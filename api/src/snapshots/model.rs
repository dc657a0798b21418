//! The rules of snapshots. No I/O.

use protocol::agent::MAX_LAYERS;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long a guest has to freeze its file systems.
pub(crate) const FREEZES_WITHIN: time::Duration = time::Duration::seconds(60);

/// The longest chain of which a snapshot may be taken. It adds a layer, and there must be room for the one that a merge
/// needs.
pub(crate) const MAX_CHAIN: usize = MAX_LAYERS - 2;

/// How a snapshot fares, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// A host is taking it.
    Creating,
    Available,
    /// There is nothing in it; `failure` says why.
    Failed,
}

impl SnapshotState {
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
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Open,
    Taken,
    /// The layers came when no guest was there that could have been frozen.
    Unfrozen,
}

pub(super) fn verdict(taking: Taking) -> Verdict {
    match taking {
        Taking { covered: false, .. } => Verdict::Open,
        Taking { consistency: Consistency::Filesystem, same_guest: false, .. } => Verdict::Unfrozen,
        _ => Verdict::Taken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_frozen_is_never_said_to_be() {
        use Consistency::{Crash, Filesystem};
        for (consistency, covered, same_guest, expected) in [
            (Crash, false, true, Verdict::Open),
            (Crash, true, true, Verdict::Taken),
            (Crash, true, false, Verdict::Taken),
            (Filesystem, false, false, Verdict::Open),
            (Filesystem, true, true, Verdict::Taken),
            (Filesystem, true, false, Verdict::Unfrozen),
        ] {
            assert_eq!(verdict(Taking { consistency, covered, same_guest }), expected);
        }
    }
}

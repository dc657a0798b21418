//! The rules of volumes. No I/O.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The largest volume.
pub(crate) const MAX_SIZE_GIB: i32 = 16_384;

/// How far a volume has come into or out of its instance, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentState {
    /// The instance's host has not given it to the guest yet.
    Attaching,
    Attached,
    /// The guest has been asked to let go of it, and may still have it.
    Detaching,
}

impl AttachmentState {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "attached" => Self::Attached,
            "detaching" => Self::Detaching,
            _ => Self::Attaching,
        }
    }
}

/// How a volume fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// Attached to nothing.
    Available,
    /// On its way into its instance.
    Attaching,
    Attached,
    /// Attached; its host has not seen its newest size or limits through yet.
    Updating,
    /// On its way out of its instance, which may still write to it.
    Detaching,
    /// It goes as soon as its host has removed its data.
    Deleting,
}

impl VolumeState {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Attaching => "attaching",
            Self::Attached => "attached",
            Self::Updating => "updating",
            Self::Detaching => "detaching",
            Self::Deleting => "deleting",
        }
    }
}

/// What is known of a volume.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub deletion_requested: bool,
    pub attachment: Option<AttachmentState>,
    /// What a host is to make of it has changed so often.
    pub spec_generation: i64,
    /// Up to here its host has seen that through.
    pub ready_generation: Option<i64>,
}

/// What they see. `volume_state()` of the database says the same, for lists that ask for a state.
pub(super) fn shown(seen: &Seen) -> VolumeState {
    if seen.deletion_requested {
        return VolumeState::Deleting;
    }
    match seen.attachment {
        None => VolumeState::Available,
        Some(AttachmentState::Attaching) => VolumeState::Attaching,
        Some(AttachmentState::Detaching) => VolumeState::Detaching,
        Some(AttachmentState::Attached) if seen.ready_generation >= Some(seen.spec_generation) => {
            VolumeState::Attached
        }
        Some(AttachmentState::Attached) => VolumeState::Updating,
    }
}

/// The smallest volume that has room for an image.
pub(crate) fn gib_for(virtual_size_bytes: i64) -> i32 {
    let gib = (virtual_size_bytes + (1 << 30) - 1) >> 30;
    i32::try_from(gib).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_attached_only_when_its_host_has_seen_the_newest_of_it() {
        use AttachmentState as A;
        use VolumeState as V;
        for (deletion_requested, attachment, ready_generation, expected) in [
            (false, None, None, V::Available),
            (false, Some(A::Attaching), None, V::Attaching),
            (false, Some(A::Attached), Some(3), V::Attached),
            (false, Some(A::Attached), Some(2), V::Updating),
            (false, Some(A::Attached), None, V::Updating),
            (false, Some(A::Detaching), Some(3), V::Detaching),
            (true, Some(A::Attached), Some(3), V::Deleting),
            (true, None, None, V::Deleting),
        ] {
            let seen = Seen { deletion_requested, attachment, spec_generation: 3, ready_generation };
            assert_eq!(shown(&seen), expected, "{seen:?}");
        }
    }

    #[test]
    fn a_volume_has_room_for_all_of_its_image() {
        assert_eq!(gib_for(1), 1);
        assert_eq!(gib_for(1 << 30), 1);
        assert_eq!(gib_for((1 << 30) + 1), 2);
    }
}

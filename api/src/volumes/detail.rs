//! Why a volume is still on its way from one state into another.

use time::OffsetDateTime;

use super::model::VolumeState;
use crate::hosts::Doer;

/// What is known of those that have to do something about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits<'a> {
    pub host: Option<Doer>,
    /// What the host said last of the instance, in a sentence.
    pub said: Option<&'a str>,
    /// Its host has still to merge layers of it.
    pub merging: bool,
}

/// In words, for its owner.
pub(super) fn detail(state: VolumeState, waits: &Waits<'_>, now: OffsetDateTime) -> Option<String> {
    if matches!(state, VolumeState::Available | VolumeState::Attached) {
        return None;
    }
    if let Some(silence) = waits.host.and_then(|host| host.silence(now)) {
        return Some(silence);
    }
    let placed = waits.host.is_some();
    let said = waits.said.filter(|_| placed && state != VolumeState::Deleting);
    if let Some(said) = said {
        return Some(format!("the host of its instance says: {said}"));
    }
    let why = match state {
        VolumeState::Available | VolumeState::Attached => return None,
        VolumeState::Attaching if !placed => {
            "its instance waits for a host; `placement` of the instance says what it needs"
        }
        VolumeState::Attaching => {
            "the host of its instance is to give it to the guest and has not said yet that it did"
        }
        VolumeState::Updating if waits.merging => {
            "the host of its instance merges layers that deleted snapshots have left; it can be used as before"
        }
        VolumeState::Updating => {
            "the host of its instance has still to carry out the newest change of it, as a new size, new limits or a snapshot"
        }
        VolumeState::Detaching => {
            "the guest is to let go of it and has not yet: let it unmount the disk, or use `force_detach_volume`"
        }
        VolumeState::Deleting if placed => {
            "the host that has its data is to remove that and has not said yet that it did"
        }
        VolumeState::Deleting => "its data goes as soon as a host that has its pool removes it",
    };
    Some(why.to_owned())
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn what_is_on_its_way_says_whom_it_waits_for() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(1);
        let heard = Some(Doer { last_seen_at: Some(now), dead: false });
        let silent = Some(Doer { last_seen_at: Some(now - Duration::HOUR), dead: false });
        for (state, host, said, merging, expected) in [
            (VolumeState::Available, silent, Some("x"), true, None),
            (VolumeState::Attached, silent, Some("x"), true, None),
            (VolumeState::Attaching, None, None, false, Some("waits for a host")),
            (VolumeState::Attaching, heard, Some("no room"), false, Some("says: no room")),
            (
                VolumeState::Attaching,
                silent,
                Some("no room"),
                false,
                Some("nothing is heard of its host for 60 minutes"),
            ),
            (VolumeState::Updating, heard, None, true, Some("merges layers")),
            (VolumeState::Updating, heard, None, false, Some("newest change")),
            (VolumeState::Detaching, heard, None, false, Some("force_detach_volume")),
            (VolumeState::Deleting, heard, Some("of its instance"), false, Some("to remove that")),
            (VolumeState::Deleting, None, None, false, Some("has its pool")),
        ] {
            let found = detail(state, &Waits { host, said, merging }, now);
            match expected {
                None => assert_eq!(found, None, "{state:?}"),
                Some(part) => {
                    assert!(found.as_ref().is_some_and(|all| all.contains(part)), "{found:?}: {part}");
                }
            }
        }
    }
}

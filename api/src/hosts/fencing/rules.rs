//! When a silent host is switched off, and when not.

use time::{Duration, OffsetDateTime};

use super::store::{Candidate, Fleet};

/// Between two calls of the program for one host; doubled from call to call.
const FIRST_PAUSE: Duration = Duration::minutes(1);
const LONGEST_PAUSE: Duration = Duration::minutes(30);

pub(super) fn pause_after(attempts: i32) -> Duration {
    let doubled = FIRST_PAUSE * 2_i32.saturating_pow(attempts.saturating_sub(1).clamp(0, 16).unsigned_abs());
    doubled.min(LONGEST_PAUSE)
}

/// Whether so many hosts are silent at once that the fault is hardly theirs.
pub(super) const fn is_storm(fleet: Fleet) -> bool {
    fleet.silent > 2 && fleet.silent * 3 > fleet.all
}

/// Why a host that is silent for long enough is not switched off, in words for the operator.
pub(super) fn held(candidate: &Candidate, fleet: Fleet) -> Option<String> {
    if candidate.cordoned {
        Some(
            "it is cordoned, so its operator is at work on it; declare it dead once no guest runs there, or uncordon it"
                .to_owned(),
        )
    } else if is_storm(fleet) {
        let Fleet { silent, all } = fleet;
        Some(format!(
            "{silent} of {all} hosts are silent at once, more than a third: none is switched off; look at the network, and \
             declare dead what is"
        ))
    } else if candidate.writes_leases {
        Some(
            "other hosts see that its guard still writes its lease: the machine is alive and its guests run on, so look at its agent"
                .to_owned(),
        )
    } else if !candidate.has_room {
        Some("no other host could take any of its instances now, so nothing would be gained".to_owned())
    } else {
        None
    }
}

/// Whether it is silent for so long, as far as anybody has listened.
pub(super) fn is_silent_for(
    last_seen_at: OffsetDateTime,
    listening_since: OffsetDateTime,
    after: Duration,
    now: OffsetDateTime,
) -> bool {
    now - last_seen_at.max(listening_since) >= after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_called_ever_more_rarely() {
        let pauses: Vec<_> = (0..8).map(|attempts| pause_after(attempts).whole_minutes()).collect();
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pause_after(i32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn more_than_two_and_more_than_a_third_are_too_many() {
        let storms = [(3, 3), (3, 8), (4, 11), (5, 14), (100, 100)];
        let none = [(0, 0), (1, 1), (2, 2), (2, 3), (3, 9), (4, 12), (33, 99)];
        assert!(storms.iter().all(|(silent, all)| is_storm(Fleet { silent: *silent, all: *all })));
        assert!(!none.iter().any(|(silent, all)| is_storm(Fleet { silent: *silent, all: *all })));
    }

    #[test]
    fn silence_is_no_longer_than_somebody_listens() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(1);
        let ago = |seconds| now - Duration::seconds(seconds);
        let after = Duration::seconds(120);
        assert!(is_silent_for(ago(120), ago(500), after, now));
        assert!(!is_silent_for(ago(119), ago(500), after, now));
        assert!(!is_silent_for(ago(90_000), ago(119), after, now));
    }
}

//! How long to wait after so many failures.

use time::{Duration, OffsetDateTime};

/// Failures are forgotten so long after the last attempt.
pub(super) const FORGOTTEN: Duration = Duration::hours(1);

/// So many failures are free; after that the wait begins at a second and doubles, up to the longest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub free: i32,
    pub longest: Duration,
}

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tries {
    pub failures: i32,
    pub last_attempt_at: OffsetDateTime,
    pub open_at: OffsetDateTime,
}

impl Rule {
    /// Counts an attempt as a failure, or says how long it has to wait.
    pub(super) fn attempt(&self, tries: Tries, now: OffsetDateTime) -> Result<Tries, Duration> {
        // A clock that was set back must not keep anybody out for longer than the rule.
        let wait = (tries.open_at - now).min(self.longest);
        if wait.is_positive() {
            return Err(wait);
        }
        let forgotten = now - tries.last_attempt_at >= FORGOTTEN;
        let failures = if forgotten { 1 } else { tries.failures.saturating_add(1) };
        Ok(Tries { failures, last_attempt_at: now, open_at: now + self.delay(failures) })
    }

    fn delay(&self, failures: i32) -> Duration {
        match u32::try_from(failures - self.free - 1) {
            Err(_) => Duration::ZERO,
            Ok(doublings) => Duration::seconds(1_i64 << doublings.min(30)).min(self.longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const RULE: Rule = Rule { free: 3, longest: Duration::minutes(5) };
    const START: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);
    const NONE: Tries = Tries { failures: 0, last_attempt_at: START, open_at: START };

    #[test]
    fn the_wait_doubles_from_a_second_to_the_longest() {
        let (mut now, mut tries) = (START, NONE);
        let mut waits = Vec::new();
        for _ in 0..15 {
            tries = RULE.attempt(tries, now).unwrap();
            waits.push((tries.open_at - now).whole_seconds());
            now = tries.open_at;
        }
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        let early = now - Duration::milliseconds(1);
        assert_eq!(RULE.attempt(Tries { open_at: now, ..tries }, early), Err(Duration::milliseconds(1)));
        let much_later = tries.last_attempt_at + FORGOTTEN;
        assert_eq!(RULE.attempt(tries, much_later).unwrap().failures, 1);
        let worn_out = Tries { failures: i32::MAX, ..tries };
        assert_eq!(RULE.attempt(worn_out, now).unwrap().open_at, now + RULE.longest);
    }

    proptest! {
        /// However an attacker times it: so many guesses and no more, and never a wait beyond the longest.
        #[test]
        fn guesses_are_bounded_and_waits_too(pauses in prop::collection::vec(0..400_i64, 1..400)) {
            let (mut now, mut tries, mut admitted) = (START, NONE, 0_i64);
            for pause in pauses {
                now += Duration::seconds(pause);
                match RULE.attempt(tries, now) {
                    Ok(next) => (tries, admitted) = (next, admitted + 1),
                    Err(wait) => prop_assert!(wait <= RULE.longest),
                }
            }
            let elapsed = (now - START).whole_seconds();
            // Twelve until the wait is at its longest, then one in five minutes.
            prop_assert!(admitted <= 13 + elapsed / 300, "{admitted} in {elapsed} s");
        }
    }
}

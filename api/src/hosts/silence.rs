//! What the owner of something reads while its host does nothing about it. Never which host that is.

use time::{Duration, OffsetDateTime};

use super::UNREACHABLE_AFTER;

/// The host that has to do something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doer {
    pub last_seen_at: Option<OffsetDateTime>,
    /// The operator has declared it dead.
    pub dead: bool,
}

impl Doer {
    /// Why it does nothing now, if it does not.
    pub(crate) fn silence(self, now: OffsetDateTime) -> Option<String> {
        let silent = self.last_seen_at.map(|seen| now - seen);
        if self.dead {
            Some(
                "its host is lost, as the operator has declared; it goes on if that host comes back"
                    .to_owned(),
            )
        } else if silent.is_none_or(|silent| silent > UNREACHABLE_AFTER) {
            let since = silent.map_or_else(String::new, |silent| format!(" for {}", spell(silent)));
            Some(format!(
                "nothing is heard of its host{since}; it goes on when that host is back, or the operator has declared it dead"
            ))
        } else {
            None
        }
    }
}

/// In the largest unit that fits.
fn spell(time: Duration) -> String {
    let units =
        [(time.whole_days(), "days"), (time.whole_hours(), "hours"), (time.whole_minutes(), "minutes")];
    let (count, unit) =
        units.into_iter().find(|(count, _)| *count > 1).unwrap_or((time.whole_seconds(), "seconds"));
    format!("{count} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_silent_after_a_while_and_a_dead_one_at_once() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(30);
        let said = |seconds: i64, dead| {
            Doer { last_seen_at: Some(now - Duration::seconds(seconds)), dead }.silence(now)
        };
        assert_eq!(said(20, false), None);
        for (seconds, since) in
            [(21, "21 seconds"), (119, "119 seconds"), (120, "2 minutes"), (200_000, "2 days")]
        {
            assert!(said(seconds, false).unwrap().contains(&format!("its host for {since};")), "{seconds}");
        }
        assert!(said(0, true).unwrap().contains("lost"));
        assert!(Doer { last_seen_at: None, dead: false }.silence(now).unwrap().contains("of its host;"));
    }
}

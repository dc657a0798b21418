//! When a schedule is due. No I/O.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime, Time};
use utoipa::ToSchema;

/// A day of the week, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Weekday {
    const ALL: [Self; 7] = [
        Self::Monday,
        Self::Tuesday,
        Self::Wednesday,
        Self::Thursday,
        Self::Friday,
        Self::Saturday,
        Self::Sunday,
    ];

    /// Days since Monday, as it is stored.
    pub(super) fn number(self) -> i16 {
        Self::ALL.iter().zip(0..).find(|(day, _)| **day == self).map_or(0, |(_, number)| number)
    }

    pub(super) fn from_number(number: i16) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// How often, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rhythm {
    /// So many hours apart, from the making of the schedule on.
    Hours(i16),
    /// At this minute of the day, in UTC; on one day of the week or on each.
    At { minute: i16, weekday: Option<Weekday> },
}

impl Rhythm {
    /// The first slot after `now`.
    pub(super) fn next(self, made: OffsetDateTime, now: OffsetDateTime) -> OffsetDateTime {
        match self {
            Self::Hours(hours) => {
                let apart = Duration::hours(i64::from(hours.max(1)));
                let passed = (now - made).whole_seconds().div_euclid(apart.whole_seconds()).max(0);
                made + apart * i32::try_from(passed + 1).unwrap_or(i32::MAX)
            }
            Self::At { minute, weekday } => {
                let today = now.replace_time(Time::MIDNIGHT) + Duration::minutes(i64::from(minute));
                let due = |slot: &OffsetDateTime| {
                    let day = i16::from(slot.weekday().number_days_from_monday());
                    *slot > now && weekday.is_none_or(|weekday| weekday.number() == day)
                };
                let slots = (0..=7).map(|days| today + Duration::days(days));
                slots.into_iter().find(due).unwrap_or(today + Duration::days(7))
            }
        }
    }
}

/// `HH:MM` as minutes of the day.
pub(super) fn parse_minute(text: &str) -> Option<i16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (i16, i16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

pub(super) fn minute_text(minute: i16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn slots_are_where_a_calendar_has_them() {
        let made = datetime!(2026-06-01 12:10 UTC); // a Monday
        let at = |text: &str, weekday| Rhythm::At { minute: parse_minute(text).unwrap(), weekday };
        for (rhythm, now, next) in [
            (Rhythm::Hours(6), datetime!(2026-06-01 12:10 UTC), datetime!(2026-06-01 18:10 UTC)),
            (Rhythm::Hours(6), datetime!(2026-06-01 18:10 UTC), datetime!(2026-06-02 00:10 UTC)),
            (Rhythm::Hours(6), datetime!(2026-06-09 20:00 UTC), datetime!(2026-06-10 00:10 UTC)),
            (at("03:00", None), datetime!(2026-06-01 12:10 UTC), datetime!(2026-06-02 03:00 UTC)),
            (at("23:59", None), datetime!(2026-06-30 12:10 UTC), datetime!(2026-06-30 23:59 UTC)),
            (
                at("03:00", Some(Weekday::Monday)),
                datetime!(2026-06-01 02:59 UTC),
                datetime!(2026-06-01 03:00 UTC),
            ),
            (
                at("03:00", Some(Weekday::Monday)),
                datetime!(2026-06-01 03:00 UTC),
                datetime!(2026-06-08 03:00 UTC),
            ),
            (
                at("03:00", Some(Weekday::Sunday)),
                datetime!(2026-06-01 03:00 UTC),
                datetime!(2026-06-07 03:00 UTC),
            ),
        ] {
            assert_eq!(rhythm.next(made, now), next, "{rhythm:?} after {now}");
        }
        for wrong in ["", "3:00", "24:00", "12:60", "12", "12:3a", "-1:00", "012:00"] {
            assert_eq!(parse_minute(wrong), None, "{wrong}");
        }
        assert_eq!(minute_text(parse_minute("03:07").unwrap()), "03:07");
    }

    proptest! {
        #[test]
        fn the_next_slot_is_later_and_the_first(hours in 1_i16..=168, minute in 0_i16..1440, day in 0_i16..8, passed in 0_i64..40_000_000) {
            let made = datetime!(2026-06-01 12:10 UTC);
            let now = made + Duration::seconds(passed);
            for rhythm in [Rhythm::Hours(hours), Rhythm::At { minute, weekday: Weekday::from_number(day) }] {
                let next = rhythm.next(made, now);
                prop_assert!(next > now && next - now <= Duration::days(7));
                // Asked a second before, it is the same one.
                prop_assert_eq!(rhythm.next(made, next - Duration::seconds(1)), next);
            }
        }
    }
}

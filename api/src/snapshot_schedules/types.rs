//! The wire of schedules.

use protocol::{Name, SnapshotScheduleId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::slots::{Rhythm, Weekday, parse_minute};
use crate::http::{
    FieldError, Labels, LabelsPatch, not_null, nullable, validate_description, validate_labels,
};
use crate::instances::Reference;
use crate::snapshots::model::{Consistency, SnapshotState};

const EVERY_HOURS: std::ops::RangeInclusive<i16> = 1..=168;
/// Together all schedules of a volume keep no more: [`MAX_CHAIN`](crate::snapshots::model::MAX_CHAIN) without the one that is
/// taken before the oldest goes, and one that somebody takes by hand.
pub(super) const KEEP: std::ops::RangeInclusive<i16> = 1..=18;

/// Of a volume or of an instance; every so many hours, or at a time of day.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshotSchedule {
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    /// Name or id of a volume of this project.
    #[schema(example = "data")]
    pub volume: Option<String>,
    /// Name or id of an instance of this project.
    pub instance: Option<String>,
    /// As of a snapshot that is taken by hand.
    #[serde(default)]
    pub consistency: Consistency,
    /// Every so many hours, from now on.
    #[schema(minimum = 1, maximum = 168)]
    pub every_hours: Option<i16>,
    /// At this time of day, in UTC.
    #[schema(example = "03:00", pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    pub at: Option<String>,
    /// With `at`: on this day of the week only.
    pub weekday: Option<Weekday>,
    /// So many of its snapshots are kept; older ones that it made are deleted.
    #[schema(minimum = 1, maximum = 18)]
    pub keep: i16,
    #[serde(default)]
    pub labels: Labels,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateSnapshotSchedule {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(max_length = 1000, nullable = false)]
    pub description: Option<String>,
    /// Name or id of a volume of this project, which it takes from now on, in place of what it took. What it made of that
    /// stays.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub volume: Option<String>,
    /// Name or id of an instance of this project, likewise.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub instance: Option<String>,
    /// Every so many hours since it was made, and at no time of day.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(minimum = 1, maximum = 168, nullable = false)]
    pub every_hours: Option<i16>,
    /// At this time of day, in UTC, and no more every so many hours.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(example = "03:00", pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$", nullable = false)]
    pub at: Option<String>,
    /// With a time of day: on this day of the week only; `null` is each day.
    #[serde(default, deserialize_with = "nullable")]
    pub weekday: Option<Option<Weekday>>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(minimum = 1, maximum = 18, nullable = false)]
    pub keep: Option<i16>,
    /// `true` takes no snapshots until it is `false` again.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub paused: Option<bool>,
    /// A label that is `null` is removed.
    #[serde(default)]
    pub labels: LabelsPatch,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotSchedule {
    pub id: SnapshotScheduleId,
    pub name: String,
    pub description: String,
    pub labels: Labels,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<Reference>,
    pub consistency: Consistency,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_hours: Option<i16>,
    /// In UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weekday: Option<Weekday>,
    pub keep: i16,
    pub paused: bool,
    /// When it takes the next one.
    #[serde(with = "time::serde::rfc3339")]
    pub next_at: OffsetDateTime,
    /// What it came to the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<ScheduleRun>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// One run of a schedule.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduleRun {
    /// When it was due.
    #[serde(with = "time::serde::rfc3339")]
    pub due_at: OffsetDateTime,
    /// The snapshot, unless it is deleted or there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<SnapshotState>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl CreateSnapshotSchedule {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_description(&self.description, &mut errors);
        validate_labels(&self.labels, &mut errors);
        validate_keep(self.keep, &mut errors);
        match (&self.volume, &self.instance) {
            (None, None) => errors.push(FieldError::new("/volume", "missing", "a volume, or an `instance`")),
            (Some(_), Some(_)) => {
                errors.push(FieldError::new("/instance", "invalid", "either a volume or an instance"));
            }
            _ => {}
        }
        if self.every_hours.is_none() && self.at.is_none() {
            errors.push(FieldError::new("/at", "missing", "a time of day, or `every_hours`"));
        }
        validate_times(self.every_hours, self.at.as_deref(), &mut errors);
        if self.weekday.is_some() && self.at.is_none() {
            errors.push(no_day());
        }
        errors
    }

    /// Of what is valid.
    pub(super) fn rhythm(&self) -> Rhythm {
        match (self.every_hours, self.at.as_deref().and_then(parse_minute)) {
            (None, Some(minute)) => Rhythm::At { minute, weekday: self.weekday },
            (hours, _) => Rhythm::Hours(hours.unwrap_or(1)),
        }
    }
}

impl UpdateSnapshotSchedule {
    /// What is wrong with it, whatever the schedule is; and, if that takes no time of day, with a day of the week.
    pub(super) fn validate(&self, takes_at: bool) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.volume.is_some() && self.instance.is_some() {
            errors.push(FieldError::new("/instance", "invalid", "either a volume or an instance"));
        }
        validate_times(self.every_hours, self.at.as_deref(), &mut errors);
        let takes_at = self.at.is_some() || takes_at && self.every_hours.is_none();
        if matches!(self.weekday, Some(Some(_))) && !takes_at {
            errors.push(no_day());
        }
        errors
    }

    /// When the schedule takes snapshots from now on, if the patch says anything of that; of what is valid.
    pub(super) fn rhythm(&self, before: Rhythm) -> Option<Rhythm> {
        let at = self.at.as_deref().and_then(parse_minute);
        match (self.every_hours, at, before) {
            (Some(hours), ..) => Some(Rhythm::Hours(hours)),
            (None, Some(minute), Rhythm::Hours(_)) => {
                Some(Rhythm::At { minute, weekday: self.weekday.flatten() })
            }
            (None, at, Rhythm::At { minute, weekday }) if at.is_some() || self.weekday.is_some() => {
                let (minute, weekday) = (at.unwrap_or(minute), self.weekday.unwrap_or(weekday));
                Some(Rhythm::At { minute, weekday })
            }
            _ => None,
        }
    }
}

fn validate_times(every_hours: Option<i16>, at: Option<&str>, errors: &mut Vec<FieldError>) {
    match (every_hours, at) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::new("/every_hours", "invalid", "either hours or a time of day"));
        }
        (Some(hours), None) if !EVERY_HOURS.contains(&hours) => {
            errors.push(FieldError::new("/every_hours", "out_of_range", "from 1 to 168"));
        }
        (None, Some(at)) if parse_minute(at).is_none() => {
            errors.push(FieldError::new("/at", "invalid", "a time of day in UTC, like `03:00`"));
        }
        _ => {}
    }
}

fn no_day() -> FieldError {
    FieldError::new("/weekday", "invalid", "a day of the week needs `at`")
}

pub(super) fn validate_keep(keep: i16, errors: &mut Vec<FieldError>) {
    if !KEEP.contains(&keep) {
        errors.push(FieldError::new(
            "/keep",
            "out_of_range",
            "from 1 to 18: a volume takes 20 snapshots, and some room has to be left",
        ));
    }
}

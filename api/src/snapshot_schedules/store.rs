//! SQL of schedules, for their owners. What the controller needs is in the file below.

pub(super) mod running;

use protocol::SnapshotScheduleId;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::slots::{Rhythm, Weekday, minute_text};
use super::types::{KEEP, ScheduleRun, SnapshotSchedule};
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Selector, Version, violated_constraint};
use crate::instances::Reference;
use crate::snapshots::model::{Consistency, SnapshotState};
use crate::snapshots::store::taking::Source;

/// A schedule that is about to be made.
pub(super) struct New<'a> {
    pub id: SnapshotScheduleId,
    pub name: &'a str,
    pub description: &'a str,
    pub labels: &'a Labels,
    pub source: Source,
    pub consistency: Consistency,
    pub rhythm: Rhythm,
    pub keep: i16,
    pub now: OffsetDateTime,
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub labels: Json<Labels>,
    pub generation: i64,
    pub volume_id: Option<Uuid>,
    pub volume_name: Option<String>,
    pub instance_id: Option<Uuid>,
    pub instance_name: Option<String>,
    pub consistency: String,
    pub every_hours: Option<i16>,
    pub at_minute: Option<i16>,
    pub weekday: Option<i16>,
    pub keep: i16,
    pub paused: bool,
    pub next_at: OffsetDateTime,
    pub last_due_at: Option<OffsetDateTime>,
    pub last_failure: Option<String>,
    pub snapshot_id: Option<Uuid>,
    pub snapshot_name: Option<String>,
    pub snapshot_state: Option<String>,
    pub snapshot_failure: Option<String>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn rhythm(&self) -> Rhythm {
        rhythm(self.every_hours, self.at_minute, self.weekday)
    }

    pub(super) fn set_rhythm(&mut self, rhythm: Rhythm) {
        (self.every_hours, self.at_minute, self.weekday) = columns(rhythm);
    }

    pub(super) fn set_source(&mut self, source: Source) {
        (self.volume_id, self.instance_id) = match source {
            Source::Volume(volume) => (Some(volume), None),
            Source::Instance(instance) => (None, Some(instance)),
        };
    }

    pub(super) fn into_wire(self) -> SnapshotSchedule {
        let reference = |id: Option<Uuid>, name| id.zip(name).map(|(id, name)| Reference { id, name });
        let last_run = self.last_due_at.map(|due_at| ScheduleRun {
            due_at,
            snapshot: reference(self.snapshot_id, self.snapshot_name),
            state: self.snapshot_state.as_deref().map(SnapshotState::parse),
            failure: self.last_failure.or(self.snapshot_failure),
        });
        SnapshotSchedule {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            labels: self.labels.0,
            volume: reference(self.volume_id, self.volume_name),
            instance: reference(self.instance_id, self.instance_name),
            consistency: Consistency::parse(&self.consistency),
            every_hours: self.every_hours,
            at: self.at_minute.map(minute_text),
            weekday: self.weekday.and_then(Weekday::from_number),
            keep: self.keep,
            paused: self.paused,
            next_at: self.next_at,
            last_run,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

/// As the columns have it.
fn rhythm(every_hours: Option<i16>, at_minute: Option<i16>, weekday: Option<i16>) -> Rhythm {
    match at_minute {
        Some(minute) => Rhythm::At { minute, weekday: weekday.and_then(Weekday::from_number) },
        None => Rhythm::Hours(every_hours.unwrap_or(1)),
    }
}

/// The columns of it: hours apart, minute of the day, day of the week.
fn columns(rhythm: Rhythm) -> (Option<i16>, Option<i16>, Option<i16>) {
    match rhythm {
        Rhythm::Hours(hours) => (Some(hours), None, None),
        Rhythm::At { minute, weekday } => (None, Some(minute), weekday.map(Weekday::number)),
    }
}

/// The most snapshots that all schedules together keep of a volume that this one is about.
pub(super) async fn kept_with(conn: &mut PgConnection, schedule: Uuid) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT max(kept) AS "kept!" FROM (
               SELECT sum(other.keep) AS kept
               FROM snapshot_schedules s JOIN volumes v ON v.id = s.volume_id OR v.instance_id = s.instance_id
               JOIN snapshot_schedules other ON other.volume_id = v.id OR other.instance_id = v.instance_id
               WHERE s.id = $1 GROUP BY v.id
               UNION ALL
               SELECT keep FROM snapshot_schedules WHERE id = $1) of_volumes"#,
        schedule
    )
    .fetch_one(conn)
    .await
}

/// Refuses volumes that were just put into an instance when its schedules and their own together would keep more of one
/// than its chain takes: none of them would ever take another snapshot.
pub(crate) async fn refuse_overfull(conn: &mut PgConnection, volumes: &[Uuid]) -> Result<(), ApiError> {
    let found = sqlx::query!(
        r#"SELECT v.name, sum(s.keep) AS "kept!", string_agg(s.name, ', ' ORDER BY s.name) AS "schedules!"
           FROM volumes v JOIN snapshot_schedules s ON s.volume_id = v.id OR s.instance_id = v.instance_id
           WHERE v.id = ANY($1) GROUP BY v.id HAVING sum(s.keep) > $2 ORDER BY v.id LIMIT 1"#,
        volumes,
        i64::from(*KEEP.end())
    )
    .fetch_optional(conn)
    .await?;
    let Some(found) = found else { return Ok(()) };
    let detail = format!(
        "the schedules {} together would keep {} snapshots of the volume {}, whose chain takes {}; let them keep fewer",
        found.schedules,
        found.kept,
        found.name,
        KEEP.end()
    );
    Err(ApiError::because(ErrorCode::WrongState, detail))
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::CreateSnapshotSchedule>,
    new: &New<'_>,
) -> Result<(), ApiError> {
    let (volume, instance) = match new.source {
        Source::Volume(volume) => (Some(volume), None),
        Source::Instance(instance) => (None, Some(instance)),
    };
    let (every_hours, at_minute, weekday) = columns(new.rhythm);
    let inserted = sqlx::query!(
        "INSERT INTO snapshot_schedules (id, project_id, name, description, labels, volume_id, instance_id, consistency,
                                         every_hours, at_minute, weekday, keep, next_at, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)",
        new.id.as_uuid(),
        allowed.project().as_uuid(),
        new.name,
        new.description,
        Json(new.labels) as _,
        volume,
        instance,
        new.consistency.as_str(),
        every_hours,
        at_minute,
        weekday,
        new.keep,
        new.rhythm.next(new.now, new.now),
        new.now
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(broken)
}

/// Locks a schedule of the project, of which a slot may be run just now.
pub(super) async fn lock(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::UpdateSnapshotSchedule>,
) -> Result<Option<Row>, sqlx::Error> {
    let selector = allowed.selector();
    sqlx::query!(
        "SELECT FROM snapshot_schedules WHERE project_id = $1 AND (id = $2 OR name = $3) FOR UPDATE",
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .execute(&mut *conn)
    .await?;
    find(conn, allowed, selector).await
}

/// A schedule of the project.
pub(super) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT s.id, s.name, s.description, s.labels AS "labels: Json<Labels>", s.generation, s.volume_id,
                  v.name AS "volume_name?", s.instance_id, i.name AS "instance_name?", s.consistency, s.every_hours,
                  s.at_minute, s.weekday, s.keep, s.paused, s.next_at, s.last_due_at, s.last_failure,
                  n.id AS "snapshot_id?", n.name AS "snapshot_name?", n.state AS "snapshot_state?",
                  n.failure AS snapshot_failure, s.created_at, s.updated_at
           FROM snapshot_schedules s
           LEFT JOIN volumes v ON v.id = s.volume_id
           LEFT JOIN instances i ON i.id = s.instance_id
           LEFT JOIN snapshots n ON n.id = s.last_snapshot_id
           WHERE s.project_id = $1 AND (s.id = $2 OR s.name = $3)"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListSnapshotSchedules>,
    after: Uuid,
    name: Option<&str>,
    labels: &LabelSelector,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT s.id, s.name, s.description, s.labels AS "labels: Json<Labels>", s.generation, s.volume_id,
                  v.name AS "volume_name?", s.instance_id, i.name AS "instance_name?", s.consistency, s.every_hours,
                  s.at_minute, s.weekday, s.keep, s.paused, s.next_at, s.last_due_at, s.last_failure,
                  n.id AS "snapshot_id?", n.name AS "snapshot_name?", n.state AS "snapshot_state?",
                  n.failure AS snapshot_failure, s.created_at, s.updated_at
           FROM snapshot_schedules s
           LEFT JOIN volumes v ON v.id = s.volume_id
           LEFT JOIN instances i ON i.id = s.instance_id
           LEFT JOIN snapshots n ON n.id = s.last_snapshot_id
           WHERE s.project_id = $1 AND s.id > $2 AND ($3::text IS NULL OR s.name = $3)
             AND s.labels @> $4 AND s.labels ?& $5 AND NOT s.labels ?| $6
             AND NOT s.labels @> ANY($7)
           ORDER BY s.id LIMIT $8"#,
        allowed.project().as_uuid(),
        after,
        name,
        labels.equal(),
        labels.present(),
        labels.absent(),
        &labels.not_equal(),
        rows
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn update(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::UpdateSnapshotSchedule>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE snapshot_schedules SET name = $3, description = $4, labels = $5, generation = $6, keep = $7,
                                       paused = $8, next_at = $9, updated_at = $10, every_hours = $11, at_minute = $12,
                                       weekday = $13, volume_id = $14, instance_id = $15
         WHERE id = $1 AND project_id = $2",
        row.id,
        allowed.project().as_uuid(),
        row.name,
        row.description,
        Json(&row.labels.0) as _,
        row.generation,
        row.keep,
        row.paused,
        row.next_at,
        row.updated_at,
        row.every_hours,
        row.at_minute,
        row.weekday,
        row.volume_id,
        row.instance_id
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(broken)
}

/// The end of a schedule; what it made stays.
pub(super) async fn delete(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::DeleteSnapshotSchedule>,
    id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM snapshot_schedules WHERE id = $1", id).execute(conn).await?;
    Ok(())
}

fn broken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("snapshot_schedules_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a schedule of this name in the project already")
        }
        _ => error.into(),
    }
}

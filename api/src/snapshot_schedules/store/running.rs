//! SQL of the controller that runs schedules. It works for the cloud and not for a tenant.

use protocol::SnapshotId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::slots::Rhythm;
use super::rhythm;
use crate::snapshots::store as snapshots;

/// A schedule that is due.
pub(in super::super) struct Due {
    pub id: Uuid,
    pub volume_id: Option<Uuid>,
    /// The instance that is taken, or that has the volume.
    pub instance_id: Option<Uuid>,
    pub next_at: OffsetDateTime,
}

/// Those whose slot has come, but for what is on its way to another host: that is taken when it is there.
pub(in super::super) async fn due(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Due>, sqlx::Error> {
    sqlx::query_as!(
        Due,
        "SELECT s.id, s.volume_id, coalesce(s.instance_id, v.instance_id) AS instance_id, s.next_at
         FROM snapshot_schedules s LEFT JOIN volumes v ON v.id = s.volume_id
         WHERE NOT s.paused AND s.next_at <= $1
           AND NOT EXISTS (SELECT FROM migrations m WHERE m.instance_id = coalesce(s.instance_id, v.instance_id))
         ORDER BY s.next_at LIMIT 100",
        now
    )
    .fetch_all(conn)
    .await
}

/// A schedule whose turn it is, locked.
pub(in super::super) struct Turn {
    pub project_id: Uuid,
    pub name: String,
    pub instance_id: Option<Uuid>,
    pub consistency: String,
    every_hours: Option<i16>,
    at_minute: Option<i16>,
    weekday: Option<i16>,
    pub created_at: OffsetDateTime,
}

impl Turn {
    pub(in super::super) fn rhythm(&self) -> Rhythm {
        rhythm(self.every_hours, self.at_minute, self.weekday)
    }
}

/// Locks a due schedule, unless its slot was run already, it is about something else, or its volume went elsewhere a moment ago. What it takes is
/// locked.
pub(in super::super) async fn take_turn(
    conn: &mut PgConnection,
    due: &Due,
) -> Result<Option<Turn>, sqlx::Error> {
    sqlx::query!("SELECT FROM snapshot_schedules WHERE id = $1 FOR UPDATE", due.id)
        .execute(&mut *conn)
        .await?;
    sqlx::query_as!(
        Turn,
        "SELECT s.project_id, s.name, s.instance_id, s.consistency, s.every_hours, s.at_minute, s.weekday, s.created_at
         FROM snapshot_schedules s LEFT JOIN volumes v ON v.id = s.volume_id
         WHERE s.id = $1 AND s.next_at = $2 AND NOT s.paused
           AND coalesce(s.instance_id, v.instance_id) IS NOT DISTINCT FROM $3
           AND s.volume_id IS NOT DISTINCT FROM $4",
        due.id,
        due.next_at,
        due.instance_id,
        due.volume_id
    )
    .fetch_optional(conn)
    .await
}

/// What a slot came to.
pub(in super::super) enum Ran {
    Taken(SnapshotId),
    Failed(String),
}

/// Notes what the slot came to, and when the next one is.
pub(in super::super) async fn set_ran(
    conn: &mut PgConnection,
    due: &Due,
    ran: &Ran,
    next_at: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let (snapshot, failure) = match ran {
        Ran::Taken(snapshot) => (Some(snapshot.as_uuid()), None),
        Ran::Failed(failure) => (None, Some(failure)),
    };
    sqlx::query!(
        "UPDATE snapshot_schedules SET last_due_at = $2, last_failure = $3, last_snapshot_id = $4, next_at = $5,
                                       updated_at = $6
         WHERE id = $1",
        due.id,
        due.next_at,
        failure,
        snapshot,
        next_at,
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("UPDATE snapshots SET schedule_id = $2 WHERE id = $1", snapshot, due.id)
        .execute(conn)
        .await?;
    Ok(())
}

/// A schedule that may keep too much, and what says so.
pub(in super::super) struct News {
    pub schedule_id: Uuid,
    ids: Vec<i64>,
}

/// Schedules of which there is news, with the oldest first.
pub(in super::super) async fn news(conn: &mut PgConnection) -> Result<Vec<News>, sqlx::Error> {
    sqlx::query_as!(
        News,
        r#"SELECT schedule_id, array_agg(id) AS "ids!" FROM schedule_news GROUP BY schedule_id ORDER BY min(id) LIMIT 100"#
    )
    .fetch_all(conn)
    .await
}

/// Forgets what was looked after. What has come since is other news.
pub(in super::super) async fn forget_news(conn: &mut PgConnection, news: &News) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM schedule_news WHERE id = ANY ($1)", &news.ids).execute(conn).await.map(drop)
}

/// Snapshots that a schedule made and keeps no longer: those with enough newer ones that are there, and failed ones with a
/// newer one of any kind.
pub(in super::super) async fn surplus(
    conn: &mut PgConnection,
    schedule: Uuid,
    most: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id!" FROM surplus_snapshots WHERE schedule_id = $1 ORDER BY id LIMIT $2"#,
        schedule,
        most
    )
    .fetch_all(conn)
    .await
}

/// Deletes a snapshot that is still surplus.
pub(in super::super) async fn delete_surplus(
    conn: &mut PgConnection,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let schedule =
        sqlx::query_scalar!("SELECT schedule_id FROM snapshots WHERE id = $1 FOR UPDATE SKIP LOCKED", id)
            .fetch_optional(&mut *conn)
            .await?;
    let Some(schedule) = schedule.flatten() else { return Ok(()) };
    let still = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM surplus_snapshots s WHERE s.schedule_id = $1 AND s.id = $2) AS "still!""#,
        schedule,
        id
    )
    .fetch_one(&mut *conn)
    .await?;
    if still { snapshots::delete(conn, id, now).await } else { Ok(()) }
}

//! SQL of events. They are written by triggers.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{Event, EventPage};
use crate::auth::{Action, Allowed, actions};
use crate::http::{ApiError, ErrorCode};

/// The number is arbitrary but ours.
const SEQUENCER_LOCK: i64 = 0x0065_7665_6e74;

/// An action that shows a log.
pub(super) trait ReadsLog: Action {}
impl ReadsLog for actions::ListEvents {}
impl ReadsLog for actions::ListCloudEvents {}

/// The log that this proof reaches: that of its project, or the cloud's.
pub(super) fn log_of<A: ReadsLog>(allowed: &Allowed<A>) -> Uuid {
    allowed.project_or_cloud().map_or(Uuid::nil(), |project| project.as_uuid())
}

/// What comes after this position, or from the oldest event that is kept.
///
/// # Errors
/// `cursor_expired` when events after the position have been removed, or it has never been given.
pub(super) async fn after<A: ReadsLog>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    after: Option<i64>,
    limit: i64,
) -> Result<EventPage, ApiError> {
    let log = log_of(allowed);
    let items = sqlx::query_as!(
        Event,
        "SELECT position, kind, change, resource_id, resource_name, request_id, at
         FROM events WHERE log_id = $1 AND position > $2 ORDER BY position LIMIT $3",
        log,
        after.unwrap_or(0),
        limit
    )
    .fetch_all(&mut *conn)
    .await?;
    // After the events, so that the head is never before the last of them.
    let bounds = sqlx::query!(
        "SELECT last_position, (SELECT min(position) FROM events WHERE log_id = $1) AS oldest
         FROM event_logs WHERE log_id = $1",
        log
    )
    .fetch_optional(conn)
    .await?;
    let head = bounds.as_ref().map_or(0, |bounds| bounds.last_position);
    let oldest = bounds.and_then(|bounds| bounds.oldest).unwrap_or(head + 1);
    if let Some(after) = after {
        let next = items.first().map_or(oldest, |event| event.position);
        if next > after.saturating_add(1) || head < after {
            return Err(cursor_expired(after, oldest, head));
        }
    }
    let last_position = items.last().map_or(after.unwrap_or(head), |event| event.position);
    Ok(EventPage { items, last_position, oldest, head })
}

fn cursor_expired(after: i64, oldest: i64, head: i64) -> ApiError {
    let what = if after > head {
        format!(
            "position {after} has not been given yet, the newest is {head}; this is another log, or an older one"
        )
    } else {
        format!("events after position {after} have been removed, the oldest that is kept is {oldest}")
    };
    let detail =
        format!("{what}; list the resources again, and go on from the oldest event by leaving `after` out");
    ApiError::because(ErrorCode::CursorExpired, detail)
}

/// Whether this transaction is the one that gives positions now.
pub(super) async fn become_sequencer(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "free!""#, SEQUENCER_LOCK)
        .fetch_one(conn)
        .await
}

/// What a batch came to.
pub(super) struct Numbered {
    pub events: i64,
    pub logs: Vec<Uuid>,
}

/// Gives positions to the oldest events that have none. Holds the rows of their logs until the transaction
/// ends, so positions become visible in order.
pub(super) async fn number(
    conn: &mut PgConnection,
    limit: i64,
    now: OffsetDateTime,
) -> Result<Numbered, sqlx::Error> {
    let logs = sqlx::query!(
        r#"WITH taken AS (
               DELETE FROM pending_events WHERE id IN (SELECT id FROM pending_events ORDER BY id LIMIT $1)
               RETURNING *),
           logs AS (
               INSERT INTO event_logs AS l (log_id, last_position, last_at)
               SELECT log_id, count(*), $2 FROM taken GROUP BY log_id ORDER BY log_id
               ON CONFLICT (log_id) DO UPDATE SET last_position = l.last_position + excluded.last_position,
                                                  last_at = GREATEST(l.last_at, excluded.last_at)
               RETURNING log_id, last_position, last_at),
           numbered AS (
               INSERT INTO events (log_id, position, kind, change, resource_id, resource_name, request_id, at)
               SELECT log_id,
                      l.last_position - count(*) OVER (PARTITION BY log_id)
                                      + row_number() OVER (PARTITION BY log_id ORDER BY t.id),
                      t.kind, t.change, t.resource_id, t.resource_name, t.request_id, l.last_at
               FROM taken t JOIN logs l USING (log_id))
           SELECT log_id AS "log!", count(*) AS "events!" FROM taken GROUP BY log_id"#,
        limit,
        now
    )
    .fetch_all(conn)
    .await?;
    let events = logs.iter().map(|log| log.events).sum();
    Ok(Numbered { events, logs: logs.into_iter().map(|log| log.log).collect() })
}

/// Removes the oldest events of each log, and logs of projects that are gone; at most so many of each.
pub(super) async fn remove_old(
    conn: &mut PgConnection,
    before: OffsetDateTime,
    limit: i64,
) -> Result<(), sqlx::Error> {
    // Times never go back within a log, so what goes is always its beginning.
    sqlx::query!(
        "DELETE FROM events WHERE (log_id, position) IN (
             SELECT log_id, position FROM events WHERE at < $1 ORDER BY at, log_id, position LIMIT $2)",
        before,
        limit
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM events WHERE (log_id, position) IN (
             SELECT e.log_id, e.position FROM event_logs l JOIN events e USING (log_id)
             WHERE l.log_id <> $1 AND NOT EXISTS (SELECT FROM projects WHERE id = l.log_id) LIMIT $2)",
        Uuid::nil(),
        limit
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM event_logs l WHERE l.log_id <> $1 AND NOT EXISTS (SELECT FROM projects WHERE id = l.log_id)
             AND NOT EXISTS (SELECT FROM events e WHERE e.log_id = l.log_id)",
        Uuid::nil()
    )
    .execute(conn)
    .await?;
    Ok(())
}

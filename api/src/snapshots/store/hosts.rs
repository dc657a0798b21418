//! SQL of snapshots that hosts take: what reports say of them, and what becomes of those that come to nothing.

use protocol::OperationId;
use protocol::agent::{InstanceReport, NotTaken, ObservedState};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::model::{Consistency, Taking, Verdict, not_taken, verdict};
use crate::nudge::{self, Topic};
use crate::operations::store::{self as operations, End};
use crate::volumes::store::layers;

const UNFROZEN: &str = "the guest was restarted or ended before its file systems could be frozen";

/// A snapshot that is being taken, locked.
struct Row {
    id: Uuid,
    consistency: String,
    boot: i64,
    /// The memory that it is to have.
    memory_id: Option<Uuid>,
    operation_id: Option<Uuid>,
    covered: bool,
    /// Whether its host has heard of it, whatever it made of that.
    heard: bool,
}

async fn taking(conn: &mut PgConnection, instance: Uuid) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT s.id, s.consistency, s.taking_boot AS "boot!", s.memory_id, s.operation_id,
                  NOT EXISTS (
                      SELECT FROM snapshot_volumes sv JOIN volumes v ON v.id = sv.volume_id
                      WHERE sv.snapshot_id = s.id AND v.instance_id = s.taking_instance_id
                        AND NOT (coalesce(v.observed_state = 'ready', false)
                                 AND v.observed_generation >= sv.spec_generation)) AS "covered!",
                  NOT EXISTS (
                      SELECT FROM snapshot_volumes sv JOIN volumes v ON v.id = sv.volume_id
                      WHERE sv.snapshot_id = s.id AND v.instance_id = s.taking_instance_id
                        AND NOT coalesce(v.observed_generation >= sv.spec_generation, false)) AS "heard!"
           FROM snapshots s WHERE s.taking_instance_id = $1 FOR UPDATE OF s"#,
        instance
    )
    .fetch_optional(conn)
    .await
}

/// Folds in what a report says of the snapshot that the host of its instance takes. The instance and its volumes are locked
/// and say what was reported.
pub(crate) async fn settle(
    conn: &mut PgConnection,
    report: &InstanceReport,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let Some(row) = taking(conn, report.id.as_uuid()).await? else { return Ok(()) };
    let found = verdict(Taking {
        consistency: Consistency::parse(&row.consistency),
        covered: row.covered,
        same_guest: report.state == ObservedState::Running && report.boot == row.boot,
        not_taken: report.not_taken.filter(|_| row.heard),
        has_memory: row.memory_id.map(|memory| report.saved_memory == Some(memory.into())),
    });
    let why = match found {
        Verdict::Open => return Ok(()),
        Verdict::Taken => return available(conn, &row, now).await,
        Verdict::Unfrozen => None,
        Verdict::NotTaken(why) => Some(why),
    };
    // Giving its layers up may need the host's row, which comes after everybody else's instances.
    sqlx::query!(
        "UPDATE snapshots SET due_at = LEAST(due_at, $2), not_taken = $3 WHERE id = $1",
        row.id,
        now,
        why.map(NotTaken::as_str)
    )
    .execute(&mut *conn)
    .await?;
    nudge::send(conn, Topic::Snapshots).await
}

async fn available(conn: &mut PgConnection, row: &Row, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE snapshots SET state = 'available', taken_at = $2, updated_at = $2, due_at = NULL,
                              taking_instance_id = NULL, taking_boot = NULL
         WHERE id = $1",
        row.id,
        now
    )
    .execute(&mut *conn)
    .await?;
    match row.operation_id {
        Some(operation) => operations::finish(conn, OperationId::from(operation), &End::Succeeded, now).await,
        None => Ok(()),
    }
}

/// Nothing is left of these instances on their host, so that nobody writes to what was sealed.
pub(crate) async fn end_with(
    conn: &mut PgConnection,
    instances: &[Uuid],
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    for instance in instances {
        let Some(row) = taking(conn, *instance).await? else { continue };
        match Consistency::parse(&row.consistency) {
            Consistency::Crash if row.memory_id.is_some() => {
                fail(conn, &row, not_taken(NotTaken::MemoryNotSaved), now).await?;
            }
            Consistency::Crash => available(conn, &row, now).await?,
            Consistency::Filesystem => fail(conn, &row, UNFROZEN, now).await?,
        }
    }
    Ok(())
}

/// A snapshot whose time is over, and its instance.
pub(crate) struct Due {
    pub snapshot: Uuid,
    pub instance: Uuid,
}

pub(crate) async fn due(conn: &mut PgConnection, now: OffsetDateTime) -> Result<Vec<Due>, sqlx::Error> {
    sqlx::query_as!(
        Due,
        r#"SELECT id AS snapshot, taking_instance_id AS "instance!" FROM snapshots WHERE due_at <= $1
           ORDER BY due_at LIMIT 100"#,
        now
    )
    .fetch_all(conn)
    .await
}

/// Fails a snapshot whose time is over, unless it was taken a moment ago. Its instance is locked, and has to hear that
/// nothing is to be frozen.
pub(crate) async fn fail_due(
    conn: &mut PgConnection,
    due: &Due,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let row = taking(conn, due.instance).await?.filter(|row| row.id == due.snapshot);
    let Some(row) = row else { return Ok(false) };
    let seen = sqlx::query!(
        r#"SELECT i.observed_detail, i.observed_state IS DISTINCT FROM 'running' OR i.observed_boot <> $2 AS "ended!",
                  s.due_at > $3 AS "early!", s.not_taken
           FROM snapshots s JOIN instances i ON i.id = s.taking_instance_id WHERE s.id = $1"#,
        row.id,
        row.boot,
        now
    )
    .fetch_one(&mut *conn)
    .await?;
    if seen.early {
        return Ok(false);
    }
    let said = seen.observed_detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    let why = seen.not_taken.as_deref().and_then(NotTaken::from_name);
    let failure = match why {
        _ if seen.ended && row.memory_id.is_none() => UNFROZEN.to_owned(),
        Some(why) => not_taken(why).to_owned(),
        None if row.memory_id.is_some() => {
            format!("the host did not save the memory of the guest in time{said}")
        }
        None => format!("the guest did not freeze its file systems within a minute{said}"),
    };
    fail(conn, &row, &failure, now).await?;
    Ok(true)
}

/// What it was to hold is a layer like others, to be merged.
async fn fail(
    conn: &mut PgConnection,
    row: &Row,
    failure: &str,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE snapshots SET state = 'failed', failure = $2, updated_at = $3, due_at = NULL,
                              taking_instance_id = NULL, taking_boot = NULL, memory_id = NULL, memory_gib = 0
         WHERE id = $1",
        row.id,
        failure,
        now
    )
    .execute(&mut *conn)
    .await?;
    let held = sqlx::query_scalar!(
        r#"SELECT layer_id AS "layer!" FROM snapshot_volumes WHERE snapshot_id = $1 AND layer_id IS NOT NULL"#,
        row.id
    )
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query!("UPDATE snapshot_volumes SET layer_id = NULL WHERE snapshot_id = $1", row.id)
        .execute(&mut *conn)
        .await?;
    let held: Vec<_> = held.into_iter().chain(row.memory_id).collect();
    layers::give_up(conn, &held, now).await?;
    let Some(operation) = row.operation_id else { return Ok(()) };
    let end = End::Failed { code: "snapshot_failed", detail: Some(failure.to_owned()) };
    operations::finish(conn, OperationId::from(operation), &end, now).await
}

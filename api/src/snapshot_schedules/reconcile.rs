//! Running schedules.

use protocol::{ProjectId, SnapshotId};
use sqlx::Acquire;
use time::OffsetDateTime;

use super::store::running::{self, Due, News, Ran, Turn};
use crate::app::App;
use crate::http::{ApiError, ErrorCode, Labels};
use crate::instances::store::{guests, migrations};
use crate::snapshots::model::Consistency;
use crate::snapshots::store::taking::{self, New, Source};
use crate::volumes::store::layers;

/// The longest part of a schedule's name in those of its snapshots.
const NAME_CHARS: usize = 40;
/// What one pass deletes; what is left over is for the next one.
const MOST_DELETED: i64 = 100;

/// Runs what is due, and deletes what is kept no longer. Any number of replicas may run it at once.
pub(crate) async fn run(app: &App) -> Result<(), sqlx::Error> {
    let now = app.clock.now();
    let mut conn = app.pool.acquire().await?;
    let due = running::due(&mut conn, now).await?;
    drop(conn);
    for one in due {
        // It is due again at the next pass; the others do not wait for it.
        if let Err(error) = run_slot(app, &one, now).await {
            tracing::info!(%error, "a schedule could not be run; trying again");
        }
    }
    let mut conn = app.pool.acquire().await?;
    let news = running::news(&mut conn).await?;
    drop(conn);
    let mut left = MOST_DELETED;
    for one in news {
        left -= tidy(app, &one, left, now).await?;
        if left <= 0 {
            break;
        }
    }
    Ok(())
}

/// Deletes what a schedule keeps no longer, and gives how many that were. Looks at its snapshots only, and again at the
/// next pass if some of these are left.
async fn tidy(app: &App, news: &News, most: i64, now: OffsetDateTime) -> Result<i64, sqlx::Error> {
    let mut conn = app.pool.acquire().await?;
    let surplus = running::surplus(&mut conn, news.schedule_id, most).await?;
    drop(conn);
    let mut deleted = 0;
    for snapshot in surplus {
        let mut tx = app.begin().await?;
        running::delete_surplus(&mut tx, snapshot, now).await?;
        tx.commit().await?;
        deleted += 1;
    }
    let mut tx = app.begin().await?;
    if running::surplus(&mut tx, news.schedule_id, 1).await?.is_empty() {
        running::forget_news(&mut tx, news).await?;
    }
    tx.commit().await?;
    Ok(deleted)
}

/// Runs one slot: the snapshot and the next slot come with one transaction. Slots that were missed are run once together.
async fn run_slot(app: &App, due: &Due, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    let mut tx = app.begin().await?;
    if let Some(instance) = due.instance_id {
        guests::lock(&mut tx, &[instance]).await?;
        if migrations::of_instance(&mut tx, instance).await?.is_some() {
            // It has begun a moment ago; the slot is run when it is over.
            return tx.rollback().await;
        }
    }
    if let Some(volume) = due.volume_id {
        layers::lock_volumes(&mut tx, &[volume]).await?;
    }
    let Some(turn) = running::take_turn(&mut tx, due).await? else { return tx.rollback().await };
    let source = match (turn.instance_id, due.volume_id) {
        (Some(instance), _) => Source::Instance(instance),
        (None, Some(volume)) => Source::Volume(volume),
        (None, None) => return tx.rollback().await,
    };
    let mut savepoint = tx.begin().await?;
    let ran = match take(app, &mut savepoint, &turn, source, due, now).await {
        Ok(snapshot) => {
            savepoint.commit().await?;
            Ran::Taken(snapshot)
        }
        Err(refused) => {
            savepoint.rollback().await?;
            match refused.code() {
                Some(ErrorCode::WrongState | ErrorCode::QuotaExceeded | ErrorCode::NameTaken) => {}
                _ => {
                    tracing::info!(schedule = %due.id, error = %refused, "trying again");
                    return tx.rollback().await;
                }
            }
            Ran::Failed(refused.to_string())
        }
    };
    let next_at = turn.rhythm().next(turn.created_at, now);
    running::set_ran(&mut tx, due, &ran, next_at, now).await?;
    tx.commit().await
}

async fn take(
    app: &App,
    conn: &mut sqlx::PgConnection,
    turn: &Turn,
    source: Source,
    due: &Due,
    now: OffsetDateTime,
) -> Result<SnapshotId, ApiError> {
    let id: SnapshotId = app.clock.new_id();
    let name = name_of(&turn.name, due.next_at);
    let new = New {
        id,
        project: ProjectId::from(turn.project_id),
        name: &name,
        description: "",
        labels: &Labels::new(),
        consistency: Consistency::parse(&turn.consistency),
        memory: false,
        source,
        now,
    };
    taking::take(conn, &new, &app.clock).await?;
    Ok(id)
}

/// The schedule, and the minute of the slot in UTC.
fn name_of(schedule: &str, slot: OffsetDateTime) -> String {
    let end = schedule.char_indices().map(|(at, c)| at + c.len_utf8()).take(NAME_CHARS).last().unwrap_or(0);
    let (date, time) = (slot.date(), slot.time());
    let (month, day) = (u8::from(date.month()), date.day());
    format!(
        "{}-{:04}{month:02}{day:02}-{:02}{:02}",
        schedule[..end].trim_end_matches('-'),
        date.year(),
        time.hour(),
        time.minute()
    )
}

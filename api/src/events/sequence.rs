//! The sequencer: gives committed events their positions. And the sweep, which forgets old ones.

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::store;
use crate::app::App;
use crate::nudge::{self, Topic};

/// Events per transaction.
const BATCH: i64 = 1000;
/// How long an event is kept.
const KEEP: Duration = Duration::days(30);
/// Events that one sweep removes.
const SWEEP_BATCH: i64 = 10_000;

/// Numbers what is committed. Idempotent; any replica may run it at any time, and one does.
pub(crate) async fn sequence(app: &App) -> Result<(), sqlx::Error> {
    while sequence_batch(app).await? == BATCH {}
    Ok(())
}

async fn sequence_batch(app: &App) -> Result<i64, sqlx::Error> {
    let mut tx = app.begin().await?;
    // Somebody else is at it, who was nudged as we were and looks again when done.
    if !store::become_sequencer(&mut tx).await? {
        return Ok(0);
    }
    let numbered = store::number(&mut tx, BATCH, app.clock.now()).await?;
    if numbered.events == 0 {
        return Ok(0);
    }
    let readers: Vec<_> = numbered.logs.into_iter().map(Topic::EventLog).collect();
    nudge::send_all(&mut tx, &readers).await?;
    tx.commit().await?;
    Ok(numbered.events)
}

/// Forgets events older than 30 days, and the logs of projects that are gone.
pub(crate) async fn forget_old(conn: &mut PgConnection, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    store::remove_old(conn, now - KEEP, SWEEP_BATCH).await
}

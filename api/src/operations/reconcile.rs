//! Deadlines are data: an operation that passes its own fails with a reason.

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use crate::app::App;

use super::store::{self, End};

const BATCH: i64 = 100;
/// How long an operation is kept after its end.
const KEEP: Duration = Duration::days(90);
/// Operations that one statement removes, and how many of these one pass does.
const SWEEP_BATCH: u64 = 1000;
const SWEEP_BATCHES: usize = 20;

/// Fails what is overdue. Idempotent; any replica may run it.
pub(crate) async fn expire(app: &App) -> Result<(), sqlx::Error> {
    let now = app.clock.now();
    let mut tx = app.begin().await?;
    for id in store::overdue(&mut tx, now, BATCH).await? {
        let detail = match store::why_unplaced(&mut tx, id).await? {
            Some(why) => format!("it did not end in time: {why}; the instance still waits for a host"),
            None => "it did not end in time; what was asked for stays the goal, and the resource's state tells how far \
                     it has come"
                .to_owned(),
        };
        let end = End::Failed { code: "deadline_exceeded", detail: Some(detail) };
        store::finish(&mut tx, id, &end, now).await?;
        tracing::warn!(operation = %id, "operation passed its deadline");
    }
    tx.commit().await
}

/// Removes what ended long ago. Idempotent; any replica may run it.
pub(crate) async fn forget_old(conn: &mut PgConnection, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    for _ in 0..SWEEP_BATCHES {
        if store::remove_old(conn, now - KEEP, SWEEP_BATCH.cast_signed()).await? < SWEEP_BATCH {
            break;
        }
    }
    Ok(())
}

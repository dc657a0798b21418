//! Deadlines are data: an operation that passes its own fails with a reason.

use crate::app::App;

use super::store::{self, End};

const BATCH: i64 = 100;

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

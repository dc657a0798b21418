//! Snapshots whose time is over.

use super::store::hosts;
use crate::app::App;
use crate::instances::store::guests;

/// Fails what no guest has frozen in time. Idempotent; any replica may run it.
pub(crate) async fn expire(app: &App) -> Result<(), sqlx::Error> {
    let now = app.clock.now();
    let mut conn = app.pool.acquire().await?;
    let due = hosts::due(&mut conn, now).await?;
    drop(conn);
    for one in due {
        let mut tx = app.begin().await?;
        guests::lock(&mut tx, &[one.instance]).await?;
        if hosts::fail_due(&mut tx, &one, now).await? {
            guests::renew(&mut tx, one.instance, now).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

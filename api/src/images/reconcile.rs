//! Sweeping: deleted images after their last instance, then the blobs that no image has. Of a blob the file goes
//! first and the row after it, so that no file is ever without a row.

use super::store;
use crate::app::App;

/// Removes what was discarded or left half-way. Idempotent; any replica may run it.
pub(crate) async fn sweep(app: &App) -> Result<(), sqlx::Error> {
    loop {
        let mut tx = app.begin().await?;
        let Some(image) = store::unused::take(&mut tx).await? else { break };
        store::unused::remove(&mut tx, image).await?;
        tx.commit().await?;
    }
    let now = app.clock.now();
    let mut tx = app.begin().await?;
    store::uploads::end_abandoned(&mut tx, now).await?;
    tx.commit().await?;
    let mut conn = app.pool.acquire().await?;
    let ids = store::sweepable(&mut conn, now).await?;
    drop(conn);
    for id in ids {
        if let Err(error) = app.images.remove(id).await {
            tracing::warn!(%error, blob = %id, "cannot remove a blob; trying again later");
            continue;
        }
        store::forget_blob(&mut *app.pool.acquire().await?, id).await?;
    }
    store::uploads::forget_ended(&mut *app.pool.acquire().await?).await
}

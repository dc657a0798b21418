//! Sweeping: files first, rows after, so that no file is ever without a row.

use super::store;
use crate::app::App;

/// Removes what was discarded or left half-way. Idempotent; any replica may run it.
pub(crate) async fn sweep(app: &App) -> Result<(), sqlx::Error> {
    let now = app.clock.now();
    let mut tx = app.pool.begin().await?;
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

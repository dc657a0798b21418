//! Merging: layers that nobody names any more become one with those below, in the instance that has the volume.
//!
//! What should be merged is found from the tables, one merge per volume at a time, and asked for with the next generation of
//! the instance. A report that it was done is only noted; the structure changes here, where everything that stands on the
//! layers is locked in one order.
//!
//! A merge is for one volume: nothing else is made on its layers until it is done, and when that volume leaves them it is
//! taken back.

use time::OffsetDateTime;
use uuid::Uuid;

use super::store::layers::{self, ToMerge};
use crate::app::App;
use crate::instances::store::guests;

/// Takes in what was merged, and asks for what comes next. Idempotent; any number of replicas may run it at once.
pub(crate) async fn merge(app: &App) -> Result<(), sqlx::Error> {
    let now = app.clock.now();
    let mut conn = app.pool.acquire().await?;
    layers::take_back_merges(&mut conn).await?;
    let merged = layers::merged(&mut conn).await?;
    drop(conn);
    // One that cannot be taken in or asked for now does not keep the others waiting.
    for layer in merged {
        if let Err(error) = finish(app, layer, now).await {
            tracing::warn!(%layer, %error, "a merge could not be taken in; trying again");
        }
    }
    let mut conn = app.pool.acquire().await?;
    let to_merge = layers::to_merge(&mut conn).await?;
    drop(conn);
    for volume in to_merge {
        if let Err(error) = ask(app, &volume, now).await {
            tracing::warn!(volume = %volume.volume, %error, "no merge could be asked for; trying again");
        }
    }
    Ok(())
}

async fn finish(app: &App, layer: Uuid, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    let mut tx = app.begin().await?;
    let (instances, volumes) = layers::above(&mut tx, layer).await?;
    guests::lock(&mut tx, &instances).await?;
    layers::lock_volumes(&mut tx, &volumes).await?;
    if layers::above(&mut tx, layer).await? != (instances.clone(), volumes) {
        // Something came or went a moment ago: the next time.
        return tx.rollback().await;
    }
    if !layers::merged(&mut tx).await?.contains(&layer) {
        // Another replica was faster.
        return tx.rollback().await;
    }
    layers::finish_merge(&mut tx, layer, now).await?;
    for instance in instances {
        guests::renew(&mut tx, instance, now).await?;
    }
    tx.commit().await
}

async fn ask(app: &App, what: &ToMerge, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    let mut tx = app.begin().await?;
    guests::lock(&mut tx, &[what.instance]).await?;
    layers::lock_volumes(&mut tx, &[what.volume]).await?;
    if !layers::plan_merge(&mut tx, what, app.clock.new_id(), now).await? {
        return tx.rollback().await;
    }
    guests::renew(&mut tx, what.instance, now).await?;
    tx.commit().await
}

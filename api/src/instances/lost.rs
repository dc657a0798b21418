//! What ends by itself on hosts that the operator has declared dead: detachments of shared volumes, and deletions that
//! need nothing of the host.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::store::{self, departures};
use crate::app::App;
use crate::hosts;
use crate::http::ApiError;
use crate::operations::store::{End, finish};
use crate::quotas;
use crate::volumes::store::ending;

/// Lets go of the shared volumes that were to leave instances of dead hosts, and ends the deletion of instances of which
/// nothing is left there. Any number of replicas may run it at once.
pub(crate) async fn end_on_lost_hosts(app: &App) -> Result<(), sqlx::Error> {
    let mut conn = app.pool.acquire().await?;
    let waiting = departures::waiting_for_lost_hosts(&mut conn).await?;
    drop(conn);
    for instance in waiting {
        let mut tx = app.begin().await?;
        match end(&mut tx, instance, app.clock.now()).await {
            Ok(true) => tx.commit().await?,
            Ok(false) => tx.rollback().await?,
            // One that cannot be ended now does not keep the others waiting.
            Err(error) => tracing::info!(%instance, %error, "trying again"),
        }
    }
    Ok(())
}

/// Whether to keep what was done.
async fn end(conn: &mut PgConnection, instance: Uuid, now: OffsetDateTime) -> Result<bool, ApiError> {
    let Some(placed) = departures::lock_placed(conn, instance).await? else { return Ok(false) };
    let is_empty = ending::release_of_lost(conn, instance, now).await?;
    departures::forget_volumes(conn, instance).await?;
    if placed.deleting && is_empty {
        quotas::store::lock_before_going(conn, &[instance], &[], &[]).await?;
        departures::leave(conn, instance, placed.host, now).await?;
        store::delete_unplaced(conn, instance, now).await?;
        finish(conn, placed.operation, &End::Succeeded, now).await?;
    }
    // Last, because everybody locks hosts last. It may be heard of again by now.
    Ok(hosts::store::is_declared_dead(conn, placed.host).await?)
}

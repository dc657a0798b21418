//! Orders to remove what is in a shared pool, or to send it: any host that has it carries them out.

use crate::app::App;
use crate::hosts::{UNREACHABLE_AFTER, store};
use crate::nudge::{self, Topic};
use crate::pools::store::orders;

/// Gives orders that no host carries out to one that will, to remove and to send. What the host before had removed already is as good as
/// removed, and ids are never used again, so that it may carry the order out as well.
pub(crate) async fn assign_orders(app: &App) -> Result<(), sqlx::Error> {
    let now = app.clock.now();
    let mut tx = app.begin().await?;
    for (removal, host) in orders::idle(&mut tx, now - UNREACHABLE_AFTER).await? {
        let revision = store::bump_revision(&mut tx, host).await?;
        orders::assign(&mut tx, removal, host, revision).await?;
        nudge::send(&mut tx, Topic::Host(host)).await?;
    }
    tx.commit().await?;
    let mut tx = app.begin().await?;
    for (operation, host) in orders::idle_sending(&mut tx, now - UNREACHABLE_AFTER, now).await? {
        let revision = store::bump_revision(&mut tx, host).await?;
        orders::assign_sending(&mut tx, operation, host, revision).await?;
        nudge::send(&mut tx, Topic::Host(host)).await?;
    }
    tx.commit().await
}

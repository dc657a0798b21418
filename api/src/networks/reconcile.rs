//! Telling hosts of changes: from rows that say what changed to new revisions of the hosts concerned.

use crate::app::App;
use crate::hosts;
use crate::instances::placement_turn;
use crate::nudge::{self, Topic};

use super::store::pending;

/// Changes that are looked at in one transaction.
const CHANGES: i64 = 500;
/// Hosts whose rows one transaction holds.
const HOSTS: i64 = 256;

/// Gives every host that a change concerns a new revision of its network document. Idempotent; any number of
/// replicas may run it at once. Some hosts may hear of a change before others do.
pub(crate) async fn spread(app: &App) -> Result<(), sqlx::Error> {
    loop {
        let mut tx = app.begin().await?;
        let more = pending::expand(&mut tx, CHANGES).await?;
        tx.commit().await?;
        if !more {
            break;
        }
    }
    loop {
        let mut tx = app.begin().await?;
        // Placement holds several hosts, too, in an order of its own.
        placement_turn(&mut tx).await?;
        let hosts = pending::take_hosts(&mut tx, HOSTS).await?;
        if hosts.is_empty() {
            return tx.commit().await;
        }
        hosts::store::bump_networks_of(&mut tx, &hosts).await?;
        let topics: Vec<_> = hosts.into_iter().map(Topic::Host).collect();
        nudge::send_all(&mut tx, &topics).await?;
        tx.commit().await?;
    }
}

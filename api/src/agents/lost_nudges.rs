//! Who waits for what is newer is woken by a nudge. Now and then one look at all that wait finds those whose nudge was lost, so that not
//! each of them has to look.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::agent::Epoch;
use protocol::{HostId, Revision};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::hosts::store;
use crate::nudge::Topic;

const LOOK: Duration = Duration::from_secs(5);

/// What was seen of each host at the last look. Without it, some are woken for nothing.
type Heads = BTreeMap<HostId, (Epoch, Revision)>;

/// Looks until the shutdown.
pub(crate) async fn find(app: &App, shutdown: &CancellationToken) {
    let mut before = Heads::new();
    while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        match look(app, &before).await {
            Ok(now) => before = now,
            Err(error) => tracing::info!(%error, "feeds could not be looked at; trying again"),
        }
    }
}

/// Wakes those whose host is not as it was, or was not there.
async fn look(app: &App, before: &Heads) -> Result<Heads, sqlx::Error> {
    let now = store::heads(&mut *app.pool.acquire().await?, &app.nudges.waiting_hosts()).await?;
    let changed = now.iter().filter(|(host, head)| before.get(host) != Some(head));
    changed.for_each(|(host, _)| app.nudges.wake(Topic::Host(*host)));
    Ok(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCloud;

    #[tokio::test]
    async fn who_waits_is_woken_without_a_nudge() {
        let cloud = TestCloud::start().await;
        let host = cloud.join_host("host-1").await;
        let app = &cloud.app;
        let mut waiter = app.nudges.subscribe(Topic::Host(host.id));
        let mut woken = async || {
            let hour = Duration::from_secs(3600);
            tokio::time::timeout(Duration::from_millis(200), waiter.nudged(hour)).await.is_ok()
        };
        let first = look(app, &Heads::new()).await.unwrap();
        assert!(woken().await, "what it waits for may have come before");
        let same = look(app, &first).await.unwrap();
        assert_eq!((woken().await, &same), (false, &first));
        for change in ["desired_revision = desired_revision + 1", "epoch = epoch + 1"] {
            let change = format!("UPDATE hosts SET {change}");
            sqlx::query(sqlx::AssertSqlSafe(change)).execute(&app.pool).await.unwrap();
            look(app, &same).await.unwrap();
            assert!(woken().await);
        }
    }
}

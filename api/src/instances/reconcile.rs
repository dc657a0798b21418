//! Placement: the only part of an instance's way that is decided here; the rest its host does.

use std::collections::BTreeSet;

use sqlx::{Acquire, PgConnection};
use time::{Duration, OffsetDateTime};

use super::store::placement::{self, Pending};
use crate::app::App;
use crate::hosts;
use crate::http::violated_constraint;
use crate::nudge::{self, Topic};
use crate::operations;
use crate::scheduler::{Candidate, Placement, place};

/// Decisions per transaction.
const BATCH: i64 = 64;
/// When to look again for an instance that fits nowhere; freed capacity nudges sooner.
const RETRY: Duration = Duration::seconds(10);

/// Places what waits. Idempotent; any number of replicas may run it at once.
pub(crate) async fn place_pending(app: &App) -> Result<(), sqlx::Error> {
    loop {
        let now = app.clock.now();
        let mut tx = app.pool.begin().await?;
        placement::take_turn(&mut tx).await?;
        let pending = placement::take_pending(&mut tx, now, BATCH).await?;
        if pending.is_empty() {
            return tx.commit().await;
        }
        let mut candidates = placement::candidates(&mut tx, now).await?;
        let mut chosen = BTreeSet::new();
        for instance in &pending {
            if let Some(host) = place_one(&mut tx, instance, &mut candidates, now).await? {
                chosen.insert(host);
            }
        }
        for host in chosen {
            nudge::send(&mut tx, Topic::Host(host)).await?;
        }
        tx.commit().await?;
    }
}

/// Decides for one instance, and takes the decision out of the snapshot.
async fn place_one(
    conn: &mut PgConnection,
    instance: &Pending,
    candidates: &mut [Candidate],
    now: OffsetDateTime,
) -> Result<Option<protocol::HostId>, sqlx::Error> {
    loop {
        let host = match place(candidates, &instance.request) {
            Placement::Host(host) => host,
            Placement::Nowhere(explanation) => {
                placement::postpone(conn, instance.id, &explanation, now + RETRY).await?;
                let detail = Some(explanation.summary.as_str());
                operations::store::step(conn, instance.operation_id, "no_host_fits", now, detail).await?;
                return Ok(None);
            }
        };
        let Some(candidate) = candidates.iter_mut().find(|candidate| candidate.id == host) else {
            return Ok(None);
        };
        if assign(conn, instance, host, now).await? {
            candidate.take(instance.request.size);
            return Ok(Some(host));
        }
        // Another scheduler was faster; what the snapshot says of this host is old.
        candidate.ready = false;
    }
}

/// False when the host has no room any more.
async fn assign(
    conn: &mut PgConnection,
    instance: &Pending,
    host: protocol::HostId,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let mut savepoint = conn.begin().await?;
    // The document with its cards comes with the instance, never after it.
    let Some(revision) = hosts::store::bump_networks(&mut savepoint, host).await? else {
        savepoint.rollback().await?;
        return Ok(false);
    };
    match placement::assign(&mut savepoint, instance.id, host, revision.0, now).await {
        Ok(()) => {
            operations::store::step(&mut savepoint, instance.operation_id, "placed", now, None).await?;
            savepoint.commit().await?;
            Ok(true)
        }
        Err(error) if violated_constraint(&error).is_some_and(|name| name.starts_with("hosts_")) => {
            savepoint.rollback().await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

//! Placement: the only part of an instance's way that is decided here; the rest its host does.

use std::collections::BTreeSet;

use protocol::{InstanceId, OperationId};
use sqlx::{Acquire, PgConnection};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

use super::store::placement::{self, Pending};
use crate::app::App;
use crate::hosts;
use crate::http::{ApiError, violated_constraint};
use crate::nudge::{self, Topic};
use crate::operations;
use crate::scheduler::{Explanation, Fleet, Placement, joined, place};
use crate::volumes::store::hosts as volumes;

/// Decisions per transaction.
const BATCH: i64 = 64;
/// When to look again for an instance that fits nowhere; freed capacity nudges sooner.
const RETRY: Duration = Duration::seconds(10);

/// Places what waits. Idempotent; any number of replicas may run it at once. To look at all hosts takes its time in a large cloud, so it
/// rests for as long as that took, and what comes meanwhile is decided about together.
pub(crate) async fn place_pending(app: &App) -> Result<(), sqlx::Error> {
    loop {
        let (now, started) = (app.clock.now(), Instant::now());
        let mut tx = app.begin().await?;
        placement::take_turn(&mut tx).await?;
        let mut pending = placement::take_pending(&mut tx, now, BATCH).await?;
        if pending.is_empty() {
            return tx.commit().await;
        }
        let mut fleet = placement::fleet(&mut tx, now).await?;
        let mut chosen = BTreeSet::new();
        for index in 0..pending.len() {
            let (_, rest) = pending.split_at_mut(index);
            let Some((instance, later)) = rest.split_first_mut() else { break };
            let mut savepoint = tx.begin().await?;
            let settled = match settle(&mut savepoint, instance, &mut fleet, now).await {
                Ok(settled) => {
                    savepoint.commit().await?;
                    settled
                }
                Err(error) => {
                    savepoint.rollback().await?;
                    tracing::error!(instance = %instance.id, %error, "it could not be placed; trying again");
                    Placement::Nowhere(Explanation::of_failure())
                }
            };
            match settled {
                Placement::Host(host) => {
                    joined(&instance.request, host, later.iter_mut().map(|other| &mut other.request));
                    chosen.insert(host);
                }
                Placement::Nowhere(explanation) => {
                    placement::postpone(&mut tx, instance.id, &explanation, now + RETRY).await?;
                    let detail = Some(explanation.summary.as_str());
                    operations::store::step(&mut tx, instance.operation_id, "no_host_fits", now, detail)
                        .await?;
                }
            }
        }
        for host in chosen {
            nudge::send(&mut tx, Topic::Host(host)).await?;
        }
        tx.commit().await?;
        tokio::time::sleep(started.elapsed()).await;
    }
}

/// Places an instance that was made in this very transaction, and refuses it when no host takes it.
pub(super) async fn place_at_once(
    conn: &mut PgConnection,
    id: InstanceId,
    operation_id: OperationId,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    volumes::lock_unplaced(conn, &[id]).await?;
    placement::take_turn(conn).await?;
    let request = placement::request(conn, id).await?.ok_or_else(ApiError::not_found)?;
    let mut fleet = placement::fleet(conn, now).await?;
    let mut instance = Pending { id, operation_id, request };
    match settle(conn, &mut instance, &mut fleet, now).await? {
        Placement::Host(host) => Ok(nudge::send(conn, Topic::Host(host)).await?),
        Placement::Nowhere(explanation) => Err(ApiError::no_room(explanation)),
    }
}

/// Decides for one instance, and takes the decision out of the snapshot.
async fn settle(
    conn: &mut PgConnection,
    instance: &mut Pending,
    fleet: &mut Fleet,
    now: OffsetDateTime,
) -> Result<Placement, sqlx::Error> {
    let mut lost = BTreeSet::new();
    loop {
        let host = match place(fleet, &instance.request) {
            Placement::Host(host) => host,
            nowhere => return Ok(nowhere),
        };
        if assign(conn, instance, host, now).await? {
            fleet.take(host, instance.request.size);
            return Ok(Placement::Host(host));
        }
        // Somebody was faster, and what the snapshot says is old.
        *fleet = placement::fleet(conn, now).await?;
        if let Some(request) = placement::request(conn, instance.id).await? {
            instance.request = request;
        }
        if !lost.insert(host) {
            fleet.distrust(host);
        }
    }
}

/// False when the host has no room any more, or the group of the instance is in the way there.
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

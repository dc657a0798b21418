//! Asking a host for bytes, and waiting for them.

use std::time::Duration;

use protocol::agent::RefusalReason;
use protocol::{HostId, InstanceId, PrincipalId, TransferId};
use tokio::time::Instant;

use super::transfers::{self, Ask, Wanted};
use crate::app::App;
use crate::hosts;
use crate::http::ApiError;
use crate::nudge::{self, Topic};

/// How long a host has to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// What came of it.
pub(crate) enum Answer {
    Bytes(Vec<u8>),
    Refused(RefusalReason),
    /// Nothing in time.
    Silence,
}

/// Asks the host of an instance on behalf of somebody who may do so. Nothing is left of it when they go.
///
/// # Errors
/// `too_many_requests` when as many such answers are waited for as may be.
pub(crate) async fn ask_for_bytes(
    app: &App,
    host: HostId,
    instance: InstanceId,
    principal: PrincipalId,
    ask: Ask<'_>,
) -> Result<Answer, ApiError> {
    let id: TransferId = app.clock.new_id();
    let mut waiter = app.nudges.subscribe(Topic::Transfer(id));
    let mut tx = app.begin().await?;
    let revision = hosts::store::bump_revision(&mut tx, host).await?;
    let wanted = Wanted { id, host, instance, principal, ask, revision, now: app.clock.now() };
    transfers::check_limits(&mut tx, &wanted).await?;
    transfers::ask(&mut tx, &wanted).await?;
    nudge::send(&mut tx, Topic::Host(host)).await?;
    let _wish = Wish { app: app.clone(), id };
    tx.commit().await?;
    let until = Instant::now() + PATIENCE;
    loop {
        let mut conn = app.pool.acquire().await?;
        if let Some(bytes) = transfers::take(&mut conn, id).await? {
            return Ok(Answer::Bytes(bytes));
        }
        if let Some(reason) = transfers::take_refusal(&mut conn, id).await? {
            return Ok(Answer::Refused(reason));
        }
        drop(conn);
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Answer::Silence);
        }
        waiter.nudged(left.min(Duration::from_secs(1))).await;
    }
}

/// A wish that is taken back when nobody waits for it any more.
struct Wish {
    app: App,
    id: TransferId,
}

impl Drop for Wish {
    fn drop(&mut self) {
        let (app, id) = (self.app.clone(), self.id);
        tokio::spawn(async move {
            let forgotten = async { transfers::forget(&mut *app.pool.acquire().await?, id).await };
            if let Err(error) = forgotten.await {
                tracing::info!(%error, transfer = %id, "what nobody waits for is removed later");
            }
        });
    }
}

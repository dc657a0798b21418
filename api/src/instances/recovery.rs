//! Instances that run again after their host has died, or after its guard has ended their guest.
//!
//! A host is never taken for dead because it is silent. What proves that its guests do not run is its lease in a shared
//! pool, which others have seen lapse (`lapsed_leases` of the database), or the word of the operator.

mod local;
mod proof;

use protocol::agent::{EndReason, ObservedState, OnHostFailure, Power};
use protocol::{HostId, OperationId, ProjectId, RequestId};
use serde_json::json;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use self::proof::Proof;
use super::deeds::{self, Behalf, intend};
use super::routes::present_intent;
use super::store::recovery::{self, Known, Struck};
use super::store::{self, NewIntent, Row, departures, migrations};
use crate::app::App;
use crate::audit::{Actor, Deed};
use crate::auth::{Action, actions};
use crate::hosts;
use crate::hosts::leases::{Lapsed, guards, lapsed};
use crate::http::{ApiError, Selector};
use crate::operations;
use crate::quotas;
use crate::volumes::store::attachments;

pub(super) use self::local::{refuse_another_local, refuse_local};

/// How long a guest that the guard has ended waits for its own host before another one is looked for.
const PATIENCE: Duration = Duration::seconds(30);
/// Between two starts after the guard has ended the guest; doubled from start to start.
const FIRST_PAUSE: Duration = Duration::seconds(10);
const LONGEST_PAUSE: Duration = Duration::minutes(10);
/// After such a time without one, starts are counted anew.
const FORGIVEN: Duration = Duration::hours(1);

/// Does what is due. Any number of replicas may run it at once.
pub(crate) async fn recover(app: &App) -> Result<(), sqlx::Error> {
    let mut conn = app.pool.acquire().await?;
    let now = app.clock.now();
    let hosts: Vec<_> = lapsed(&mut conn, None, now).await?.iter().map(|one| one.host.as_uuid()).collect();
    let struck = recovery::of_hosts(&mut conn, &hosts).await?;
    let fenced = recovery::fenced(&mut conn, now).await?;
    drop(conn);
    let struck = struck.into_iter().map(|one| (one, Case::HostDied));
    let fenced = fenced.into_iter().map(|one| (one, Case::Fenced));
    for (one, case) in struck.chain(fenced) {
        if let Err(error) = recover_one(app, &one, case).await {
            // One that cannot be recovered now does not keep the others waiting.
            tracing::warn!(instance = %one.id, %error, "it could not be recovered; trying again");
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Case {
    HostDied,
    Fenced,
}

/// An instance that is locked.
struct Locked<'a> {
    app: &'a App,
    project: ProjectId,
    row: Row,
    host: HostId,
    known: Known,
    now: OffsetDateTime,
}

async fn recover_one(app: &App, one: &Struck, case: Case) -> Result<(), ApiError> {
    let mut tx = app.begin().await?;
    if !recovery::take_turn(&mut tx, one.id).await? {
        return Ok(());
    }
    let project = ProjectId::from(one.project_id);
    let Some(row) = store::find_in(&mut tx, project, &Selector::Id(one.id)).await? else { return Ok(()) };
    let Some(host) = row.host_id.map(HostId::from) else { return Ok(()) };
    if row.deletion_requested_at.is_some() {
        return Ok(());
    }
    let known = recovery::known(&mut tx, one.id).await?;
    let locked = Locked { app, project, row, host, known, now: app.clock.now() };
    let done = match case {
        Case::HostDied => locked.leave_dead_host(&mut tx).await?,
        Case::Fenced => locked.start_again(&mut tx).await?,
    };
    if done { Ok(tx.commit().await?) } else { Ok(tx.rollback().await?) }
}

impl Locked<'_> {
    /// INVARIANT: with the host's row held, so that no word of it comes in between, it is proven anew that no guest of this
    /// instance runs there. Layers that were being merged are waited for: who merges them may be no guest.
    async fn leave_dead_host(&self, conn: &mut PgConnection) -> Result<bool, ApiError> {
        if self.row.on_host_failure != OnHostFailure::Restart.as_str() {
            return Ok(false);
        }
        let all_shared = attachments::lock_all_shared(conn, self.row.id).await?.is_none();
        if !all_shared {
            return Ok(false);
        }
        quotas::store::lock_before_going(conn, &[self.row.id], &[], &[]).await?;
        // One that is on its way: both hosts, in the order of everybody.
        if let Some(on_its_way) = migrations::of_instance(conn, self.row.id).await? {
            migrations::hold_hosts(conn, on_its_way.source(), on_its_way.destination()).await?;
        }
        let declared_dead = hosts::store::is_declared_dead(conn, self.host).await?;
        let proof = match self.proof(conn).await? {
            Some(proof) => Proof::Lease(proof),
            None if declared_dead && hosts::store::is_switched_off(conn, self.host).await? => {
                Proof::SwitchedOff
            }
            None if declared_dead => Proof::Operator,
            None => return Ok(false),
        };
        if !declared_dead && attachments::merging(conn, self.row.id).await?.is_some() {
            return Ok(false);
        }
        self.go_elsewhere(conn, "restart_elsewhere", &proof).await?;
        Ok(true)
    }

    /// A lease of its host that has lapsed in a pool with a disk of it, over which its guest is guarded.
    async fn proof(&self, conn: &mut PgConnection) -> Result<Option<Lapsed>, sqlx::Error> {
        if !self.known.guarded {
            return Ok(None);
        }
        let pools = recovery::pools_of(conn, self.row.id).await?;
        // Younger than whatever was written while the row was waited for.
        let now = self.app.clock.now();
        let lapsed = lapsed(conn, Some(self.host), now).await?;
        Ok(lapsed.into_iter().find(|one| pools.contains(&one.pool_id.as_uuid())))
    }

    /// The next boot of a guest that the guard has ended: on its host, if that guards it, otherwise on another one.
    /// INVARIANT: its host has said of the newest boot that it has ended, and never starts that one again.
    async fn start_again(&self, conn: &mut PgConnection) -> Result<bool, ApiError> {
        if self.known.restored
            || !self.is_fenced()
            || self.known.fenced_due_at.is_some_and(|due| due > self.now)
        {
            return Ok(false);
        }
        let all_shared = attachments::lock_all_shared(conn, self.row.id).await?.is_none();
        quotas::store::lock_before_going(conn, &[self.row.id], &[], &[]).await?;
        if guards(conn, self.host, self.row.id, self.now).await? {
            // Should it have been on its way to another host: it ended here, and goes on nowhere.
            migrations::give_up(conn, self.row.id).await?;
            let next = self.next();
            self.tell(conn, &self.row, "restart_fenced", &next, &Proof::Report).await?;
            self.count(conn).await?;
            return Ok(true);
        }
        let waited = self.known.observed_at.is_some_and(|at| self.now - at >= PATIENCE);
        let may_leave = all_shared
            && waited
            && self.row.on_host_failure == OnHostFailure::Restart.as_str()
            && attachments::merging(conn, self.row.id).await?.is_none();
        if may_leave {
            self.go_elsewhere(conn, "restart_elsewhere", &Proof::Report).await?;
            self.count(conn).await?;
        }
        Ok(may_leave)
    }

    fn is_fenced(&self) -> bool {
        let said = self.row.observed();
        self.row.intent().power == Power::Running
            && said.is_some_and(|said| {
                said.boot == self.row.boot
                    && said.state == ObservedState::Stopped { reason: EndReason::Fenced }
            })
    }

    async fn count(&self, conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        let recent = self.known.fenced_due_at.is_some_and(|due| self.now - due < FORGIVEN);
        let starts = if recent { self.known.fenced_starts } else { 0 };
        recovery::count_start(conn, self.row.id, starts.saturating_add(1), self.now + pause_after(starts))
            .await
    }

    /// One more boot if it is to run. What a paused one had in memory is gone with its host.
    fn next(&self) -> NewIntent {
        let request: RequestId = self.app.clock.new_id();
        let operation: OperationId = self.app.clock.new_id();
        let present = present_intent(&self.row, operation, request, self.now);
        match present.power {
            Power::Running => NewIntent { boot: self.row.boot + 1, ..present },
            Power::Paused | Power::Stopped => NewIntent { power: Power::Stopped, ..present },
        }
    }

    async fn go_elsewhere(
        &self,
        conn: &mut PgConnection,
        kind: &'static str,
        proof: &Proof,
    ) -> Result<(), ApiError> {
        departures::leave(conn, self.row.id, self.host, self.now).await?;
        let on_no_host = Row { host_id: None, ..self.row.clone() };
        self.tell(conn, &on_no_host, kind, &self.next(), proof).await
    }

    /// The intent, the first step of its trail, which says what is proven, and the audit log.
    async fn tell(
        &self,
        conn: &mut PgConnection,
        row: &Row,
        kind: &'static str,
        next: &NewIntent,
        proof: &Proof,
    ) -> Result<(), ApiError> {
        let principal = self.known.principal.into();
        let behalf =
            Behalf { project: self.project, principal, action: <actions::MoveInstance as Action>::NAME };
        intend(conn, behalf, row, kind, next).await?;
        let detail = proof.in_words();
        operations::store::step(conn, next.operation_id, "host_failed", self.now, Some(&detail)).await?;
        self.record(conn, next.request_id, kind, proof).await?;
        tracing::warn!(instance = %self.row.id, host = %self.host, kind, detail, "an instance starts again by itself");
        Ok(())
    }

    /// Nobody called: the log says what it was done for.
    async fn record(
        &self,
        conn: &mut PgConnection,
        request: RequestId,
        kind: &str,
        proof: &Proof,
    ) -> Result<(), ApiError> {
        let host = recovery::host_name(conn, self.host).await?;
        let deed = Deed {
            action: <actions::MoveInstance as Action>::NAME,
            before: Some(json!({"host": host, "boot": self.row.boot})),
            after: Some(json!({"operation": kind, "proof": proof.as_json()})),
            ..Deed::default()
        };
        let actor = Actor::by_itself(None, "cumulo");
        deeds::record(self.app, conn, &actor, (self.project, &self.row), request, deed).await
    }
}

fn pause_after(starts: i32) -> Duration {
    let doubled = FIRST_PAUSE * 2_i32.saturating_pow(starts.clamp(0, 16).unsigned_abs());
    doubled.min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_is_ended_again_and_again_starts_ever_more_slowly() {
        let pauses: Vec<_> = (0..8).map(|starts| pause_after(starts).whole_seconds()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(pause_after(i32::MAX), LONGEST_PAUSE);
    }
}

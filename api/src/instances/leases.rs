//! What happens to instances when a time has come: they are stopped or deleted on behalf of whoever set it, and their
//! resizes are confirmed.

use protocol::{PrincipalId, ProjectId, RequestId};
use serde_json::json;
use sqlx::{Acquire, PgConnection};
use time::{Duration, OffsetDateTime};

use super::deeds::{self, Behalf, intend};
use super::routes::present_intent;
use super::store::leases::Due;
use super::store::{self, Row, leases, placement, resizing};
use super::types::StopInstance;
use super::verbs::Verb;
use crate::app::App;
use crate::audit::{Actor, Deed};
use crate::auth::{Action, actions};
use crate::http::{ApiError, Selector};

/// When to look again at an instance that could not be ended. What takes a protection away looks sooner.
const RETRY: Duration = Duration::minutes(5);
/// What its owner reads when it is not their doing.
const FAILED: &str = "its time has come, but the control plane could not end it; it tries again";

/// Does what is due. Any number of replicas may run it at once.
pub(crate) async fn end_leases(app: &App) -> Result<(), sqlx::Error> {
    let now = app.clock.now();
    let mut conn = app.pool.acquire().await?;
    let due = leases::due(&mut conn, now).await?;
    drop(conn);
    for one in due {
        if let Err(error) = end_one(app, &one, now).await {
            // One that cannot be ended now does not keep the others waiting.
            tracing::warn!(instance = %one.id, %error, "a lease could not be ended; trying again");
            let mut conn = app.pool.acquire().await?;
            leases::postpone(&mut conn, one.id, FAILED, now + RETRY).await?;
        }
    }
    Ok(())
}

async fn end_one(app: &App, one: &Due, now: OffsetDateTime) -> Result<(), ApiError> {
    let mut tx = app.begin().await?;
    if !leases::take_turn(&mut tx, one.id, now).await? {
        return Ok(());
    }
    let project = ProjectId::from(one.project_id);
    let Some(row) = store::find_in(&mut tx, project, &Selector::Id(one.id)).await? else { return Ok(()) };
    end(app, &mut tx, project, &row, now).await?;
    Ok(tx.commit().await?)
}

async fn end(
    app: &App,
    conn: &mut PgConnection,
    project: ProjectId,
    row: &Row,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let Some(principal) = row.lease_principal_id.map(PrincipalId::from) else { return Ok(()) };
    let (verb, action) = if row.delete_at.is_some_and(|at| at <= now) {
        (Verb::Delete, <actions::DeleteInstance as Action>::NAME)
    } else {
        (Verb::Stop, <actions::StopInstance as Action>::NAME)
    };
    let behalf = Behalf { project, principal, action };
    let request: RequestId = app.clock.new_id();
    let present = present_intent(row, app.clock.new_id(), request, now);
    let mut savepoint = conn.begin().await?;
    let done = match verb.next(row, &StopInstance::default(), present) {
        Err(refused) => Err(refused),
        Ok(next) if verb == Verb::Delete => {
            deeds::delete(&mut savepoint, behalf, row, &next).await.map(|_| true)
        }
        // It is stopped, or stops.
        Ok(next) if next.power == row.intent().power => Ok(false),
        Ok(next) => {
            intend(&mut savepoint, behalf, row, verb.kind(), &next).await.map(|()| true).map_err(Into::into)
        }
    };
    match done {
        Ok(acted) => {
            savepoint.commit().await?;
            if verb == Verb::Stop {
                leases::stopped(conn, row.id).await?;
            }
            if acted {
                record(app, conn, behalf, row, request).await?;
            }
            Ok(())
        }
        Err(error) => {
            let Some((_, why)) = error.refusal() else { return Err(error) };
            savepoint.rollback().await?;
            let what = if verb == Verb::Delete { "deleted" } else { "stopped" };
            let why = format!("its time to be {what} has come, but {why}");
            Ok(leases::postpone(conn, row.id, &why, now + RETRY).await?)
        }
    }
}

/// Nobody called: the log says on whose behalf it was done, and why.
async fn record(
    app: &App,
    conn: &mut PgConnection,
    behalf: Behalf,
    row: &Row,
    request: RequestId,
) -> Result<(), ApiError> {
    let name = leases::principal_name(conn, behalf.principal.as_uuid()).await?;
    let actor = Actor::by_itself(Some(behalf.principal), name.as_deref().unwrap_or("gone"));
    let after = Some(json!({"lease": row.lease()}));
    let deed = Deed { action: behalf.action, after, ..Deed::default() };
    deeds::record(app, conn, &actor, (behalf.project, row), request, deed).await
}

/// Confirms the resizes whose time has come. Any number of replicas may run it at once.
pub(crate) async fn confirm_resizes(app: &App) -> Result<(), sqlx::Error> {
    let now = app.clock.now();
    loop {
        let mut tx = app.begin().await?;
        let Some(id) = resizing::take_due(&mut tx, now).await? else { return tx.rollback().await };
        resizing::release(&mut tx, id).await?;
        placement::retry_now(&mut tx, now).await?;
        tx.commit().await?;
    }
}

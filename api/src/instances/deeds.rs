//! Changing the intent of an instance, in the transaction of whoever does it: a call or a controller.

use protocol::agent::Power;
use protocol::{HostId, PrincipalId, ProjectId, RequestId};
use serde_json::json;
use sqlx::PgConnection;

use super::store::{self, NewIntent, Row, departures, migrations};
use crate::app::App;
use crate::audit::{self, Actor, Deed, Outcome};
use crate::auth::{Action, Allowed, InProject};
use crate::hosts;
use crate::http::ApiError;
use crate::nudge::{self, Topic};
use crate::operations;
use crate::ports::cards;
use crate::quotas;
use crate::volumes::store::{attachments, ending};

/// On whose behalf it is done, and in which project.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behalf {
    pub project: ProjectId,
    pub principal: PrincipalId,
    /// What they may do.
    pub action: &'static str,
}

impl<A: Action<On: InProject>> From<&Allowed<A>> for Behalf {
    fn from(allowed: &Allowed<A>) -> Self {
        Self { project: allowed.project(), principal: allowed.principal(), action: A::NAME }
    }
}

/// Begins the operation, stores the next intent of an instance, which is locked, and tells its host.
pub(super) async fn intend(
    conn: &mut PgConnection,
    behalf: Behalf,
    row: &Row,
    kind: &'static str,
    intent: &NewIntent,
) -> Result<(), sqlx::Error> {
    let begin = operations::store::Begin {
        id: intent.operation_id,
        kind,
        resource_id: row.id,
        resource_name: &row.name,
        request_id: intent.request_id,
        now: intent.now,
    };
    operations::store::begin_for(conn, behalf.project, behalf.principal, behalf.action, begin).await?;
    // Whose power is cut need not arrive anywhere.
    if intent.deletion_requested || (intent.power == Power::Stopped && intent.stop_mode == "force") {
        migrations::give_up(conn, row.id).await?;
    }
    let revision = match row.host_id.map(HostId::from) {
        Some(host) if intent.cards_change => hosts::store::bump_networks(conn, host).await?,
        Some(host) => Some(hosts::store::bump_revision(conn, host).await?),
        None => None,
    };
    let revision = revision.map(|revision| revision.0);
    store::set_intent(conn, row.id, intent, revision).await?;
    if let Some(revision) = revision.filter(|_| intent.cards_change) {
        cards::came_to_host(conn, row.id.into(), revision).await?;
    }
    match row.host_id {
        Some(host) => nudge::send(conn, Topic::Host(host.into())).await,
        None => nudge::send(conn, Topic::Placement).await,
    }
}

/// Writes into the audit log what was done to an instance without a call. `deed` says what: its action, and what was before
/// and after.
pub(super) async fn record(
    app: &App,
    conn: &mut PgConnection,
    actor: &Actor<'_>,
    (project, row): (ProjectId, &Row),
    request: RequestId,
    deed: Deed,
) -> Result<(), ApiError> {
    let name = store::leases::project_name(conn, project.as_uuid()).await?;
    let deed = Deed {
        resource: format!("crn:cumulo:compute:{name}:instance/{}", row.name),
        resource_id: Some(row.id),
        project: Some(project),
        deciding: json!([]),
        ..deed
    };
    Ok(audit::write(conn, app, actor, request, Outcome::Allowed, deed).await?)
}

/// What became of a deletion.
pub(super) enum Deleted {
    /// Its host is told to remove it.
    Requested,
    /// No host knew of it: this was the last of it.
    Gone(Box<Row>),
}

/// Deletes an instance, which is locked, with the volumes that go with it. `next` asks for that.
///
/// # Errors
/// `wrong_state` when a protected volume would go with it.
pub(super) async fn delete(
    conn: &mut PgConnection,
    behalf: Behalf,
    row: &Row,
    next: &NewIntent,
) -> Result<Deleted, ApiError> {
    const KIND: &str = "delete_instance";
    if let Some(host) = row.host_id.map(HostId::from) {
        let all_shared = attachments::lock_all_shared(conn, row.id).await?.is_none();
        if all_shared {
            quotas::store::lock_before_going(conn, &[row.id], &[], &[]).await?;
        }
        let is_lost = all_shared && hosts::store::is_declared_dead(conn, host).await?;
        if !is_lost {
            ending::request(conn, row.id, next.now).await?;
            intend(conn, behalf, row, KIND, next).await?;
            if hosts::store::is_declared_dead(conn, host).await? {
                // What else it has waits for that host; nobody there has these any more.
                ending::release_of_lost(conn, row.id, next.now).await?;
                departures::forget_volumes(conn, row.id).await?;
            }
            return Ok(Deleted::Requested);
        }
        // Nothing of it needs that host.
        departures::leave(conn, row.id, host, next.now).await?;
    }
    intend(conn, behalf, &Row { host_id: None, ..row.clone() }, KIND, next).await?;
    let selector = crate::http::Selector::Id(row.id);
    let last = store::find_in(conn, behalf.project, &selector).await?.ok_or_else(ApiError::not_found)?;
    store::delete_unplaced(conn, row.id, next.now).await?;
    operations::store::finish(conn, next.operation_id, &operations::store::End::Succeeded, next.now).await?;
    Ok(Deleted::Gone(Box::new(last)))
}

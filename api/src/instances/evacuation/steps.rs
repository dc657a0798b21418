//! The steps of an instance that leaves: each is the next intent of it, an operation that its owner reads, and a record.

use protocol::agent::Power;
use protocol::{HostId, OperationId, ProjectId, RequestId};
use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::store::Drain;
use crate::app::App;
use crate::audit::{Actor, Deed};
use crate::auth::{Action, actions};
use crate::http::ApiError;
use crate::instances::deeds::{self, Behalf, intend};
use crate::instances::migration;
use crate::instances::reconcile::place_at_once;
use crate::instances::routes::present_intent;
use crate::instances::store::migrations::New;
use crate::instances::store::{NewIntent, Row, departures, leases};
use crate::instances::types::MigrateInstance;
use crate::operations;

/// An instance that is locked, as are its volumes, what its project uses, the turn of placement and the host.
pub(super) struct Locked<'a> {
    pub app: &'a App,
    pub drain: &'a Drain,
    pub project: ProjectId,
    pub row: Row,
    /// As of when the turn of placement was taken.
    pub hosts: &'a migration::Hosts,
    /// The host that takes its guest while it runs, which is held, too.
    pub destination: Option<HostId>,
    pub now: OffsetDateTime,
}

impl Locked<'_> {
    /// Shuts its guest down.
    pub(super) async fn stop(&self, conn: &mut PgConnection) -> Result<OperationId, ApiError> {
        let next = NewIntent {
            power: Power::Stopped,
            stop_mode: "graceful",
            stop_timeout_seconds: self.drain.timeout_seconds,
            ..self.present()
        };
        let why = "its host is taken into maintenance: it shuts down, goes to another host and starts there";
        self.tell(conn, &self.row, "stop_for_maintenance", &next, why).await?;
        Ok(next.operation_id)
    }

    /// Sends its guest to that host as it runs.
    pub(super) async fn migrate(&self, conn: &mut PgConnection, destination: HostId) -> Result<(), ApiError> {
        let next = self.present();
        let why = "its host is taken into maintenance: it goes to another one while it runs";
        self.tell(conn, &self.row, "migrate_for_maintenance", &next, why).await?;
        let new = New {
            id: self.app.clock.new_id(),
            instance: self.row.id.into(),
            operation: next.operation_id,
            source: self.drain.host,
            destination,
            max_downtime_ms: MigrateInstance::default().max_downtime_ms(),
            due_at: self.now + migration::DUE,
            disk_gib: None,
            runs: true,
        };
        migration::begin_running(conn, &self.row, new, self.now).await
    }

    /// Sends its disks to that host, on which it is when they are there.
    pub(super) async fn copy(&self, conn: &mut PgConnection, destination: HostId) -> Result<(), ApiError> {
        let next = self.present();
        let why = "its host is taken into maintenance: its disks are copied to another one";
        self.tell(conn, &self.row, "move_for_maintenance", &next, why).await?;
        let hosts = (self.drain.host, destination);
        let new = New::of_disks(self.app.clock.new_id(), self.row.id, next.operation_id, hosts, self.now);
        migration::begin_disks(conn, &self.row, new, self.now).await
    }

    /// Starts it again where it is.
    pub(super) async fn start(&self, conn: &mut PgConnection) -> Result<(), ApiError> {
        if !self.row.boots() {
            return Ok(());
        }
        let next = NewIntent { power: Power::Running, boot: self.row.boot + 1, ..self.present() };
        let why = "it was shut down for the maintenance of its host";
        self.tell(conn, &self.row, "start_after_maintenance", &next, why).await
    }

    /// Gives its host up for another one, which takes it at once.
    ///
    /// # Errors
    /// `insufficient_capacity` when none does after all.
    pub(super) async fn leave(&self, conn: &mut PgConnection, starts: bool) -> Result<(), ApiError> {
        let present = self.present();
        let next = if starts && self.row.boots() {
            NewIntent { power: Power::Running, boot: self.row.boot + 1, ..present }
        } else {
            NewIntent { power: Power::Stopped, ..present }
        };
        departures::leave(conn, self.row.id, self.drain.host, self.now).await?;
        let on_no_host = Row { host_id: None, ..self.row.clone() };
        let why = "its host is taken into maintenance";
        self.tell(conn, &on_no_host, "move_for_maintenance", &next, why).await?;
        place_at_once(conn, self.row.id.into(), next.operation_id, self.now).await
    }

    fn present(&self) -> NewIntent {
        let request: RequestId = self.app.clock.new_id();
        present_intent(&self.row, self.app.clock.new_id(), request, self.now)
    }

    async fn tell(
        &self,
        conn: &mut PgConnection,
        row: &Row,
        kind: &'static str,
        next: &NewIntent,
        why: &str,
    ) -> Result<(), ApiError> {
        let (project, principal) = (self.project, self.drain.principal.into());
        let action = <actions::DrainHost as Action>::NAME;
        intend(conn, Behalf { project, principal, action }, row, kind, next).await?;
        operations::store::step(conn, next.operation_id, "host_maintenance", self.now, Some(why)).await?;
        let name = leases::principal_name(conn, self.drain.principal).await?;
        let deed = Deed {
            action,
            before: Some(json!({"host": self.drain.name, "power": row.power, "boot": row.boot})),
            after: Some(json!({"operation": kind})),
            ..Deed::default()
        };
        let actor = Actor::by_itself(Some(principal), name.as_deref().unwrap_or("gone"));
        deeds::record(self.app, conn, &actor, (project, row), next.request_id, deed).await?;
        let host: HostId = self.drain.host;
        tracing::info!(instance = %row.id, %host, kind, "an instance leaves a host in maintenance");
        Ok(())
    }
}

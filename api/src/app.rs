//! What every handler and controller shares.

use std::ops::Deref;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::{PgPool, Postgres, Transaction};
use tokio_util::sync::CancellationToken;

use crate::auth::{KeyUses, Passwords, PolicyCache, Tokens, Turns};
use crate::clock::Clock;
use crate::consoles::Consoles;
use crate::database::{self, Pools};
use crate::events::EventStreams;
use crate::fleet_metrics::FleetMetrics;
use crate::hosts::{Fencer, Heartbeats};
use crate::http::Edge;
use crate::images::{ImageStore, Importer};
use crate::networks::Documents;
use crate::nudge::Nudges;
use crate::pki::Ca;

/// Handles to the outside, cheap to clone. Nothing here is state of the cloud: that is all in PostgreSQL.
#[derive(Clone)]
pub struct App {
    parts: Arc<Parts>,
    /// The connections that this handle takes; see [`Pools`].
    pub pool: PgPool,
}

pub struct Parts {
    pub pools: Pools,
    pub clock: Clock,
    pub passwords: Passwords,
    pub tokens: Tokens,
    pub policies: PolicyCache,
    pub key_uses: KeyUses,
    pub sign_ins: Turns,
    pub ca: Arc<Ca>,
    pub images: ImageStore,
    pub imports: Importer,
    pub nudges: Nudges,
    pub documents: Documents,
    pub event_streams: EventStreams,
    pub consoles: Consoles,
    pub heartbeats: Heartbeats,
    /// How silent hosts are switched off, if that is not left to the operator.
    pub fence: Option<Fencer>,
    pub edge: Edge,
    pub metrics: PrometheusHandle,
    pub fleet: FleetMetrics,
    /// Whatever waits for long ends with this.
    pub shutdown: CancellationToken,
}

impl App {
    pub fn new(parts: Parts) -> Self {
        Self { pool: parts.pools.own.clone(), parts: Arc::new(parts) }
    }

    /// The same for what agents ask, with their share of the connections.
    pub(crate) fn for_agents(&self) -> Self {
        Self { pool: self.parts.pools.agents.clone(), parts: Arc::clone(&self.parts) }
    }

    /// Every transaction begins here or in the next: see [`database::begin`].
    pub(crate) async fn begin(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        database::begin(&self.pool).await
    }

    /// All it reads is of one moment.
    pub(crate) async fn begin_reading(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        database::begin_reading(&self.pool).await
    }
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.parts
    }
}

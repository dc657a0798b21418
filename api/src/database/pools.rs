//! Two pools: what agents ask has a share of its own.
//!
//! Agents come in crowds, as after an outage or a restart, and each may wait for locks of the others while it holds its
//! connection. In one pool they would hold all of them, and users would be refused.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Executor as _, PgPool};

use super::servers::refuse_standby;

/// Of users' calls and controllers. One of them listens for nudges.
const OWN: u32 = 20;
/// A request that gets no connection for this long is better answered with 503.
const OWN_PATIENCE: Duration = Duration::from_secs(1);

/// Of what agents ask. Few are enough: a thousand hosts take about one of them for their heartbeats and looks.
const OF_AGENTS: u32 = 8;
/// They wait their turn, for no longer than for a lock; who gets none asks again after a pause that it chooses at random.
const PATIENCE_OF_AGENTS: Duration = Duration::from_secs(5);

/// Nothing a request does takes long; what does is stuck, and must not hold locks meanwhile. Statements are planned
/// once for each connection: they are short, and planning one anew takes several times as long as running it.
const SESSION: &str = "SET statement_timeout = '15s'; \
    SET lock_timeout = '5s'; \
    SET plan_cache_mode = 'force_generic_plan'; \
    SET idle_in_transaction_session_timeout = '10s'";

/// All connections of a replica.
#[derive(Debug, Clone)]
pub struct Pools {
    /// Of users' calls and controllers.
    pub own: PgPool,
    /// Of what agents ask.
    // INVARIANT: nothing that has a connection of one pool waits for one of the other, so neither can hold up the other.
    pub agents: PgPool,
}

impl Pools {
    /// Pools that connect when they are first used.
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self::of_sizes(options, OWN, OF_AGENTS)
    }

    /// The same with these numbers of connections.
    pub(crate) fn of_sizes(options: PgConnectOptions, own: u32, agents: u32) -> Self {
        Self {
            own: pool(own, OWN_PATIENCE).connect_lazy_with(options.clone()),
            agents: pool(agents, PATIENCE_OF_AGENTS).connect_lazy_with(options),
        }
    }

    /// One for both.
    #[cfg(test)]
    pub(crate) fn one(pool: PgPool) -> Self {
        Self { agents: pool.clone(), own: pool }
    }

    pub(super) fn each(&self) -> [&PgPool; 2] {
        [&self.own, &self.agents]
    }
}

fn pool(connections: u32, patience: Duration) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(patience)
        // Waiting in a crowd is no news; who is refused is told.
        .acquire_slow_threshold(patience)
        .after_connect(|connection, _| {
            Box::pin(async move {
                refuse_standby(connection).await?;
                connection.execute(SESSION).await.map(drop)
            })
        })
}

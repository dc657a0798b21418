//! The database: the only state there is.
//!
//! It is either one that the operator names or a [private cluster](private_cluster) of our own. Opening it
//! waits for PostgreSQL, brings the schema up to date under a lock that replicas share, and yields a pool
//! that fails fast: when PostgreSQL is away a request learns so within a second.

mod connect;
pub mod private_cluster;
mod servers;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, Postgres, Transaction};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

pub use self::connect::is_unavailable;
use self::private_cluster::{ClusterError, PrivateCluster, Settings};
use self::servers::{Servers, refuse_standby};

/// Every schema change since the beginning, embedded in the program.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

const MAX_CONNECTIONS: u32 = 20;

/// A request that gets no connection for this long is better answered with 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);

/// Nothing a request does takes long; what does is stuck, and must not hold locks meanwhile. Statements are planned
/// once for each connection: they are short, and planning one anew takes several times as long as running it.
const SESSION: &str = "SET statement_timeout = '15s'; \
    SET lock_timeout = '5s'; \
    SET plan_cache_mode = 'force_generic_plan'; \
    SET idle_in_transaction_session_timeout = '10s'";

/// Begins a transaction that leaves nothing behind when its future is dropped half-way, as that of a request is when its
/// client goes: sqlx knows of a transaction once PostgreSQL has answered, and would put the connection back into the pool
/// inside of one that nobody ends.
///
/// # Errors
/// As [`PgPool::begin`].
#[expect(clippy::disallowed_methods, reason = "it is this that goes to its end")]
pub async fn begin(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    to_its_end(async move { pool.begin().await }).await
}

/// The same for a transaction that reads all it reads of one moment.
///
/// # Errors
/// As [`PgPool::begin`].
#[expect(clippy::disallowed_methods, reason = "it is this that goes to its end")]
pub async fn begin_reading(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
    to_its_end(async move { pool.begin_with(begin).await }).await
}

async fn to_its_end<T: Send + 'static>(
    begin: impl Future<Output = sqlx::Result<T>> + Send + 'static,
) -> sqlx::Result<T> {
    tokio::spawn(begin).await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

/// Why the database cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("the address of the database does not begin with postgres:// or postgresql://")]
    Scheme,
    #[error("cannot read the address of the database")]
    Url(#[source] sqlx::Error),
    #[error(
        "there is no database in {directory}: give the data directory or the address of the control plane's"
    )]
    NoCluster { directory: Utf8PathBuf },
    #[error("cannot run the private PostgreSQL cluster")]
    Cluster(#[from] ClusterError),
    #[error("cannot connect to PostgreSQL")]
    Connect(#[source] sqlx::Error),
    #[error("cannot bring the database schema up to date")]
    Migrate(#[from] MigrateError),
}

/// An open database with the current schema.
pub struct Database {
    pub pool: PgPool,
    /// Must run for as long as the pool is used.
    pub keeper: Keeper,
}

/// Looks after PostgreSQL.
#[derive(Debug)]
pub struct Keeper(Kept);

#[derive(Debug)]
enum Kept {
    /// It is ours to start again.
    Private(Box<PrivateCluster>),
    /// Others run it; its primary is followed.
    Servers(Servers, PgPool),
}

impl Database {
    /// Opens the database at `url`, or the private one in `data_directory`.
    pub async fn open(url: Option<&str>, data_directory: &Utf8Path) -> Result<Self, OpenError> {
        match url {
            Some(url) => Self::open_servers(Servers::parse(url)?).await,
            None => Self::open_private(data_directory).await,
        }
    }

    async fn open_servers(servers: Servers) -> Result<Self, OpenError> {
        let servers = servers.map(|options| options.application_name("cumulo-api"));
        let pool = prepare(&servers).await?;
        Ok(Self { pool: pool.clone(), keeper: Keeper(Kept::Servers(servers, pool)) })
    }

    /// Opens the database for a moment, beside the control plane that may be running on it. A private one that
    /// is not there is not made.
    pub async fn join(url: Option<&str>, data_directory: &Utf8Path) -> Result<Self, OpenError> {
        if url.is_some() {
            return Self::open(url, data_directory).await;
        }
        let directory = data_directory.join("postgresql");
        if !PrivateCluster::exists(&directory) {
            return Err(OpenError::NoCluster { directory });
        }
        match Self::open_private(data_directory).await {
            Err(OpenError::Cluster(ClusterError::InUse { directory })) => {
                Self::open_servers(PrivateCluster::options_of(&directory).into()).await
            }
            opened => opened,
        }
    }

    async fn open_private(data_directory: &Utf8Path) -> Result<Self, OpenError> {
        let directory = data_directory.join("postgresql");
        let cluster = PrivateCluster::start(&directory, &Settings::default()).await?;
        let servers = Servers::from(cluster.connect_options().application_name("cumulo-api"));
        match prepare(&servers).await {
            Ok(pool) => Ok(Self { pool, keeper: Keeper(Kept::Private(Box::new(cluster))) }),
            Err(error) => {
                cluster.stop().await?;
                Err(error)
            }
        }
    }
}

impl Keeper {
    /// Leaves PostgreSQL as it was found: stops it if we started it.
    pub async fn leave(self) -> Result<(), ClusterError> {
        match self.0 {
            Kept::Private(cluster) if !cluster.is_adopted() => cluster.stop().await,
            _ => Ok(()),
        }
    }

    /// Keeps a private PostgreSQL running until `shutdown`, then stops it; follows the primary among others. Ask for the
    /// shutdown after the last request is answered.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ClusterError> {
        match self.0 {
            Kept::Private(cluster) => cluster.supervise(shutdown).await,
            Kept::Servers(servers, pool) => {
                servers.follow_the_primary(pool, shutdown).await;
                Ok(())
            }
        }
    }
}

async fn prepare(servers: &Servers) -> Result<PgPool, OpenError> {
    let (options, mut connection) = connect::patiently(servers).await.map_err(OpenError::Connect)?;
    migrate(&mut connection).await?;
    // Closing is a courtesy; the schema is in place.
    connection.close().await.ok();
    Ok(pool(options))
}

/// Migrations run outside the pool: they may take longer than a request.
async fn migrate(connection: &mut PgConnection) -> Result<(), MigrateError> {
    tracing::debug!("bringing the database schema up to date");
    MIGRATOR.run(connection).await
}

/// A pool that connects when it is first used.
fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                refuse_standby(connection).await?;
                connection.execute(SESSION).await.map(drop)
            })
        })
        .connect_lazy_with(options)
}

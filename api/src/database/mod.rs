//! The database: the only state there is.
//!
//! It is either one that the operator names or a [private cluster](private_cluster) of our own. Opening it
//! waits for PostgreSQL, brings the schema up to date under a lock that replicas share, and yields [`Pools`]
//! that fail fast: when PostgreSQL is away a request learns so within a second.

mod connect;
mod maintenance;
mod pools;
pub mod private_cluster;
mod servers;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use camino::{Utf8Path, Utf8PathBuf};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, Transaction};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

pub use self::connect::is_unavailable;
pub(crate) use self::maintenance::Maintenance;
pub use self::pools::Pools;
use self::private_cluster::{ClusterError, PrivateCluster, Settings};
use self::servers::Servers;

/// Every schema change since the beginning, embedded in the program.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

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

/// Where the database of a control plane is, for the commands of its operator.
#[derive(Debug, Clone, clap::Args)]
pub struct Location {
    /// Data directory of the control plane, with its private PostgreSQL.
    #[arg(long, env = "CUMULO_DATA_DIR", default_value = "/var/lib/cumulo/api")]
    pub data_dir: Utf8PathBuf,
    /// PostgreSQL of the control plane, if it is not a private one.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
}

impl Location {
    /// The folder of the private cluster. One that is not there is not made.
    fn private(&self) -> Result<Utf8PathBuf, OpenError> {
        let directory = self.data_dir.join("postgresql");
        if PrivateCluster::exists(&directory) {
            Ok(directory)
        } else {
            Err(OpenError::NoCluster { directory })
        }
    }
}

/// An open database with the current schema.
pub struct Database {
    pub pools: Pools,
    /// Must run for as long as the pools are used.
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
    Servers(Servers, Pools),
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
        let pools = prepare(&servers).await?;
        Ok(Self { pools: pools.clone(), keeper: Keeper(Kept::Servers(servers, pools)) })
    }

    /// Opens the database for a moment, beside the control plane that may be running on it. A private one that
    /// is not there is not made.
    pub async fn join(location: &Location) -> Result<Self, OpenError> {
        if let Some(url) = &location.database_url {
            return Self::open(Some(url), &location.data_dir).await;
        }
        location.private()?;
        match Self::open_private(&location.data_dir).await {
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
            Ok(pools) => Ok(Self { pools, keeper: Keeper(Kept::Private(Box::new(cluster))) }),
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
            Kept::Servers(servers, pools) => {
                servers.follow_the_primary(pools, shutdown).await;
                Ok(())
            }
        }
    }
}

async fn prepare(servers: &Servers) -> Result<Pools, OpenError> {
    let (options, mut connection) = connect::patiently(servers).await.map_err(OpenError::Connect)?;
    migrate(&mut connection).await?;
    // Closing is a courtesy; the schema is in place.
    connection.close().await.ok();
    Ok(Pools::new(options))
}

/// Migrations run outside the pool: they may take longer than a request.
async fn migrate(connection: &mut PgConnection) -> Result<(), MigrateError> {
    tracing::debug!("bringing the database schema up to date");
    MIGRATOR.run(connection).await
}

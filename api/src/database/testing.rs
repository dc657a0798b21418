//! A database for each test.
//!
//! All tests of a checkout share one disposable private cluster, whether they run as threads or, under
//! nextest, as processes. Its data and a template with all migrations stay between runs, so that a run pays for
//! starting it (a tenth of a second) and a test for copying the template. That is about a thousand small files, so it
//! is done in memory where there is room: on ext4 it takes ten times as long.
//!
//! The cluster ends by itself. Every process that uses it holds a shared lock on `users`; next to it
//! waits `flock`, which gets the exclusive lock when the last user is gone, however it went, and then
//! runs `pg_ctl stop`. A test that comes while the cluster is stopping waits for the lock and starts it again.

use std::fmt::Write as _;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::MIGRATOR;
use super::private_cluster::layout::{open_lock, set_mode};
use super::private_cluster::{ClusterError, Durability, PrivateCluster, Settings, stop_when_free};

const DISPOSABLE: Settings = Settings { durability: Durability::Disposable, binaries: None };

/// On disk, kept over a reboot, and searchable by every account.
const TEMPORARY: &str = "/var/tmp";
/// The same in memory.
const IN_MEMORY: &str = "/dev/shm";
/// For the log of the shared cluster and the databases of some dozen tests at once.
const ENOUGH: u64 = 2 << 30;

/// Databases of tests that were killed are recognised by this and removed at the next start.
const TEST_PREFIX: &str = "test_";

/// A database of one test with the current schema. Dropping it drops the database.
pub struct TestDatabase {
    pub pool: PgPool,
    name: String,
    cluster: &'static SharedCluster,
}

impl TestDatabase {
    /// Makes a database nobody else uses.
    pub async fn create() -> Self {
        let cluster = SharedCluster::get().await;
        let name = format!("{TEST_PREFIX}{:016x}", rand::random::<u64>());
        let template = &cluster.template;
        cluster.execute(&format!("CREATE DATABASE {name} OWNER cumulo TEMPLATE {template}")).await;
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_lazy_with(cluster.options.clone().database(&name));
        Self { pool, name, cluster }
    }

    /// How to connect to it with connections of one's own.
    pub fn options(&self) -> PgConnectOptions {
        self.cluster.options.clone().database(&self.name)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (cluster, name) = (self.cluster, std::mem::take(&mut self.name));
        // A thread of its own, because dropping cannot wait for a future.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(cluster.execute(&format!("DROP DATABASE {name} WITH (FORCE)")));
        })
        .join();
        assert!(dropped.is_ok() || std::thread::panicking(), "cannot drop the test's database");
    }
}

/// A temporary folder for a cluster of a test's own; PostgreSQL's account may enter it.
pub(crate) struct ClusterFolder {
    pub(crate) root: Utf8PathBuf,
    _temporary: TempDir,
}

impl ClusterFolder {
    pub(crate) fn new() -> Self {
        let temporary = tempfile::Builder::new().prefix("cumulo-cluster-").tempdir_in(TEMPORARY).unwrap();
        let root = Utf8PathBuf::from_path_buf(temporary.path().canonicalize().unwrap()).unwrap();
        set_mode(&root, 0o711).unwrap();
        Self { root, _temporary: temporary }
    }

    pub(super) fn cluster(&self) -> Utf8PathBuf {
        self.root.join("postgresql")
    }

    pub(crate) async fn start(&self) -> Result<PrivateCluster, ClusterError> {
        PrivateCluster::start(&self.cluster(), &DISPOSABLE).await
    }
}

/// Whatever a test does, its server does not outlive it.
impl Drop for ClusterFolder {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.cluster().join("data/postmaster.pid"))
            .ok()
            .and_then(|text| text.lines().next()?.parse().ok());
        if let Some(pid) = pid {
            kill(Pid::from_raw(pid), Signal::SIGQUIT).ok();
        }
    }
}

struct SharedCluster {
    /// As the control plane's role.
    options: PgConnectOptions,
    superuser: PgConnectOptions,
    template: String,
    /// Held until the process ends.
    _user: File,
}

impl SharedCluster {
    async fn get() -> &'static Self {
        static SHARED: OnceCell<SharedCluster> = OnceCell::const_new();
        SHARED.get_or_init(Self::join).await
    }

    /// Starts the cluster, or joins those that use it. One process at a time does this.
    async fn join() -> Self {
        let directory = directory();
        std::fs::create_dir_all(&directory).unwrap();
        let gate = open_lock(&directory.join("gate")).unwrap();
        gate.lock().unwrap();
        let user = open_lock(&directory.join("users")).unwrap();
        user.lock_shared().unwrap();

        stop_when_free(&directory.join("cluster"), &directory.join("users")).unwrap();
        let cluster = PrivateCluster::start(&directory.join("cluster"), &DISPOSABLE).await.unwrap();
        let superuser = cluster.superuser_options("postgres");
        let mut connection = superuser.connect().await.unwrap();
        if !cluster.is_adopted() {
            drop_databases(&mut connection, TEST_PREFIX).await;
        }
        let template = ensure_template(&mut connection, &cluster).await;
        connection.close().await.unwrap();
        // Dropped, not stopped: others use it.
        Self { options: cluster.connect_options(), superuser, template, _user: user }
    }

    async fn execute(&self, statement: &str) {
        let mut connection = self.superuser.connect().await.unwrap();
        execute(&mut connection, statement).await;
        connection.close().await.unwrap();
    }
}

/// One per checkout; the working folder may lie where PostgreSQL's account cannot go.
fn directory() -> Utf8PathBuf {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_MANIFEST_DIR"), nix::unistd::geteuid().as_raw()).hash(&mut hasher);
    // How much there is in all, so that everybody decides alike.
    let room = statvfs(IN_MEMORY).map_or(0, |found| found.blocks() * found.fragment_size());
    let place = if room >= ENOUGH { IN_MEMORY } else { TEMPORARY };
    Utf8Path::new(place).join(format!("cumulo-test-postgres-{:016x}", hasher.finish()))
}

/// The template for the migrations of this program, made if it is missing. Those of others are removed.
async fn ensure_template(connection: &mut PgConnection, cluster: &PrivateCluster) -> String {
    let template = format!("template_{}", schema_version());
    let found = sqlx::query("SELECT FROM pg_database WHERE datname = $1").bind(&template);
    if found.fetch_optional(&mut *connection).await.unwrap().is_some() {
        return template;
    }
    drop_databases(connection, "template_").await;
    drop_databases(connection, "unfinished").await;
    execute(connection, "CREATE DATABASE unfinished OWNER cumulo").await;
    let options = cluster.connect_options().database("unfinished");
    let mut migrating = options.connect().await.unwrap();
    MIGRATOR.run(&mut migrating).await.unwrap();
    migrating.close().await.unwrap();
    execute(connection, &format!("ALTER DATABASE unfinished RENAME TO {template}")).await;
    template
}

/// Names the schema by the checksums of its migrations.
fn schema_version() -> String {
    let mut hasher = DefaultHasher::new();
    for migration in MIGRATOR.iter() {
        (migration.version, &migration.checksum).hash(&mut hasher);
    }
    let mut text = String::new();
    write!(text, "{:016x}", hasher.finish()).unwrap();
    text
}

async fn drop_databases(connection: &mut PgConnection, prefix: &str) {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE starts_with(datname::text, $1)")
            .bind(prefix)
            .fetch_all(&mut *connection)
            .await
            .unwrap();
    for name in names {
        execute(connection, &format!("DROP DATABASE \"{name}\" WITH (FORCE)")).await;
    }
}

/// Only for statements about databases, whose names cannot be parameters; ours need no quoting.
async fn execute(connection: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tests_do_not_see_each_other_and_leave_nothing() {
        let (one, other) = (TestDatabase::create().await, TestDatabase::create().await);
        sqlx::raw_sql("CREATE TABLE mine ()").execute(&one.pool).await.unwrap();
        assert!(sqlx::raw_sql("SELECT FROM mine").execute(&other.pool).await.is_err());
        let applied: i64 =
            sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(&other.pool).await.unwrap();
        assert_eq!(applied, i64::try_from(MIGRATOR.iter().count()).unwrap());

        let name = one.name.clone();
        drop(one);
        let left = sqlx::query("SELECT FROM pg_database WHERE datname = $1").bind(name);
        assert!(left.fetch_optional(&other.pool).await.unwrap().is_none());
    }
}

//! A PostgreSQL of our own, for clouds that do not bring one.
//!
//! It runs from the distribution's programs in a folder of ours, reachable by one unix socket and
//! by nothing else, and as an unprivileged account even when we are root. The first start makes it, later
//! ones find it. When we are killed it lives on and the next start adopts it; when it is killed we start it
//! again ([`PrivateCluster::supervise`]). Whatever is killed when, nothing committed is lost and no half-made
//! cluster is ever taken for a whole one.

mod account;
mod binaries;
mod configuration;
mod error;
mod initdb;
pub(super) mod layout;
mod postmaster;
mod provision;
mod supervise;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use sqlx::postgres::PgConnectOptions;
use tokio::time::sleep;

use self::account::Account;
use self::binaries::Binaries;
pub use self::error::ClusterError;
use self::layout::Layout;
use self::postmaster::Postmaster;

/// The control plane's role and its database.
const ROLE: &str = "cumulo";
const DATABASE: &str = "cumulo";
/// For creating those two, and for administration by hand.
const SUPERUSER: &str = "postgres";

/// How long to wait before each further attempt to start.
const LAUNCH_PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1600)];

/// What a commit is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// It survives a power cut.
    #[default]
    Durable,
    /// It survives the process, not the machine: for tests.
    Disposable,
}

/// How to run a cluster.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub durability: Durability,
    /// The folder with `postgres` and `initdb`, if not one of the distribution's.
    pub binaries: Option<Utf8PathBuf>,
}

/// A running private cluster. Dropping it leaves PostgreSQL running, for the next start to adopt.
#[derive(Debug)]
pub struct PrivateCluster {
    layout: Layout,
    account: Account,
    binaries: Binaries,
    postmaster: Postmaster,
    /// None while it is shared.
    lock: Option<File>,
}

impl PrivateCluster {
    /// Makes, starts or adopts the cluster in `directory` and returns when it serves.
    pub async fn start(directory: &Utf8Path, settings: &Settings) -> Result<Self, ClusterError> {
        let account = Account::choose()?;
        account.refuse_data_of_others(directory)?;
        let layout = Layout::prepare(directory, &account)?;
        let lock = layout.lock()?;
        let binaries = Binaries::find(settings.binaries.as_deref(), &layout.data())?;
        configuration::write(&layout, &account, settings.durability)?;
        initdb::ensure(&layout, &account, &binaries, settings.durability).await?;
        let postmaster = launch(&layout, &account, &binaries).await?;
        let cluster = Self { layout, account, binaries, postmaster, lock: Some(lock) };
        if let Err(error) = provision::ensure(&cluster.layout).await {
            // What cannot be used must not be left behind.
            return Err(cluster.stop().await.err().unwrap_or(error));
        }
        tracing::info!(pid = cluster.pid(), adopted = cluster.is_adopted(), "PostgreSQL is ready");
        Ok(cluster)
    }

    /// How the control plane connects: its own role, its own database.
    pub fn connect_options(&self) -> PgConnectOptions {
        provision::options(&self.layout, ROLE, DATABASE)
    }

    /// Whether there is a cluster in `directory`.
    pub fn exists(directory: &Utf8Path) -> bool {
        Layout { root: directory.to_owned() }.data().exists()
    }

    /// How to connect to the cluster in `directory`, which another process keeps.
    pub fn options_of(directory: &Utf8Path) -> PgConnectOptions {
        provision::options(&Layout { root: directory.to_owned() }, ROLE, DATABASE)
    }

    /// How to connect as the superuser, to any database.
    pub fn superuser_options(&self, database: &str) -> PgConnectOptions {
        provision::options(&self.layout, SUPERUSER, database)
    }

    /// The folder of PostgreSQL's programs of the version that serves.
    pub(super) fn programs(&self) -> Utf8PathBuf {
        self.binaries.directory.clone()
    }

    /// The same for the cluster in `directory`, which another process keeps.
    pub(super) fn programs_of(directory: &Utf8Path) -> Result<Utf8PathBuf, ClusterError> {
        Ok(Binaries::find(None, &Layout { root: directory.to_owned() }.data())?.directory)
    }

    /// The folder of `pg_dump` and `pg_restore` for a server elsewhere.
    pub(super) fn programs_for(major: u32) -> Result<Utf8PathBuf, ClusterError> {
        Binaries::of_clients(major).map(|found| found.directory)
    }

    /// The server's process.
    pub fn pid(&self) -> i32 {
        self.postmaster.pid()
    }

    /// Whether the server was running already and serves on under us.
    pub fn is_adopted(&self) -> bool {
        self.postmaster.is_adopted()
    }

    /// Lets a control plane that starts meanwhile adopt it.
    pub(super) fn share(&mut self) {
        self.lock = None;
    }

    /// Stops PostgreSQL; every connection ends. One that is shared stays if somebody has adopted it.
    pub async fn stop(mut self) -> Result<(), ClusterError> {
        let lock = self.lock.take().map_or_else(|| self.layout.lock(), Ok);
        if matches!(lock, Err(ClusterError::InUse { .. })) {
            return Ok(());
        }
        let _lock = lock?;
        self.postmaster.stop().await
    }
}

/// Yields a server that serves.
///
/// When the one before us died a moment ago, its PostgreSQL may not have written its process id yet, or its
/// last sessions may still be ending; a second server refuses to start next to them. Both pass quickly.
async fn launch(layout: &Layout, account: &Account, binaries: &Binaries) -> Result<Postmaster, ClusterError> {
    let mut pauses = LAUNCH_PAUSES.into_iter();
    loop {
        let mut postmaster = find_or_spawn(layout, account, binaries)?;
        match (postmaster.ready(layout).await, pauses.next()) {
            (Ok(()), _) => {
                if postmaster.is_adopted() {
                    postmaster.reload();
                }
                return Ok(postmaster);
            }
            (Err(error @ ClusterError::Exited { .. }), Some(pause)) => {
                tracing::info!(%error, "PostgreSQL did not start; trying again");
                sleep(pause).await;
            }
            (Err(error), _) => return Err(error),
        }
    }
}

fn find_or_spawn(
    layout: &Layout,
    account: &Account,
    binaries: &Binaries,
) -> Result<Postmaster, ClusterError> {
    Postmaster::find(layout).map_or_else(|| Postmaster::spawn(layout, account, binaries), Ok)
}

/// Leaves behind a process that stops the cluster in `directory` once nobody holds a lock on the file
/// `users`, even if we are killed. Does nothing while the cluster runs, since whoever started it did this
/// before. A lock asked for while it is stopping is granted when it has stopped.
#[cfg(test)]
pub(super) fn stop_when_free(directory: &Utf8Path, users: &Utf8Path) -> Result<(), ClusterError> {
    let account = Account::choose()?;
    let layout = Layout::prepare(directory, &account)?;
    if Postmaster::find(&layout).is_some() {
        return Ok(());
    }
    let flock = Utf8Path::new("/usr/bin/flock");
    account
        .command(flock)
        .args(["--exclusive", users.as_str()])
        .arg(Binaries::find(None, &layout.data())?.program("pg_ctl"))
        .args(["stop", "--silent", "--mode=fast", "-D", layout.data().as_str()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .map(drop)
        .map_err(ClusterError::io("run", flock))
}

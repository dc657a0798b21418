//! What can be wrong with a private cluster, in words an operator can act on.

use std::io;
use std::process::ExitStatus;

use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

/// Why the private PostgreSQL cluster does not run.
#[derive(Debug, Error)]
pub enum ClusterError {
    #[error(
        "no PostgreSQL server below {searched}: install the package postgresql, or point to a managed database"
    )]
    NoBinaries { searched: Utf8PathBuf },
    #[error(
        "the server is PostgreSQL {major}, and its pg_dump and pg_restore are not here: install the package \
         postgresql-client-{major}"
    )]
    NoPrograms { major: u32 },
    #[error(
        "the database in {directory} belongs to {owner}, and {account} would make it useless to them: run this {how}"
    )]
    OfOthers { directory: Utf8PathBuf, owner: String, account: String, how: String },
    #[error("the programs postgres and initdb do not run from {directory}")]
    UnusableBinaries { directory: Utf8PathBuf },
    #[error(
        "the database in {data} was made by PostgreSQL {made_by}, but only {found} is installed: install \
         postgresql-{made_by}, or move the database with pg_upgrade"
    )]
    WrongVersion { data: Utf8PathBuf, made_by: String, found: String },
    #[error("PostgreSQL refuses to run as root and there is no account {0} to run it as")]
    NoAccount(&'static str),
    #[error("user id {0} has no name, which PostgreSQL needs to recognise its clients")]
    NamelessUser(u32),
    #[error(
        "the account {account} may not enter {directory}, which leads to {cluster}: use a data directory \
         below /var/lib, or let others search it (chmod o+x {directory})"
    )]
    Unsearchable { account: String, directory: Utf8PathBuf, cluster: Utf8PathBuf },
    #[error("the path {path} is too long for a unix socket: use a data directory with a shorter path")]
    SocketPathTooLong { path: Utf8PathBuf },
    #[error("another process already keeps the database in {directory}")]
    InUse { directory: Utf8PathBuf },
    #[error("the disk that holds {directory} is full")]
    DiskFull { directory: Utf8PathBuf },
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: Utf8PathBuf, source: io::Error },
    #[error("initdb ended with {status}: {output}")]
    Initdb { status: ExitStatus, output: String },
    #[error("postgres ended with {status} instead of serving: {output}")]
    Exited { status: String, output: String },
    #[error("cannot create the role and the database of the control plane")]
    Provision(#[source] sqlx::Error),
    #[error("postgres (process {pid}) does not stop")]
    WontStop { pid: i32 },
}

impl ClusterError {
    /// Wraps an I/O error; a full disk gets its own sentence.
    pub(super) fn io(action: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull => Self::DiskFull { directory: path },
            _ => Self::Io { action, path, source },
        }
    }
}

/// PostgreSQL's programs say this whatever the language, since we run them in C.UTF-8.
pub(super) fn tells_of_a_full_disk(output: &str) -> bool {
    output.contains("No space left on device")
}

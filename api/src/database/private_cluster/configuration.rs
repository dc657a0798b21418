//! PostgreSQL's configuration, written anew at every start.
//!
//! It lies outside the data directory and belongs to us. Who may connect is decided by the kernel: there is
//! no TCP socket, the folder of the unix socket lets only PostgreSQL's account and root in, and `peer`
//! authentication asks for the user id behind the connection. There are no passwords to leak.

use std::fmt::Write as _;
use std::fs;

use camino::Utf8Path;

use super::account::Account;
use super::error::ClusterError;
use super::layout::{Layout, PORT};
use super::{Durability, ROLE, SUPERUSER};

const IDENT_MAP: &str = "cumulo";

pub(super) fn write(layout: &Layout, account: &Account, durability: Durability) -> Result<(), ClusterError> {
    let directory = layout.conf();
    replace(&directory.join("pg_hba.conf"), &format!("local all all peer map={IDENT_MAP}\n"))?;
    replace(&directory.join("pg_ident.conf"), &ident(account))?;
    replace(&directory.join("postgresql.conf"), &settings(layout, durability))
}

/// Root and the service's own user may be either role; PostgreSQL's account may administer by hand.
fn ident(account: &Account) -> String {
    let mut users = vec!["root", &account.client, &account.name];
    users.sort_unstable();
    users.dedup();
    let mut text = String::new();
    for user in users {
        let user = user.replace('"', "\"\"");
        for role in [ROLE, SUPERUSER] {
            let _ = writeln!(text, "{IDENT_MAP} \"{user}\" {role}");
        }
    }
    text
}

/// Tuned for a small control plane: a few dozen connections and a database that fits in memory. Statements
/// and the values in them stay out of the log; whoever sent them gets the whole error.
fn settings(layout: &Layout, durability: Durability) -> String {
    let data = quote(&layout.data());
    let hba = quote(&layout.conf().join("pg_hba.conf"));
    let ident = quote(&layout.conf().join("pg_ident.conf"));
    let run = quote(&layout.run());
    let durability = match durability {
        Durability::Durable => "",
        Durability::Disposable => "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n",
    };
    format!(
        "# Written by Cumulo at every start; changes made here are lost.
data_directory = {data}
hba_file = {hba}
ident_file = {ident}

listen_addresses = ''
port = {PORT}
unix_socket_directories = {run}
unix_socket_permissions = 0700
max_connections = 100

shared_buffers = 32MB
huge_pages = off
maintenance_work_mem = 32MB
autovacuum_max_workers = 2
max_worker_processes = 4
max_parallel_workers_per_gather = 0
max_logical_replication_workers = 0
jit = off

wal_level = replica
max_wal_size = 256MB
min_wal_size = 32MB
max_wal_senders = 4

timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = off
log_destination = 'stderr'
log_line_prefix = '%m [%p] '
log_min_messages = warning
log_min_error_statement = fatal
log_error_verbosity = terse
log_checkpoints = off
log_autovacuum_min_duration = -1
{durability}"
    )
}

fn quote(path: &Utf8Path) -> String {
    format!("'{}'", path.as_str().replace('\'', "''"))
}

/// Replaces a file in one step, so that PostgreSQL never reads half of one.
fn replace(path: &Utf8Path, text: &str) -> Result<(), ClusterError> {
    let new = path.with_extension("new");
    fs::write(&new, text).map_err(ClusterError::io("write", &new))?;
    super::layout::set_mode(&new, 0o644)?;
    fs::rename(&new, path).map_err(ClusterError::io("replace", path))
}

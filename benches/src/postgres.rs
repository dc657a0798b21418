//! The PostgreSQL of a cloud, for floors: what it gives without us.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

use crate::create::run_command;

pub(crate) struct Postgres {
    socket: String,
}

impl Postgres {
    /// The private one somewhere below this folder.
    pub(crate) fn below(folder: &str) -> Result<Self> {
        let found = run_command("find", &[folder, "-name", ".s.PGSQL.*", "-type", "s"])?;
        let socket = found.lines().next().context("the cloud has no private PostgreSQL")?;
        let socket = socket.rsplit_once('/').context("a folder")?.0.to_owned();
        Ok(Self { socket })
    }

    /// Runs pgbench with these arguments; gives its transactions per second.
    pub(crate) fn pgbench_tps(&self, clients: usize, round: Duration, arguments: &[&str]) -> Result<f64> {
        let (clients, seconds) = (clients.to_string(), round.as_secs().to_string());
        let mut all = vec!["-M", "prepared", "-n", "-j", "2", "-c", &clients, "-T", &seconds];
        all.extend_from_slice(arguments);
        let output = self.pgbench(&all)?;
        let line = output.lines().find_map(|line| line.strip_prefix("tps = ")).context("pgbench says tps")?;
        Ok(line.split(' ').next().unwrap_or_default().parse()?)
    }

    pub(crate) fn pgbench(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-h", self.socket.as_str(), "-U", "cumulo"];
        all.extend_from_slice(arguments);
        all.push("cumulo");
        let newest = run_command("find", &["/usr/lib/postgresql", "-name", "pgbench"])?;
        run_command(newest.lines().last().context("pgbench is not installed")?, &all)
    }

    pub(crate) fn psql(&self, sql: &str) -> Result<String> {
        run_command("psql", &["-qAt", "-h", &self.socket, "-U", "cumulo", "-d", "cumulo", "-c", sql])
    }

    /// A connection of one's own.
    pub(crate) async fn connect(&self) -> sqlx::Result<PgConnection> {
        let options = PgConnectOptions::new_without_pgpass().socket(&self.socket);
        options.username("cumulo").database("cumulo").connect().await
    }
}

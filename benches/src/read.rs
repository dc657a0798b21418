//! B3: one instance by GET with authentication and authorisation, beside pgbench's primary-key SELECT.
//!
//! Clients and servers share the machine on both sides; ours is a Rust client in this process, the peer's is
//! pgbench, written in C.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::Cloud;

use crate::compare::{Series, report};
use crate::create::run_command;
use crate::site::Site;

const CLIENTS: usize = 16;
const ROUND: Duration = Duration::from_secs(4);

pub(crate) async fn run(site: &Site, rounds: usize) -> Result<()> {
    site.require_no_rate_limit().await?;
    let postgres = Postgres::prepare(site)?;
    let mut ours = Series::new("GET .../instances/hello");
    let mut peer = Series::new("pgbench, SELECT by primary key, prepared");
    for _ in 0..rounds {
        ours.values.push(get(&site.cloud).await?);
        peer.values.push(postgres.select()?);
    }
    postgres.remove()?;
    report("b3", "requests/s", &ours, &peer)
}

/// Requests per second.
async fn get(cloud: &Cloud) -> Result<f64> {
    let started = Instant::now();
    let clients = (0..CLIENTS).map(|_| async {
        let mut answered = 0_u64;
        while started.elapsed() < ROUND {
            cloud.get("/v1/projects/demo/instances/hello").await?.success()?;
            answered += 1;
        }
        anyhow::Ok(answered)
    });
    let answered: u64 = futures_util::future::try_join_all(clients).await?.into_iter().sum();
    Ok(answered as f64 / started.elapsed().as_secs_f64())
}

/// A database of the bench's own in the cloud's PostgreSQL.
struct Postgres {
    socket: String,
}

impl Postgres {
    fn prepare(site: &Site) -> Result<Self> {
        let found = run_command("find", &[&site.state, "-name", ".s.PGSQL.*", "-type", "s"])?;
        let socket = found.lines().next().context("the cloud has no private PostgreSQL")?;
        let socket = socket.rsplit_once('/').context("a folder")?.0.to_owned();
        let this = Self { socket };
        this.psql(
            "DROP TABLE IF EXISTS pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history",
        )?;
        this.pgbench(&["--initialize", "--quiet", "--scale=1"])?;
        Ok(this)
    }

    fn select(&self) -> Result<f64> {
        let clients = CLIENTS.to_string();
        let seconds = ROUND.as_secs().to_string();
        let output =
            self.pgbench(&["-S", "-M", "prepared", "-n", "-j", "2", "-c", &clients, "-T", &seconds])?;
        let line = output.lines().find_map(|line| line.strip_prefix("tps = ")).context("pgbench says tps")?;
        Ok(line.split(' ').next().unwrap_or_default().parse()?)
    }

    fn remove(&self) -> Result<()> {
        self.psql("DROP TABLE pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history")
    }

    fn pgbench(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-h", self.socket.as_str(), "-U", "cumulo"];
        all.extend_from_slice(arguments);
        all.push("cumulo");
        let newest = run_command("find", &["/usr/lib/postgresql", "-name", "pgbench"])?;
        run_command(newest.lines().last().context("pgbench is not installed")?, &all)
    }

    fn psql(&self, sql: &str) -> Result<()> {
        run_command("psql", &["-q", "-h", &self.socket, "-U", "cumulo", "-d", "cumulo", "-c", sql]).map(drop)
    }
}

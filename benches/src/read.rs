//! B3: one instance by GET with authentication and authorisation, beside pgbench's primary-key SELECT.
//!
//! Clients and servers share the machine on both sides; ours is a Rust client in this process, the peer's is
//! pgbench, written in C.

use std::time::{Duration, Instant};

use anyhow::Result;
use lab::Cloud;

use crate::compare::{Series, report};
use crate::postgres::Postgres;
use crate::site::Site;

const CLIENTS: usize = 16;
const ROUND: Duration = Duration::from_secs(4);
const REMOVE: &str =
    "DROP TABLE IF EXISTS pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history";

pub(crate) async fn run(site: &Site, rounds: usize) -> Result<()> {
    site.require_no_rate_limit().await?;
    let postgres = Postgres::below(&site.state)?;
    postgres.psql(REMOVE)?;
    postgres.pgbench(&["--initialize", "--quiet", "--scale=1"])?;
    let mut ours = Series::new("GET .../instances/hello");
    let mut peer = Series::new("pgbench, SELECT by primary key, prepared");
    for _ in 0..rounds {
        ours.values.push(get(&site.cloud).await?);
        peer.values.push(postgres.pgbench_tps(CLIENTS, ROUND, &["-S"])?);
    }
    postgres.psql(REMOVE)?;
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

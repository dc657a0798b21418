//! B16: cumulo-api crashes under many hosts, and is started again: how long until it answers a user, and until all
//! agents are heard of again. The hosts are the product's agents, simulated in one process; all share this machine.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::Cloud;

use crate::compare::{Series, report_all};
use crate::control::Control;
use crate::estate::Size;
use crate::postgres::Postgres;
use crate::simulated::Simulation;

const PATIENCE: Duration = Duration::from_secs(600);
/// Between two rounds.
const SETTLE: Duration = Duration::from_secs(15);

pub(crate) async fn run(rounds: usize, size: Size) -> Result<()> {
    let hosts = size.hosts.unwrap_or(1000);
    let (mut control, cloud) = Control::start().await?;
    let postgres = control.postgres()?;
    let simulation = Simulation::start(&control, &cloud, hosts).await?;
    eprintln!("{hosts} hosts are ready");
    let [mut first, mut agents] = ["first answer to a user", "all agents heard of again"].map(Series::new);
    for _ in 0..rounds {
        tokio::time::sleep(SETTLE).await;
        let since = postgres.psql("SELECT now()")?;
        let crashed = Instant::now();
        control.crash().await?;
        first.values.push(until_answered(&cloud, crashed).await?);
        let heard = format!("SELECT count(*) FROM hosts WHERE last_seen_at > '{}'", since.trim());
        until(&postgres, &heard, hosts, PATIENCE).await?;
        agents.values.push(crashed.elapsed().as_secs_f64());
    }
    report_all("b16", "s", &[&first, &agents])?;
    drop(simulation);
    Ok(())
}

async fn until_answered(cloud: &Cloud, since: Instant) -> Result<f64> {
    while !cloud.get("/v1/projects").await.is_ok_and(|answer| answer.status == 200) {
        ensure!(since.elapsed() < PATIENCE, "cumulo-api does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(since.elapsed().as_secs_f64())
}

async fn until(postgres: &Postgres, sql: &str, count: usize, patience: Duration) -> Result<()> {
    let started = Instant::now();
    loop {
        let found = postgres.psql(sql)?;
        if found.trim().parse::<usize>()? >= count {
            return Ok(());
        }
        ensure!(started.elapsed() < patience, "{} of {count}: {sql}", found.trim());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

//! B16: cumulo-api crashes under many hosts, and is started again: how long until it answers a user, and until all
//! agents are heard of again. The hosts are the product's agents, simulated in one process; all share this machine.
//! `fleet` is the same cloud at rest, with instances.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::Cloud;
use serde_json::json;

use crate::compare::{Series, report_all, write};
use crate::control::Control;
use crate::estate::{self, Size};
use crate::postgres::Postgres;
use crate::process;
use crate::simulated::Simulation;

const PATIENCE: Duration = Duration::from_secs(600);
/// Between two rounds, and before a fleet is at rest.
const SETTLE: Duration = Duration::from_secs(15);
const AT_REST: Duration = Duration::from_secs(30);
/// Making many takes long on a small machine.
const PATIENCE_OF_FLEET: Duration = Duration::from_secs(7200);

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

/// What the control plane takes with many hosts and instances at rest.
pub(crate) async fn fleet(size: Size) -> Result<()> {
    let (hosts, instances) = (size.hosts.unwrap_or(1000), size.instances.unwrap_or(20_000));
    let (control, cloud) = Control::start().await?;
    let postgres = control.postgres()?;
    let started = Instant::now();
    let simulation = Simulation::start(&control, &cloud, hosts).await?;
    let joined = started.elapsed().as_secs_f64();
    eprintln!("{hosts} hosts are ready after {joined:.0} s");
    let project = estate::make(&cloud, &control).await?;
    let started = Instant::now();
    estate::fill_bare(&project, 0..instances).await?;
    let made = started.elapsed().as_secs_f64();
    eprintln!("{instances} instances are made after {made:.0} s");
    estate::until_running(&postgres, instances, PATIENCE_OF_FLEET).await?;
    let running = started.elapsed().as_secs_f64();
    eprintln!("they run after {running:.0} s");
    tokio::time::sleep(SETTLE).await;

    let server = process::family(control.postgres_process()?)?;
    let all = [
        ("cumulo-api", vec![control.process()?]),
        ("PostgreSQL", server),
        ("agents", vec![simulation.process()?]),
    ];
    let before = all.each_ref().map(|(_, processes)| process::cpu_seconds(processes));
    let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let commits_before: f64 = postgres.psql(commits)?.trim().parse()?;
    tokio::time::sleep(AT_REST).await;
    let commits = (postgres.psql(commits)?.trim().parse::<f64>()? - commits_before) / AT_REST.as_secs_f64();
    let load = std::fs::read_to_string("/proc/loadavg").context("read the load average")?;
    println!("{hosts} hosts, {instances} instances, load average {load}");
    println!("{:<16} {:>12} {:>14}", "at rest", "processors", "own MiB");
    let mut rows = Vec::new();
    for ((name, processes), before) in all.into_iter().zip(before) {
        let processors = (process::cpu_seconds(&processes)? - before?) / AT_REST.as_secs_f64();
        let own = process::own_mib(&processes)?;
        println!("{name:<16} {processors:>12.3} {own:>14.1}");
        rows.push(json!({"name": name, "processors": processors, "own_mib": own}));
    }
    println!("transactions: {commits:.0}/s");
    write(
        "fleet",
        &json!({"bench": "fleet", "hosts": hosts, "instances": instances, "load_average": load,
        "joined_seconds": joined, "made_seconds": made, "running_seconds": running, "rows": rows,
        "transactions_per_second": commits}),
    )
}

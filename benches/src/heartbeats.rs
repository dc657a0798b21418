//! B8: what a heartbeat takes of processors, of agents that are connected by mutual TLS and send them as fast as they are
//! answered, beside an echo of as many bytes over the same TLS. And how often PostgreSQL has to write meanwhile.
//!
//! Of ours, the time of cumulo-api and of its PostgreSQL are counted; of the floor, that of its thread. Clients are on
//! neither side.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::compare::{Series, report};
use crate::control::Control;
use crate::echo::Echo;
use crate::estate::Size;
use crate::fleet::{SimulatedHost, heartbeat};
use crate::process;

const HOSTS: usize = 200;
const ROUND: Duration = Duration::from_secs(4);
/// What HTTP/2 puts around a message, about: two frames and a compressed head.
const HEAD: usize = 100;

pub(crate) async fn run(rounds: usize, size: Size) -> Result<()> {
    let hosts = size.hosts.unwrap_or(HOSTS);
    let (control, cloud) = Control::start().await?;
    let postgres = control.postgres()?;
    let (mut fleet, mut tasks) = (Vec::new(), JoinSet::new());
    for number in 0..hosts {
        fleet.push(SimulatedHost::join(&control, &cloud, number, 16, &mut tasks).await?);
    }
    // From now on each beats as fast as it can.
    tasks.shutdown().await;
    let first = fleet.first().map(|host| heartbeat(host.epoch())).into_iter();
    let bytes =
        HEAD + first.map(|beat| serde_json::to_vec(&beat).map_or(0, |body| body.len())).sum::<usize>();
    let echo = Echo::start(bytes).await?;
    let mut lines = Vec::new();
    for _ in 0..hosts {
        lines.push(echo.connect().await?);
    }

    let api = [control.process()?];
    let server = process::family(control.postgres_process()?)?;
    let syncs = "SELECT wal_sync FROM pg_stat_wal";
    let [mut ours, mut database, mut peer] =
        ["cumulo-api", "its PostgreSQL", "echo of as many bytes"].map(Series::new);
    let [mut rate, mut written] = ["heartbeats", "times that PostgreSQL writes to the disk"].map(Series::new);
    for _ in 0..rounds {
        let before = (process::cpu_seconds(&api)?, process::cpu_seconds(&server)?);
        let synced: f64 = postgres.psql(syncs)?.trim().parse()?;
        let started = Instant::now();
        let beats = beat(&fleet, started).await?;
        let elapsed = started.elapsed().as_secs_f64();
        let micros = |seconds: f64| seconds * 1e6 / beats;
        ours.values.push(micros(process::cpu_seconds(&api)? - before.0));
        database.values.push(micros(process::cpu_seconds(&server)? - before.1));
        rate.values.push(beats / elapsed);
        written.values.push((postgres.psql(syncs)?.trim().parse::<f64>()? - synced) / elapsed);

        let before = echo.cpu_seconds()?;
        let started = Instant::now();
        let answered = AtomicU64::new(0);
        let clients = lines.iter_mut().map(async |line| {
            let mut buffer = vec![0; bytes];
            while started.elapsed() < ROUND {
                line.write_all(&buffer).await?;
                line.flush().await?;
                line.read_exact(&mut buffer).await?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
        futures_util::future::try_join_all(clients).await?;
        peer.values.push((echo.cpu_seconds()? - before) * 1e6 / answered.load(Ordering::Relaxed) as f64);
    }
    report("b8", "µs of a processor", &ours, &peer)?;
    println!("\n{hosts} hosts, messages of {bytes} bytes");
    for (series, unit) in [(&database, "µs of a processor"), (&rate, "/s"), (&written, "/s")] {
        println!("{}: median {:.1} {unit}", series.name, series.median());
    }
    Ok(())
}

/// How many were answered.
async fn beat(fleet: &[SimulatedHost], started: Instant) -> Result<f64> {
    let answered = AtomicU64::new(0);
    let hosts = fleet.iter().map(async |host| {
        while started.elapsed() < ROUND {
            host.beat().await?;
            answered.fetch_add(1, Ordering::Relaxed);
        }
        anyhow::Ok(())
    });
    futures_util::future::try_join_all(hosts).await?;
    Ok(answered.load(Ordering::Relaxed) as f64)
}

//! All hosts of a fleet, from joining to their end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::host::SimulatedHost;
use super::joining::join_all;
use super::options::Options;
use super::report::Report;
use super::sharing;
use crate::agent::StateDir;
use crate::clock::{SharedClock, SystemClock};

/// Between the starts of two agents: not all of them ask at once, now or when they ask again.
const APART: Duration = Duration::from_millis(20);

/// Joins whoever has not joined, and is all of these hosts until `stop` is cancelled.
///
/// # Errors
/// When a host cannot join or be opened. A host that ends before its time is told and does not end the others.
pub async fn run(options: &Options, stop: CancellationToken) -> Result<()> {
    let faults = options.faults;
    ensure!(
        options.sharing.is_none() || faults.restart.is_none() && faults.silence.is_none(),
        "hosts that share pools have --ordeals, and neither restart nor silence among their --faults"
    );
    let _fleet = StateDir::take(&options.state_dir)?;
    let mut folders = Vec::with_capacity(options.hosts);
    for number in 1..=options.hosts {
        let name = options.name(number)?;
        let folder = StateDir::take(&options.state_dir.join(name.as_str()))?;
        folders.push((name, folder));
    }
    tokio::select! {
        joined = join_all(options, &folders) => joined?,
        () = stop.cancelled() => return Ok(()),
    }
    let mut hosts = Vec::with_capacity(folders.len());
    for (number, (name, folder)) in (1..).zip(folders) {
        let opened = SimulatedHost::open(options, number, name.clone(), folder);
        hosts.push(Arc::new(opened.with_context(|| format!("{name} cannot be simulated"))?));
    }
    tracing::info!(hosts = hosts.len(), "the fleet starts");
    let (ended, ordeals) = match options.sharing {
        Some(sharing) => (0, Some(sharing::run(options, sharing, &hosts, &stop).await?)),
        None => (be(&hosts, &stop).await, None),
    };
    let report = Report::of(&hosts, ordeals);
    tracing::info!("the fleet ends; {report}");
    if let Some(file) = &options.report {
        report.write(file)?;
    }
    match ended {
        0 => Ok(()),
        ended => bail!("{ended} hosts ended before their time"),
    }
}

/// Gives the number of hosts that ended before their time.
async fn be(hosts: &[Arc<SimulatedHost>], stop: &CancellationToken) -> usize {
    let clock: SharedClock = Arc::new(SystemClock);
    let mut tasks = JoinSet::new();
    for (number, host) in (0_u32..).zip(hosts) {
        let (host, clock, stop) = (Arc::clone(host), Arc::clone(&clock), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(APART * number) => {}
                () = stop.cancelled() => return true,
            }
            let ended = host.run(clock, stop).await;
            if let Err(error) = &ended {
                tracing::error!(host = %host.name, error = format!("{error:#}"), "a host ends");
            }
            ended.is_ok()
        });
    }
    tasks.join_all().await.into_iter().filter(|is_well| !is_well).count()
}

//! Groups of simulated hosts that share a pool, with a guard on each, and the ordeals that they go through.
//!
//! ```text
//! seed ──► ordeal ──► group ──► hosts: line, way to the pool, agent, guard, power
//!                       ▲         │
//!       verdict ◄── check ◄── history ◄── each beginning and end of a guest
//! ```
//! Guard and agent are the real ones, in real time: the guard's threads and its leases, the agent's tasks in a thread that can be
//! stopped. Guests are those of the simulated hypervisor, which knows nothing of other hosts: nothing but guards and control plane
//! keeps an instance from running twice.

mod check;
mod gate;
mod group;
mod history;
mod host;
mod lives;
mod machine;
mod ordeal;
mod pools;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

pub(super) use self::group::Ordeals;
use self::group::{Group, Seeds};
use super::host::SimulatedHost;
use super::options::Options;

/// Is these hosts in their groups until `stop` is cancelled.
pub(super) async fn run(
    options: &Options,
    sharing: usize,
    hosts: &[Arc<SimulatedHost>],
    stop: &CancellationToken,
) -> Result<Ordeals> {
    let seeds = Arc::new(Seeds::open(options)?);
    let mut groups = Vec::new();
    for (number, members) in (1..).zip(hosts.chunks(sharing)) {
        let group = Group::open(options, number, members, Arc::clone(&seeds));
        groups.push(group.with_context(|| format!("group {number} cannot be simulated"))?);
    }
    let threads = groups.into_iter().map(|group| {
        let stop = stop.clone();
        thread::Builder::new().name("group".to_owned()).spawn(move || group.run(&stop))
    });
    let threads = threads.collect::<Result<Vec<_>, _>>().context("no thread for a group")?;
    tracing::info!(groups = threads.len(), "the groups start");
    stop.cancelled().await;
    let ended = tokio::task::spawn_blocking(|| {
        threads.into_iter().try_for_each(|one| match one.join() {
            Ok(ended) => ended,
            Err(_) => anyhow::bail!("a group has panicked"),
        })
    });
    ended.await.context("the groups could not be waited for")??;
    Ok(seeds.told())
}

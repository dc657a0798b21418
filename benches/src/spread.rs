//! B15: a rule that is added to a group with 1,000 ports on 100 hosts: how long after the API's answer the last of
//! 99 simulated hosts has fetched its new document and the one real host has applied it, beside one `nft add element`.
//!
//! Everything shares this machine: the API, its PostgreSQL, 100 TLS connections and the parsing of 100 documents.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::compare::{Series, report};
use crate::control::Control;
use crate::estate::{self, Size};
use crate::fleet::{Heard, SimulatedHost, start_agent};
use crate::world::{Host, two_hosts};

const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) async fn run(rounds: usize, size: Size) -> Result<()> {
    let (hosts, ports) = (size.hosts.unwrap_or(100), size.ports);
    let last = hosts - 1;
    let [real, by_hand] = two_hosts()?;
    prepare_by_hand(&by_hand)?;
    let (control, cloud) = Control::start().await?;
    let (ears, heard) = mpsc::unbounded_channel();
    eprintln!("{hosts} hosts join");
    let (mut fleet, mut tasks) = (Vec::new(), JoinSet::new());
    for number in 0..last {
        fleet.push(SimulatedHost::join(&control, &cloud, number, 16, &mut tasks).await?);
    }
    let agent = start_agent(&control, &cloud, last, real, "192.0.2.1".parse()?, ears.clone()).await?;
    eprintln!("{ports} instances are made");
    let project = estate::make(&cloud, &control).await?;
    estate::fill(&project, 0..ports).await?;
    for host in fleet {
        tasks.spawn(host.listen(ears.clone()));
    }
    let mut fleet = Fleet { hosts, heard, latest: BTreeMap::new() };
    eprintln!("all hosts hear of them");
    fleet.until(|host| host.local_ports == ports / hosts && host.members == ports).await?;

    let mut all = Series::new("POST …/rules answered to all hosts told");
    let mut peer = Series::new("nft add element");
    let (mut fetched, mut applied) = (Vec::new(), Vec::new());
    let rules = project.path("/security_groups/fleet/rules");
    let before = fleet.latest.values().next().context("a host")?.rules;
    for round in 0..rounds {
        let rule = json!({"direction": "ingress", "protocol": "tcp", "port_first": 10_000 + round,
            "remote_cidr": "192.0.2.0/24"});
        let rule = cloud.post(&rules, rule).await?.success()?;
        let acknowledged = Instant::now();
        fleet.until(|host| host.rules == before + 1).await?;
        let took = |heard: &Heard| heard.at.saturating_duration_since(acknowledged).as_secs_f64() * 1e3;
        all.values.push(fleet.latest.values().map(took).fold(0.0, f64::max));
        fetched.extend(fleet.latest.values().filter(|heard| heard.host != last).map(took));
        applied.extend(fleet.latest.get(&last).map(took));
        peer.values.push(add_by_hand(&by_hand, round)?);
        let id = rule["id"].as_str().context("the rule has an id")?;
        cloud.delete(&format!("{rules}/{id}")).await?.success()?;
        fleet.until(|host| host.rules == before).await?;
    }
    report("b15", "ms", &all, &peer)?;
    quantiles("fetched, each simulated host", fetched);
    quantiles("applied, the real host", applied);
    quantiles("all hosts", all.values);
    tasks.shutdown().await;
    agent.stop().await
}

fn quantiles(name: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (values.len() as f64 * share).ceil() as usize;
        values.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    };
    println!("{name:<40} p50 {:>8.1}  p99 {:>8.1}  of {}", at(0.5), at(0.99), values.len());
}

/// The last word of each host.
struct Fleet {
    hosts: usize,
    heard: mpsc::UnboundedReceiver<Heard>,
    latest: BTreeMap<usize, Heard>,
}

impl Fleet {
    /// Waits until the last document of every host is as asked; of two such, the first counts.
    async fn until(&mut self, is_as_asked: impl Fn(&Heard) -> bool) -> Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.latest.len() < self.hosts || !self.latest.values().all(&is_as_asked) {
            let Ok(heard) = tokio::time::timeout_at(deadline, self.heard.recv()).await else {
                let late = self.latest.values().filter(|host| !is_as_asked(host)).map(|host| host.host);
                bail!("of {} hosts {:?} did not hear", self.latest.len(), late.collect::<Vec<_>>());
            };
            let heard = heard.context("no host listens")?;
            if !self.latest.get(&heard.host).is_some_and(|last| is_as_asked(last) && is_as_asked(&heard)) {
                self.latest.insert(heard.host, heard);
            }
        }
        Ok(())
    }
}

/// What one who knows nft would have made: a set of networks and ports.
fn prepare_by_hand(host: &Host) -> Result<()> {
    host.command("nft add table inet bench")?;
    host.command("nft add set inet bench allowed { type ipv4_addr . inet_service ; flags interval ; }")?;
    Ok(())
}

fn add_by_hand(host: &Host, round: usize) -> Result<f64> {
    let started = Instant::now();
    host.command(&format!("nft add element inet bench allowed {{ 192.0.2.0/24 . {} }}", 10_000 + round))?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    Ok(took)
}

//! Groups of simulated hosts that share a pool go through ordeals, with guests that migrate meanwhile, and no instance ever runs on
//! two hosts at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lab::{Fleet, Lab, LabOptions, Project, eventually, in_lab, roomy_project};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Hosts of a group.
const SHARING: usize = 3;
/// Of each group, and what becomes of them when their host dies.
type Guests = [(&'static str, &'static str); 3];
const GUESTS: Guests = [("one", "restart"), ("two", "restart"), ("three", "wait")];
const RESTARTING: Guests = [("one", "restart"), ("two", "restart"), ("three", "restart")];
/// Calls at once.
const CLIENTS: usize = 8;
/// In two of the four ordeals from this seed on, a host is alone for long.
const TELLING: u64 = 21;
/// Of an ordeal, in which its guests go to and fro; and the time between two that go, at least and at most, in seconds.
const WANDERING: Duration = Duration::from_secs(120);
const APART: Range<u64> = 5..20;
/// For one change.
const LIMIT: Duration = Duration::from_secs(300);
/// For one ordeal, until all run again.
const ORDEAL: Duration = Duration::from_secs(900);

/// So many groups of hosts, and who makes their guests.
struct Groups<'a> {
    fleet: &'a Fleet,
    project: &'a Project,
    clients: Semaphore,
    guests: Guests,
    count: usize,
    ordeals: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_instance_runs_on_two_hosts_at_once() -> Result<()> {
    in_lab(LabOptions { hosts: 0 }, async |lab| go_through(lab, 8, 1..9).await).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn a_thousand_ordeals_and_no_instance_runs_on_two_hosts_at_once() -> Result<()> {
    in_lab(LabOptions { hosts: 0 }, async |lab| go_through(lab, 48, 1000..2000).await).await
}

/// With guards that let live whom they should kill, it is found: the check can fail.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn instances_that_run_on_two_hosts_at_once_are_found() -> Result<()> {
    in_lab(LabOptions { hosts: 0 }, async |lab| {
        let mut fleet = start(lab, 4, &(TELLING..TELLING + 4), &["--toothless-guards"]).await?;
        let project = roomy_project(&lab.cloud, "ordeals").await?;
        let groups = Groups { guests: RESTARTING, ..Groups::new(&fleet, &project, 4, 4) };
        groups.make_pools().await?;
        stream::iter(1..=4).map(Ok).try_for_each_concurrent(None, |group| groups.create(group, 1)).await?;
        eventually("two at once to be found", ORDEAL, async || {
            let ordeals = fleet.ordeals()?;
            let found = |line: &Value| line["findings"].as_array().is_some_and(|all| !all.is_empty());
            ensure!(ordeals.iter().any(found), "{ordeals:?}");
            Ok(())
        })
        .await?;
        let report = fleet.end().await?;
        let findings = report["ordeals"]["findings"].as_array().context("no findings")?;
        ensure!(findings.iter().any(|one| one[1]["finding"] == "two_at_once"), "{report}");
        Ok(())
    })
    .await
}

async fn start(lab: &Lab, groups: usize, seeds: &Range<u64>, more: &[&str]) -> Result<Fleet> {
    let (sharing, guests) = (SHARING.to_string(), GUESTS.len().to_string());
    let (seed, ordeals) = (seeds.start.to_string(), (seeds.end - seeds.start).to_string());
    let options = ["--sharing", &sharing, "--guests", &guests, "--seed", &seed, "--ordeals", &ordeals];
    Fleet::start(&lab.control, &lab.cloud, groups * SHARING, &[&options[..], more].concat()).await
}

async fn go_through(lab: &Lab, count: usize, seeds: Range<u64>) -> Result<()> {
    let ordeals = usize::try_from(seeds.end - seeds.start)?;
    let mut fleet = start(lab, count, &seeds, &[]).await?;
    let project = roomy_project(&lab.cloud, "ordeals").await?;
    let groups = Groups::new(&fleet, &project, count, ordeals);
    groups.make_pools().await?;
    let through = stream::iter(1..=count).map(Ok);
    through.try_for_each_concurrent(None, |group| groups.go_through(group)).await?;

    eventually("the control plane to find nothing", LIMIT, async || {
        let findings = lab.control.findings()?;
        ensure!(findings.is_empty(), "{findings:#?}");
        Ok(())
    })
    .await?;
    let told = fleet.ordeals()?;
    let report = fleet.end().await?;
    println!("{}", report["ordeals"]);
    let bad: Vec<_> =
        told.iter().filter(|line| line["findings"] != json!([]) || line["recovered"] != true).collect();
    let history =
        bad.first().map(|line| fleet.history(line["group"].as_str().unwrap_or_default())).transpose()?;
    ensure!(bad.is_empty(), "{bad:#?}\nthe history of the first:\n{}", history.unwrap_or_default());
    ensure!(report["ordeals"]["done"] == ordeals, "{report}");
    for moved in ["moved", "migrated"] {
        ensure!(report["ordeals"][moved].as_u64().is_some_and(|guests| guests > 0), "{moved}: {report}");
    }
    Ok(())
}

impl<'a> Groups<'a> {
    fn new(fleet: &'a Fleet, project: &'a Project, count: usize, ordeals: usize) -> Self {
        Self { fleet, project, clients: Semaphore::new(CLIENTS), guests: GUESTS, count, ordeals }
    }

    /// The hosts have them already; the control plane is told.
    async fn make_pools(&self) -> Result<()> {
        let cloud = &self.project.cloud;
        let pools = stream::iter(1..=self.count).map(Ok);
        pools
            .try_for_each_concurrent(CLIENTS, async |group| {
                let name = pool_name(group);
                cloud.post("/v1/pools", json!({"name": name, "low_percent": 0})).await?.success()?;
                eventually(format!("{SHARING} hosts to have {name}"), LIMIT, async || {
                    let pool = cloud.get(&format!("/v1/pools/{name}")).await?.success()?;
                    ensure!(pool["hosts"] == SHARING, "{pool}");
                    Ok(())
                })
                .await
            })
            .await
    }

    /// With guests of its own for each ordeal, until there is none left.
    async fn go_through(&self, group: usize) -> Result<()> {
        for turn in 1.. {
            self.create(group, turn).await?;
            let over = eventually(format!("ordeal {turn} of group {group}"), ORDEAL, async || {
                let done = self.done()?;
                let all: usize = done.values().sum();
                let own = done.get(&pool_name(group)).copied().unwrap_or_default();
                ensure!(own >= turn || all >= self.ordeals, "{own} of {all} are done");
                Ok(all >= self.ordeals)
            });
            let is_over = tokio::select! {
                is_over = over => is_over?,
                Err(error) = self.wander(group, turn) => return Err(error),
            };
            self.delete(group, turn).await?;
            if is_over {
                break;
            }
        }
        Ok(())
    }

    /// Guests go to another host while they run, whatever becomes of them: a fault may be in the way.
    async fn wander(&self, group: usize, turn: usize) -> Result<()> {
        let begins = format!("ordeal {turn} of group {group} to begin");
        eventually(begins, ORDEAL, async || {
            ensure!(self.fleet.begun(&pool_name(group))? >= turn, "it has not");
            Ok(())
        })
        .await?;
        let (begun, mut dice) = (Instant::now(), StdRng::seed_from_u64((group * 1000 + turn) as u64));
        while begun.elapsed() < WANDERING {
            tokio::time::sleep(Duration::from_secs(dice.random_range(APART))).await;
            let (guest, _) = self.guests[dice.random_range(0..self.guests.len())];
            let path = format!("/instances/{}/migrate", guest_name(group, turn, guest));
            let _turn = self.clients.acquire().await?;
            let answer = self.project.cloud.post(&self.project.path(&path), json!({})).await?;
            ensure!(answer.status < 500, "{answer:?}");
        }
        Ok(())
    }

    /// How many ordeals each group has behind it.
    fn done(&self) -> Result<BTreeMap<String, usize>> {
        self.fleet.process.process()?;
        let mut done = BTreeMap::new();
        for line in self.fleet.ordeals()? {
            *done.entry(line["group"].as_str().context("no group")?.to_owned()).or_default() += 1;
        }
        Ok(done)
    }

    async fn create(&self, group: usize, turn: usize) -> Result<()> {
        for (guest, on_host_failure) in self.guests {
            let name = guest_name(group, turn, guest);
            let body = json!({"name": name, "image": "nothing", "instance_type": "small",
                "root_volume": {"pool": pool_name(group)}, "on_host_failure": on_host_failure,
                "networks": [{"network": "fleet"}]});
            eventually(format!("{name} to be accepted"), LIMIT, async || {
                let _turn = self.clients.acquire().await?;
                let answer = self.project.cloud.post(&self.project.path("/instances"), body.clone()).await?;
                // An answer may have been lost.
                ensure!(answer.status == 409 || answer.status == 202, "{answer:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn delete(&self, group: usize, turn: usize) -> Result<()> {
        for (guest, _) in self.guests {
            let name = guest_name(group, turn, guest);
            let path = self.project.path(&format!("/instances/{name}"));
            eventually(format!("{name} to be deleted"), LIMIT, async || {
                let _turn = self.clients.acquire().await?;
                let answer = self.project.cloud.delete(&path).await?;
                ensure!(answer.status == 404 || answer.success().is_ok(), "it is not");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

fn pool_name(group: usize) -> String {
    format!("shared-{group:03}")
}

fn guest_name(group: usize, turn: usize, guest: &str) -> String {
    format!("g{group}-{turn}-{guest}")
}

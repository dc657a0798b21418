//! What a cloud takes that nobody changes, or of which little changes: `fleet` with many instances, and B9 with ever more hosts.
//! The hosts are the product's agents, simulated in one process; all share this machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{Cloud, Project};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::compare::{load_average, write};
use crate::control::Control;
use crate::estate::{self, Size};
use crate::postgres::Postgres;
use crate::process;
use crate::simulated::Simulation;

/// Before a cloud is at rest.
const SETTLE: Duration = Duration::from_secs(15);
/// How long it is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// Making many takes long on a small machine.
const PATIENCE: Duration = Duration::from_secs(7200);
/// Hosts of B9.
const SIZES: [usize; 3] = [1000, 3000, 10_000];
/// One in so many instances is replaced while B9 looks.
const CHURN: usize = 100;

/// A control plane with hosts and instances of its own.
struct Estate {
    control: Control,
    cloud: Cloud,
    postgres: Postgres,
    project: Project,
    simulation: Simulation,
    /// What it took to make it, in seconds.
    made: BTreeMap<&'static str, f64>,
}

/// What its processes took meanwhile.
struct Cost {
    /// Of the control plane and its PostgreSQL, in processors.
    control_plane: f64,
    rows: Vec<Value>,
    transactions_per_second: f64,
}

impl Estate {
    async fn make(hosts: usize, instances: usize) -> Result<Self> {
        let (control, cloud) = Control::start().await?;
        let (postgres, started) = (control.postgres()?, Instant::now());
        let simulation = Simulation::start(&control, &cloud, hosts).await?;
        let mut made = BTreeMap::new();
        let mut tell = |what, since: Instant| {
            let seconds = since.elapsed().as_secs_f64();
            eprintln!("{what} after {seconds:.0} s");
            made.insert(what, seconds);
        };
        eprintln!("{hosts} hosts, {instances} instances");
        tell("hosts are ready", started);
        let project = estate::make(&cloud, &control).await?;
        let started = Instant::now();
        estate::fill_bare(&project, 0..instances).await?;
        tell("instances are made", started);
        estate::until_running(&postgres, instances, PATIENCE).await?;
        tell("instances run", started);
        tokio::time::sleep(SETTLE).await;
        Ok(Self { control, cloud, postgres, project, simulation, made })
    }

    /// Measures while something else goes on, or nothing.
    async fn cost(&self, what: &str, meanwhile: impl Future<Output = Result<()>>) -> Result<Cost> {
        let server = process::family(self.control.postgres_process()?)?;
        let all = [
            ("cumulo-api", vec![self.control.process()?]),
            ("PostgreSQL", server),
            ("agents", vec![self.simulation.process()?]),
        ];
        let before = all.each_ref().map(|(_, processes)| process::cpu_seconds(processes));
        let (commits_before, started) = (self.commits()?, Instant::now());
        let ((), done) = tokio::join!(tokio::time::sleep(LOOK), meanwhile);
        done?;
        let elapsed = started.elapsed().as_secs_f64();
        let transactions_per_second = (self.commits()? - commits_before) / elapsed;
        println!("\n{what:<16} {:>12} {:>14}", "processors", "own MiB");
        let (mut rows, mut control_plane) = (Vec::new(), 0.0);
        for ((name, processes), before) in all.into_iter().zip(before) {
            let processors = (process::cpu_seconds(&processes)? - before?) / elapsed;
            let own = process::own_mib(&processes)?;
            println!("{name:<16} {processors:>12.3} {own:>14.1}");
            rows.push(json!({"name": name, "processors": processors, "own_mib": own}));
            if name != "agents" {
                control_plane += processors;
            }
        }
        println!("transactions: {transactions_per_second:.0}/s");
        Ok(Cost { control_plane, rows, transactions_per_second })
    }

    fn commits(&self) -> Result<f64> {
        let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        Ok(self.postgres.psql(sql)?.trim().parse()?)
    }

    /// Replaces so many instances, evenly in the time that is looked.
    async fn replace(&self, first: usize, count: usize) -> Result<()> {
        let mut turns = tokio::time::interval(LOOK / u32::try_from(count.max(1))?);
        turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0..count {
            turns.tick().await;
            let path = self.project.path(&format!("/instances/bare-{number}"));
            self.cloud.delete(&path).await?.success()?;
            self.project.create(estate::bare_instance(first + number)).await?;
        }
        Ok(())
    }
}

/// What the control plane takes with many hosts and instances at rest.
pub(crate) async fn fleet(size: Size) -> Result<()> {
    let (hosts, instances) = (size.hosts.unwrap_or(1000), size.instances.unwrap_or(20_000));
    let estate = Estate::make(hosts, instances).await?;
    let cost = estate.cost("at rest", std::future::ready(Ok(()))).await?;
    let load = load_average()?;
    println!("{hosts} hosts, {instances} instances, load average {load}");
    let document = json!({"bench": "fleet", "hosts": hosts, "instances": instances, "load_average": load,
        "made_seconds": estate.made, "rows": cost.rows,
        "transactions_per_second": cost.transactions_per_second});
    write("fleet", &document)
}

/// B9: as many hosts as instances, at rest and while one of a hundred instances is replaced within a minute; what a host takes,
/// beside what it takes among the fewest.
pub(crate) async fn hosts(size: Size) -> Result<()> {
    let largest = size.hosts.unwrap_or(SIZES[SIZES.len() - 1]);
    let mut points: Vec<(usize, [Cost; 2])> = Vec::new();
    for hosts in SIZES.into_iter().filter(|hosts| *hosts <= largest) {
        let estate = Estate::make(hosts, hosts).await?;
        let rest = estate.cost("at rest", std::future::ready(Ok(()))).await?;
        let churn = estate.cost("1 % replaced", estate.replace(hosts, hosts / CHURN)).await?;
        points.push((hosts, [rest, churn]));
    }
    let load = load_average()?;
    println!("\nb9, processors of cumulo-api and PostgreSQL, load average {load}\n");
    let (smallest, least) = points.first().context("--hosts is at least 1000")?;
    let mut rows = Vec::new();
    for (hosts, costs) in &points {
        // 1.0 is linear.
        let slopes: Vec<_> = (costs.iter().zip(least))
            .map(|(cost, least)| {
                (cost.control_plane / *hosts as f64) / (least.control_plane / *smallest as f64)
            })
            .collect();
        let [rest, churn] = costs.each_ref().map(|cost| cost.control_plane);
        println!(
            "{hosts:>6} hosts   at rest {rest:>6.3} ({:.2} of linear)   1 % replaced {churn:>6.3} ({:.2})",
            slopes[0], slopes[1]
        );
        let of =
            |cost: &Cost| json!({"rows": cost.rows, "transactions_per_second": cost.transactions_per_second});
        rows.push(
            json!({"hosts": hosts, "at_rest": of(&costs[0]), "churn": of(&costs[1]), "of_linear": slopes}),
        );
    }
    write("b9", &json!({"bench": "b9", "load_average": load, "rows": rows}))
}

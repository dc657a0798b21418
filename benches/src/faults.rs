//! B17: what a user's client sees of the death of cumulo-api, of PostgreSQL and of the agents, beside a time in which
//! nothing dies. It reads and changes an instance in turn, 50 times a second, and tries nothing again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::FutureExt;
use lab::{Cloud, Project};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::json;

use crate::compare::{Series, report_all};
use crate::control::Control;
use crate::estate;
use crate::postgres::Postgres;
use crate::simulated::Simulation;

const HOSTS: usize = 10;
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(9);
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn run(rounds: usize) -> Result<()> {
    let (mut control, cloud) = Control::start().await?;
    let postgres = control.postgres()?;
    let mut simulation = Simulation::start(&control, &cloud, HOSTS).await?;
    let project = estate::make(&cloud, &control).await?;
    estate::fill(&project, 0..HOSTS).await?;
    estate::until_running(&postgres, HOSTS, PATIENCE).await?;

    let [mut nothing, mut api, mut agents, mut database, mut recovery] = [
        "nothing dies",
        "cumulo-api dies",
        "all agents die",
        "PostgreSQL dies",
        "until psql is answered again",
    ]
    .map(Series::new);
    let mut slowest = [0.0_f64; 4];
    for _ in 0..rounds {
        for (index, fault) in
            [Fault::Nothing, Fault::Api, Fault::Agents, Fault::Postgres].into_iter().enumerate()
        {
            let inject = async {
                tokio::time::sleep(BEFORE).await;
                match fault {
                    Fault::Nothing => {}
                    Fault::Api => control.crash().await?,
                    Fault::Agents => simulation.crash().await?,
                    Fault::Postgres => recovery.values.push(kill_postgres(&control, &postgres).await?),
                }
                anyhow::Ok(())
            };
            let (seen, injected) = tokio::join!(ask(&cloud, &project), inject.boxed());
            injected?;
            let series = match fault {
                Fault::Nothing => &mut nothing,
                Fault::Api => &mut api,
                Fault::Agents => &mut agents,
                Fault::Postgres => &mut database,
            };
            series.values.push(seen.errors_for());
            slowest[index] = slowest[index].max(seen.slowest);
        }
    }
    report_all(
        "b17",
        "s from the first error to the last",
        &[&nothing, &api, &agents, &database, &recovery],
    )?;
    for (series, slowest) in [&nothing, &api, &agents, &database].into_iter().zip(slowest) {
        println!("{:<52} slowest answer {slowest:.2} s", series.name);
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Fault {
    Nothing,
    Api,
    Agents,
    Postgres,
}

/// What the client saw.
#[derive(Default)]
struct Seen {
    first_error: Option<Instant>,
    last_error: Option<Instant>,
    /// Seconds, of an answer that was none of those.
    slowest: f64,
}

impl Seen {
    /// From the call that first failed to the end of the last that did, in seconds.
    fn errors_for(&self) -> f64 {
        self.first_error.zip(self.last_error).map_or(0.0, |(first, last)| (last - first).as_secs_f64())
    }
}

async fn ask(cloud: &Cloud, project: &Project) -> Seen {
    let path = project.path("/instances/fleet-0");
    let (started, mut seen, mut count) = (Instant::now(), Seen::default(), 0_u32);
    while started.elapsed() < BEFORE + AFTER {
        let asked = Instant::now();
        count += 1;
        let answer = match count % 2 {
            0 => cloud.get(&path).await,
            _ => {
                let change = json!({"description": format!("change {count}")});
                cloud.send(Method::PATCH, &path, &HeaderMap::new(), Some(change)).await
            }
        };
        if answer.is_ok_and(|answer| (200..300).contains(&answer.status)) {
            seen.slowest = seen.slowest.max(asked.elapsed().as_secs_f64());
        } else {
            seen.first_error.get_or_insert(asked);
            seen.last_error = Some(Instant::now());
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

/// Kills the first process of PostgreSQL, which takes the others with it. Seconds until a new connection is answered.
async fn kill_postgres(control: &Control, postgres: &Postgres) -> Result<f64> {
    let pid = control.postgres_process()?.cast_signed();
    let killed = Instant::now();
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    tokio::time::sleep(PAUSE).await;
    loop {
        let connected = async {
            let mut connection = postgres.connect().await?;
            sqlx::query("SELECT 1").execute(&mut connection).await
        };
        if connected.await.is_ok() {
            return Ok(killed.elapsed().as_secs_f64());
        }
        ensure!(killed.elapsed() < PATIENCE, "PostgreSQL does not come back");
        tokio::time::sleep(PAUSE).await;
    }
}

//! B2: how many instances 32 clients make in a second, on 100 simulated hosts, beside pgbench with as many statements and
//! rows as one POST has in its transaction, 32 at once, too.
//!
//! Ours also authenticates, authorises and validates; and while clients make instances, the same machine places them, tells
//! their hosts, takes the hosts' reports, and numbers events and audit records. The floor has none of that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::Project;

use crate::compare::{Series, report};
use crate::control::Control;
use crate::estate::{self, Size};
use crate::postgres::Postgres;
use crate::simulated::Simulation;

const HOSTS: usize = 100;
const CLIENTS: usize = 32;
const ROUND: Duration = Duration::from_secs(5);
/// Until what was made has been placed and runs, so that the floor has the machine for itself.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn run(rounds: usize, size: Size) -> Result<()> {
    let (control, cloud) = Control::start().await?;
    let postgres = control.postgres()?;
    let simulation = Simulation::start(&control, &cloud, size.hosts.unwrap_or(HOSTS)).await?;
    let project = estate::make(&cloud, &control).await?;
    let script = prepare(&control, &postgres)?;
    let next = AtomicUsize::new(0);
    let mut ours = Series::new("POST …/instances, a disk and a card each");
    let mut peer = Series::new("pgbench, 29 statements that write 26 rows");
    let mut to_run = Series::new("until all of a round run, from its begin");
    for _ in 0..rounds {
        let started = Instant::now();
        ours.values.push(make(&project, &next).await?);
        let made = next.load(Ordering::Relaxed);
        estate::until_running(&postgres, made, PATIENCE).await?;
        to_run.values.push(started.elapsed().as_secs_f64());
        peer.values.push(postgres.pgbench_tps(CLIENTS, ROUND, &["-f", &script])?);
    }
    report("b2", "creates/s", &ours, &peer)?;
    println!("{}: median {:.1} s", to_run.name, to_run.median());
    drop(simulation);
    Ok(())
}

/// Instances per second.
async fn make(project: &Project, next: &AtomicUsize) -> Result<f64> {
    let started = Instant::now();
    let before = next.load(Ordering::Relaxed);
    let clients = (0..CLIENTS).map(|_| async {
        while started.elapsed() < ROUND {
            project.create(estate::instance(next.fetch_add(1, Ordering::Relaxed))).await?;
        }
        anyhow::Ok(())
    });
    futures_util::future::try_join_all(clients).await?;
    Ok((next.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64())
}

/// As counted of one POST by PostgreSQL's own log and `pg_stat_user_tables`: 19 statements that read, 8 that insert 17 rows,
/// and 2 that change others, six of which are what the project uses and so everybody's.
fn prepare(control: &Control, postgres: &Postgres) -> Result<String> {
    postgres.psql(
        "CREATE TABLE bench_read (id integer PRIMARY KEY, payload text);
         INSERT INTO bench_read SELECT n, repeat('x', 200) FROM generate_series(1, 10000) n;
         CREATE TABLE bench_written (id bigserial PRIMARY KEY, other uuid DEFAULT gen_random_uuid(), payload text);
         CREATE UNIQUE INDEX bench_written_other ON bench_written (other);
         CREATE TABLE bench_used (id integer PRIMARY KEY, used bigint);
         INSERT INTO bench_used SELECT n, 0 FROM generate_series(1, 6) n;
         ANALYZE bench_read",
    )?;
    let read = |statements| "SELECT payload FROM bench_read WHERE id = :id;\n".repeat(statements);
    let insert = |rows, statements| {
        let one = "INSERT INTO bench_written (payload) SELECT repeat('y', 200)";
        format!("{one} FROM generate_series(1, {rows});\n").repeat(statements)
    };
    let statements = [
        "\\set id random(1, 10000)\nBEGIN;\n",
        &read(10),
        &insert(2, 3),
        // In one order, or they would wait for each other in a circle.
        "UPDATE bench_used SET used = used + 1 WHERE id IN (SELECT id FROM bench_used ORDER BY id FOR UPDATE);\n",
        "UPDATE bench_read SET payload = repeat('z', 200) WHERE id = :id;\n",
        &insert(2, 4),
        &insert(3, 1),
        &read(9),
        "COMMIT;\n",
    ];
    let path = format!("{}/create.sql", control.path()?);
    std::fs::write(&path, statements.concat())?;
    Ok(path)
}

//! B4: a project of 25,000 instances, each with a disk and a card: a page of 500 of them, and all pages one after the
//! other, beside the same rows as JSON straight from PostgreSQL.
//!
//! Both sides are one client in this process, on one connection. Ours signs in, is authorised, and gets HTTP; the floor
//! sends SQL. All instances are promised to one host, which is heard of and makes none of them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Cloud, Project};
use sqlx::PgConnection;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::compare::{Series, report};
use crate::control::Control;
use crate::estate::{self, Size};
use crate::fleet::SimulatedHost;
use crate::postgres::Postgres;

const PAGE: usize = 500;
/// A vCPU each, of which a host offers four per processor.
const INSTANCES_OF_CPU: usize = 4;
const PATIENCE: Duration = Duration::from_secs(1200);

pub(crate) async fn run(rounds: usize, size: Size) -> Result<()> {
    let count = size.instances.unwrap_or(25_000);
    let (control, cloud) = Control::start().await?;
    let postgres = control.postgres()?;
    let mut tasks = JoinSet::new();
    let cpus = u32::try_from(count / INSTANCES_OF_CPU + 16)?;
    SimulatedHost::join(&control, &cloud, 0, cpus, &mut tasks).await?;
    let project = estate::make(&cloud, &control).await?;
    eprintln!("{count} instances are made");
    let started = Instant::now();
    estate::fill(&project, 0..count).await?;
    eprintln!("that took {:.0} s; all are placed", started.elapsed().as_secs_f64());
    until_placed(&postgres, count).await?;
    postgres.psql("ANALYZE")?;

    let mut floor = postgres.connect().await?;
    let [mut page, mut page_floor] = [Series::new("GET …/instances?limit=500"), Series::new("one SELECT")];
    let [mut walk, mut walk_floor] = [Series::new("GET of all pages"), Series::new("a SELECT for each page")];
    for _ in 0..rounds {
        page.values.push(timed(async || ours(&cloud, &project, 1).await).await?);
        page_floor.values.push(timed(async || straight(&mut floor, 1).await).await?);
    }
    for _ in 0..rounds {
        walk.values.push(timed(async || all(count, ours(&cloud, &project, usize::MAX).await?)).await?);
        walk_floor.values.push(timed(async || all(count, straight(&mut floor, usize::MAX).await?)).await?);
    }
    report("b4-page", "ms", &page, &page_floor)?;
    report("b4-walk", "ms", &walk, &walk_floor)?;
    tasks.shutdown().await;
    Ok(())
}

async fn until_placed(postgres: &Postgres, count: usize) -> Result<()> {
    let started = Instant::now();
    loop {
        let placed = postgres.psql("SELECT count(*) FROM instances WHERE host_id IS NOT NULL")?;
        if placed.trim().parse::<usize>()? == count {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "only {} of {count} are placed", placed.trim());
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Milliseconds.
async fn timed(work: impl AsyncFnOnce() -> Result<usize>) -> Result<f64> {
    let started = Instant::now();
    let found = work().await?;
    ensure!(found > 0, "nothing was listed");
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

fn all(count: usize, found: usize) -> Result<usize> {
    ensure!(found == count.div_ceil(PAGE), "{found} pages hold {count} instances");
    Ok(found)
}

/// Reads at most so many pages; gives how many there were.
async fn ours(cloud: &Cloud, project: &Project, pages: usize) -> Result<usize> {
    let first = project.path(&format!("/instances?limit={PAGE}"));
    let (mut path, mut read) = (first.clone(), 0);
    while read < pages {
        let body = String::from_utf8(cloud.get_bytes(&path).await?)?;
        read += 1;
        // It comes last, and no text of an instance holds quotation marks.
        let Some((_, rest)) = body.rsplit_once(r#""next_cursor":""#) else { break };
        path = format!("{first}&cursor={}", rest.split('"').next().unwrap_or_default());
    }
    Ok(read)
}

/// What a list says of an instance, as far as it is in columns.
const ROWS: &str = "
    WITH page AS (SELECT id FROM instances
                  WHERE project_id = (SELECT id FROM projects WHERE name = 'bench') AND id > $1
                  ORDER BY id LIMIT $2),
         listed AS (
             SELECT i.id, i.name, i.description, i.labels, i.on_host_failure, i.delete_protection, i.shown_state,
                    i.observed_detail, i.image_id, m.name AS image, i.instance_type_id, t.name AS instance_type,
                    i.architecture, i.firmware, i.vcpus, i.memory_mib, i.hostname, i.key_pairs,
                    i.placement_group_id, g.name AS placement_group, instance_volumes(i.id) AS volumes,
                    instance_nics(i.id) AS nics, i.host_id, h.name AS host, i.operation_id, o.kind, o.status,
                    i.generation, i.stop_at, i.delete_at, i.created_at, i.updated_at
             FROM instances i
             JOIN images m ON m.id = i.image_id
             JOIN instance_types t ON t.id = i.instance_type_id
             JOIN operations o ON o.id = i.operation_id
             LEFT JOIN placement_groups g ON g.id = i.placement_group_id
             LEFT JOIN hosts h ON h.id = i.host_id
             WHERE i.id IN (SELECT id FROM page))
    SELECT coalesce(json_agg(listed ORDER BY listed.id), '[]')::text, count(*), max(id::text) FROM listed";

/// The same from PostgreSQL.
async fn straight(floor: &mut PgConnection, pages: usize) -> Result<usize> {
    let (mut after, mut read) = (Uuid::nil(), 0);
    while read < pages {
        let rows = sqlx::query_as(ROWS).bind(after).bind(i64::try_from(PAGE)?);
        let (_json, count, last): (String, i64, Option<String>) = rows.fetch_one(&mut *floor).await?;
        let Some(last) = last else { break };
        read += 1;
        if count < i64::try_from(PAGE)? {
            break;
        }
        after = last.parse()?;
    }
    Ok(read)
}

//! A project with many instances.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use futures_util::{StreamExt, TryStreamExt, stream};
use lab::{Cloud, Project};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::control::Control;
use crate::postgres::Postgres;

const CLIENTS: usize = 8;

/// How large the cloud is.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Size {
    /// Hosts of B2, B8, B9 (at most), B15 (one of them real; a divisor of the number of ports), B16 and the fleet; 100, 200,
    /// 10,000, 100, 1000 and 1000 unless given.
    #[arg(long)]
    pub hosts: Option<usize>,
    /// Ports in the group of B15.
    #[arg(long, default_value_t = 1000)]
    pub ports: usize,
    /// Instances of B4 and the fleet; 25,000 and 20,000 unless given.
    #[arg(long)]
    pub instances: Option<usize>,
}

/// What instances need: a network, a group whose members may meet, an image, a type, and no quotas.
pub(crate) async fn make(cloud: &Cloud, control: &Control) -> Result<Project> {
    let project = cloud.project("bench").await?;
    const ENOUGH: u32 = 10_000_000;
    let unlimited = json!({"instances": ENOUGH, "vcpus": ENOUGH, "memory_mib": ENOUGH, "disk_gib": ENOUGH,
        "ports": ENOUGH, "volumes": ENOUGH});
    cloud
        .send(Method::PATCH, &project.path("/quotas"), &HeaderMap::new(), Some(unlimited))
        .await?
        .success()?;
    cloud.post(&project.path("/networks"), json!({"name": "fleet"})).await?.success()?;
    let subnet = json!({"name": "fleet", "network": "fleet", "cidr": "10.20.0.0/16"});
    cloud.post(&project.path("/subnets"), subnet).await?.success()?;
    cloud.post(&project.path("/security_groups"), json!({"name": "fleet"})).await?.success()?;
    let meet = json!({"direction": "ingress", "protocol": "any", "remote_group": "fleet"});
    cloud.post(&project.path("/security_groups/fleet/rules"), meet).await?.success()?;

    let file = control.folder.path().join("image.raw");
    std::fs::write(&file, vec![0; 1 << 20])?;
    let image = json!({"name": "nothing", "format": "raw"});
    cloud.post(&project.path("/images"), image).await?.success()?;
    let file = Utf8Path::from_path(&file).context("a path of text")?;
    project.upload(&project.path("/images/nothing"), file).await?.success()?;
    cloud.instance_type("small", 1, 256, 1).await?;
    Ok(project)
}

/// The body of a new instance in that group.
pub(crate) fn instance(number: usize) -> Value {
    json!({"name": format!("fleet-{number}"), "image": "nothing", "instance_type": "small",
        "networks": [{"network": "fleet", "security_groups": ["fleet"]}]})
}

/// Makes the instances of these numbers in that group.
pub(crate) async fn fill(project: &Project, numbers: Range<usize>) -> Result<()> {
    let made = stream::iter(numbers).map(|number| project.create(instance(number)));
    made.buffer_unordered(CLIENTS).try_for_each(|_| std::future::ready(Ok(()))).await
}

/// The body of a new instance without a network card.
pub(crate) fn bare_instance(number: usize) -> Value {
    json!({"name": format!("bare-{number}"), "image": "nothing", "instance_type": "small", "networks": []})
}

/// The same for instances without network cards: what hosts are told of a network grows with all that are in it.
pub(crate) async fn fill_bare(project: &Project, numbers: Range<usize>) -> Result<()> {
    let made = stream::iter(numbers).map(|number| project.create(bare_instance(number)));
    made.buffer_unordered(CLIENTS).try_for_each(|_| std::future::ready(Ok(()))).await
}

/// Waits until so many instances run; says now and then how many do.
pub(crate) async fn until_running(postgres: &Postgres, count: usize, patience: Duration) -> Result<()> {
    let started = Instant::now();
    loop {
        let running = postgres.psql("SELECT count(*) FROM instances WHERE shown_state = 'running'")?;
        if running.trim().parse::<usize>()? >= count {
            return Ok(());
        }
        ensure!(started.elapsed() < patience, "only {} of {count} instances run", running.trim());
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

//! What every fresh cloud starts with: project `demo`, image `cumulo-test`, type `tiny`, address pool `public`,
//! instance `hello`.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::cloud::{Cloud, Project};
use crate::guest::{self, Guest};

pub(crate) const PROJECT: &str = "demo";
pub(crate) const IMAGE: &str = "cumulo-test";
pub(crate) const INSTANCE_TYPE: &str = "tiny";
pub(crate) const ADDRESS_POOL: &str = "public";
pub(crate) const INSTANCE: &str = "hello";

/// For documentation (RFC 5737), so nobody on the internet is called so. This machine alone knows the way.
const PUBLIC_ADDRESSES: &str = "203.0.113.0/24";

/// Serves a page at port 80.
const HELLO_SCRIPT: &str = include_str!("hello.sh");

/// What the fast guest says when it has done all that its seed asks for.
pub(crate) const GUEST_READY: &str = "cumulo-test: ready";

const BOOT: Duration = Duration::from_secs(120);

/// Project, image and type; makes what is missing.
pub(crate) async fn ensure_catalogue(cloud: &Cloud) -> Result<Project> {
    let project = cloud.project(PROJECT).await?;
    let image = tokio::task::spawn_blocking(|| guest::cached(Guest::Fast)).await??;
    project.image(IMAGE, &image).await?;
    cloud.instance_type(INSTANCE_TYPE, 1, 256, 1).await?;
    ensure_address_pool(cloud).await?;
    Ok(project)
}

async fn ensure_address_pool(cloud: &Cloud) -> Result<()> {
    let found = cloud.get(&format!("/v1/address_pools/{ADDRESS_POOL}")).await?;
    if found.status == 404 {
        let body =
            json!({"name": ADDRESS_POOL, "cidr": PUBLIC_ADDRESSES, "description": "On this machine alone"});
        cloud.post("/v1/address_pools", body).await?.success()?;
    } else {
        found.success()?;
    }
    Ok(())
}

/// The instance `hello`, running and ready; says what was done. `stopped` is what `down` has stopped: if somebody else has
/// stopped `hello`, it is left alone.
pub(crate) async fn ensure_instance(project: &Project, stopped: &[String]) -> Result<String> {
    let found = project.cloud.get(&project.path(&format!("/instances/{INSTANCE}"))).await?;
    let (instance, boots) = if found.status == 404 {
        let body = json!({
            "name": INSTANCE, "image": IMAGE, "instance_type": INSTANCE_TYPE, "user_data": HELLO_SCRIPT,
        });
        (project.create(body).await?, 1)
    } else {
        let found = found.success()?;
        let instance = project.instance(&found)?;
        if found["state"] == "running" {
            return Ok("runs already".to_owned());
        }
        if found["state"] == "error" {
            let why = found["state_detail"].as_str().unwrap_or("nothing is known of why");
            return Ok(format!("is in error: {why} `make up` makes another one when it is deleted"));
        }
        let by_down = stopped.iter().any(|path| *path == format!("{PROJECT}/{INSTANCE}"));
        if let Some(state @ ("stopping" | "stopped" | "paused" | "deleting")) = found["state"].as_str()
            && (!by_down || matches!(state, "paused" | "deleting"))
        {
            return Ok(format!("is {state}, and is left alone"));
        }
        // The console's log goes on over the start: one more than now is the new boot.
        let boots = if found["state"] == "stopped" {
            let boots = instance.serial().await?.matches(GUEST_READY).count();
            instance.start().await?;
            boots + 1
        } else {
            1
        };
        (instance, boots)
    };
    instance.wait_for_state("running", BOOT).await?;
    instance.wait_for_serial_times(GUEST_READY, boots, BOOT).await.context("wait for the guest to boot")?;
    Ok(format!("runs, its console says {GUEST_READY:?}"))
}

/// Starts instances that `down` has stopped, given as `project/name`. One that is gone or runs already is
/// as it should be; `hello` is [`ensure_instance`]'s.
pub(crate) async fn start_again(cloud: &Cloud, instances: &[String]) -> Result<usize> {
    let mut started = 0;
    let others = instances.iter().filter_map(|path| path.split_once('/'));
    for (project, name) in others.filter(|other| *other != (PROJECT, INSTANCE)) {
        let path = format!("/v1/projects/{project}/instances/{name}");
        let found = cloud.get(&path).await?;
        if found.status != 404 && found.success()?["state"] == "stopped" {
            cloud.post(&format!("{path}/start"), json!({})).await?.success()?;
            started += 1;
        }
    }
    Ok(started)
}

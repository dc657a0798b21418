//! What every fresh cloud starts with: project `demo`, image `cumulo-test`, type `tiny`, instance `hello`.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::cloud::{Cloud, Project};
use crate::guest::{self, Guest};

pub(crate) const PROJECT: &str = "demo";
pub(crate) const IMAGE: &str = "cumulo-test";
pub(crate) const INSTANCE_TYPE: &str = "tiny";
pub(crate) const INSTANCE: &str = "hello";

/// What the fast guest says when it has done all that its seed asks for.
pub(crate) const GUEST_READY: &str = "cumulo-test: ready";

const BOOT: Duration = Duration::from_secs(120);

/// Project, image and type; makes what is missing.
pub(crate) async fn ensure_catalogue(cloud: &Cloud) -> Result<Project> {
    let project = cloud.project(PROJECT).await?;
    let image = tokio::task::spawn_blocking(|| guest::cached(Guest::Fast)).await??;
    project.image(IMAGE, &image).await?;
    cloud.instance_type(INSTANCE_TYPE, 1, 256, 1).await?;
    Ok(project)
}

/// The instance `hello`, running and ready; says what was done.
pub(crate) async fn ensure_instance(project: &Project) -> Result<String> {
    let found = project.cloud.get(&project.path(&format!("/instances/{INSTANCE}"))).await?;
    let (instance, started) = if found.status == 404 {
        let body = json!({"name": INSTANCE, "image": IMAGE, "instance_type": INSTANCE_TYPE});
        (project.create(body).await?, true)
    } else {
        let found = found.success()?;
        let instance = project.instance(&found)?;
        if found["state"] == "stopped" {
            instance.start().await?;
        }
        (instance, found["state"] != "running")
    };
    instance.wait_for_state("running", BOOT).await?;
    if !started {
        return Ok("running".to_owned());
    }
    instance.wait_for_serial(GUEST_READY, BOOT).await.context("wait for the guest to boot")?;
    Ok(format!("started, its console says {GUEST_READY:?}"))
}

/// Starts instances that `down` has stopped, given as `project/name`. One that is gone or runs already is
/// as it should be.
pub(crate) async fn start_again(cloud: &Cloud, instances: &[String]) -> Result<usize> {
    let mut started = 0;
    for (project, name) in instances.iter().filter_map(|path| path.split_once('/')) {
        let path = format!("/v1/projects/{project}/instances/{name}");
        let found = cloud.get(&path).await?;
        if found.status != 404 && found.success()?["state"] == "stopped" {
            cloud.post(&format!("{path}/start"), json!({})).await?.success()?;
            started += 1;
        }
    }
    Ok(started)
}

//! `make down`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::progress::Progress;
use super::record::Record;
use super::settings::Settings;
use super::steps::{AGENT, API, read_credentials};
use super::{libvirt, service};
use crate::cloud::Cloud;
use crate::lab::items;
use crate::machine::said_or_failed;
use crate::{binaries, wait};

/// A guest that ignores the power button for so long is switched off.
const GRACE_SECONDS: u32 = 30;

/// Stops the running instances and remembers them, then everything that `up` has started.
pub async fn down() -> Result<()> {
    let settings = Settings::from_env()?;
    if !settings.state.exists() {
        say!("there is no cloud in {}", settings.state);
        return Ok(());
    }
    let mut record = Record::open(&settings.state)?;
    let progress = Progress::new();

    let step = progress.step("instances");
    let stopped = stop_instances(&settings, &mut record).await?;
    step.done(match stopped {
        Some(count) => format!("{count} stopped"),
        None => "the API does not run; instances and their networks are left alone".to_owned(),
    });
    for name in [AGENT, API] {
        let step = progress.step(name);
        step.done(if service::end(name, &mut record)? { "stopped" } else { "did not run" });
    }
    let guests = running_guests();
    if stopped.is_some() && !guests.is_empty() {
        say!("  these guests run on, paused or unknown to the cloud: {}", guests.join(" "));
        say!("  while libvirtd runs, as after `make up`, `virsh destroy` ends one");
    }
    record.set_url(None)?;
    if stopped.is_some() && record.joined() {
        let step = progress.step("networks");
        remove_networks(&settings)?;
        step.done("removed");
    }
    for name in [libvirt::LIBVIRTD, libvirt::VIRTLOGD] {
        if record.running(name).is_some() {
            let step = progress.step(name);
            service::end(name, &mut record)?;
            step.done("stopped");
        }
    }
    say!("\nThe data stays in {}; `make up` goes on with it.", settings.state);
    Ok(())
}

/// The processes that serve networks outlive the agent, as do devices.
fn remove_networks(settings: &Settings) -> Result<()> {
    let removed = Command::new(binaries::find("cumulo-agent")?)
        .args(["remove-networks", "--state-dir", settings.agent_state().as_str()])
        .output();
    said_or_failed(removed, || "cumulo-agent remove-networks".to_owned()).map(drop)
}

/// Those of the cloud's that run; none where libvirt does not answer.
fn running_guests() -> Vec<String> {
    let names = libvirt::virsh().run(&["list", "--name"]).unwrap_or_default();
    names.lines().map(str::trim).filter(|name| name.starts_with("cumulo-")).map(str::to_owned).collect()
}

/// How many there were; `None` when there is no API to ask.
async fn stop_instances(settings: &Settings, record: &mut Record) -> Result<Option<usize>> {
    let (Some(url), Some(_)) = (record.url(), record.running(API)) else { return Ok(None) };
    let cloud = Cloud::login(url, read_credentials(&settings.credentials())?).await?;
    let running = running_instances(&cloud).await?;
    // Remembered first: if this command is killed now, the next `up` starts them all the same.
    let known = running.iter().cloned().chain(record.stopped().iter().cloned());
    record.set_stopped(known.collect::<std::collections::BTreeSet<_>>().into_iter().collect())?;
    for instance in &running {
        stop(&cloud, instance).await.with_context(|| format!("stop {instance}"))?;
    }
    for instance in &running {
        wait_stopped(&cloud, instance).await?;
    }
    Ok(Some(running.len()))
}

/// Every running instance of every project, as `project/name`.
async fn running_instances(cloud: &Cloud) -> Result<Vec<String>> {
    let mut running = Vec::new();
    for project in all(cloud, "/v1/projects").await? {
        let project = project["name"].as_str().context("a project has no name")?;
        for instance in all(cloud, &format!("/v1/projects/{project}/instances")).await? {
            if ["running", "provisioning", "pending"].iter().any(|state| instance["state"] == *state) {
                running.push(format!("{project}/{}", instance["name"].as_str().context("no name")?));
            }
        }
    }
    Ok(running)
}

/// All items of a list, page by page.
async fn all(cloud: &Cloud, path: &str) -> Result<Vec<Value>> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = cloud.get(&format!("{path}?limit=100{cursor}")).await?.success()?;
        found.extend(items(&page).cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
}

async fn stop(cloud: &Cloud, instance: &str) -> Result<()> {
    let answer =
        cloud.post(&format!("{}/stop", path(instance)), json!({"timeout_seconds": GRACE_SECONDS})).await?;
    answer.success().map(|_| ())
}

/// One that waits for a host has nothing that runs; it has been asked to stop, so nothing will.
async fn wait_stopped(cloud: &Cloud, instance: &str) -> Result<()> {
    let limit = Duration::from_secs(u64::from(GRACE_SECONDS) + 30);
    wait::eventually(format!("{instance} to stop"), limit, async || {
        let found = cloud.get(&format!("{}?wait=10", path(instance))).await?;
        let rests = ["stopped", "pending"].iter().any(|state| found.body["state"] == *state);
        ensure!(found.status == 404 || rests, "it is {}", found.body["state"]);
        Ok(())
    })
    .await
}

fn path(instance: &str) -> String {
    let (project, name) = instance.split_once('/').unwrap_or_default();
    format!("/v1/projects/{project}/instances/{name}")
}

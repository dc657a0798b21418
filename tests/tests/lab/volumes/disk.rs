//! What the scenes of volumes have in common: guests with a shell, and what they do with a disk.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use lab::{Instance, Lab, Project, Shell, Volume, eventually};
use serde_json::{Value, json};

use crate::scene::{EFFECT, LIMIT};

/// An agent that is killed has to come back first.
pub const CHANGE: Duration = Duration::from_secs(40);
pub const GIB: u64 = 1 << 30;

/// Guests without cards, with a shell in each. They boot side by side.
pub async fn guests<const N: usize>(
    lab: &Lab,
    project: &Project,
    wanted: [(&str, Value); N],
) -> Result<[(Instance, Shell); N]> {
    let mut instances = Vec::new();
    for (name, mut body) in wanted {
        let rest = json!({"name": name, "instance_type": "fast", "networks": []});
        body.as_object_mut().context("no object")?.extend(rest.as_object().cloned().unwrap_or_default());
        instances.push(project.create(body).await?);
    }
    let mut all = Vec::new();
    for instance in instances {
        let shell = lab.shell(&instance, LIMIT).await?;
        all.push((instance, shell));
    }
    all.try_into().ok().context("as many guests as wanted")
}

pub fn from_image() -> Value {
    json!({"image": "fast"})
}

/// The device under which a guest has the volume.
pub fn device(shell: &mut Shell, volume: &Volume) -> Result<String> {
    let file = shell.output(&format!("grep -lx {} /sys/block/*/serial", volume.serial))?;
    let name = file.split('/').nth(3).with_context(|| format!("{file:?} names no disk"))?;
    Ok(format!("/dev/{name}"))
}

pub async fn soon_device(shell: &mut Shell, volume: &Volume) -> Result<String> {
    eventually(format!("{} to see {}", shell.name, volume.serial), EFFECT, async || device(shell, volume))
        .await
}

pub fn has_none(shell: &mut Shell, volume: &Volume) -> Result<()> {
    shell.fails(&format!("grep -lx {} /sys/block/*/serial", volume.serial))
}

/// Attaches a volume and waits until the guest has it.
pub async fn attach(volume: &Volume, instance: &Instance, shell: &mut Shell) -> Result<String> {
    volume.attach_to(instance).await?.expect(202)?;
    volume.wait_for_state("attached", CHANGE).await?;
    soon_device(shell, volume).await
}

/// So many lines are more than one cluster of 64 KiB, and not much work for a guest that is emulated.
const LINES: u32 = 20_000;

/// Writes lines that depend on `seed`, at this place.
pub fn write(shell: &mut Shell, device: &str, seed: u32, at_mib: u64) -> Result<()> {
    let lines = format!("seq {seed} {}", seed + LINES);
    shell.output(&format!("{lines} | dd of={device} bs=1M seek={at_mib} conv=fsync 2>/dev/null")).map(|_| ())
}

/// Compares what is at this place with what [`write`] puts there, byte for byte.
pub fn holds(shell: &mut Shell, device: &str, seed: u32, at_mib: u64) -> Result<()> {
    let line = format!(
        "seq {seed} {} > /run/want; length=$(wc -c < /run/want); blockdev --flushbufs {device}; \
         dd if={device} bs=1M skip={at_mib} 2>/dev/null | head -c $length | cmp - /run/want",
        seed + LINES
    );
    shell.output(&line).map(|_| ())
}

/// So many MiB from this place on are zeros.
pub fn is_zero(shell: &mut Shell, device: &str, at_mib: u64, mib: u64) -> Result<()> {
    let read = format!("dd if={device} bs=1M skip={at_mib} count={mib} 2>/dev/null");
    let said = shell.output(&format!("{read} | tr -d '\\000' | head -c 64 | wc -c"))?;
    ensure!(said == "0", "{device} holds something at {at_mib} MiB");
    Ok(())
}

pub fn size(shell: &mut Shell, device: &str) -> Result<u64> {
    let name = device.trim_start_matches("/dev/");
    Ok(shell.output(&format!("cat /sys/block/{name}/size"))?.parse::<u64>()? * 512)
}

/// Deletes all, and looks whether anything is left anywhere.
pub async fn curtain(lab: &Lab, instances: &[&Instance], volumes: &[&Volume]) -> Result<()> {
    try_join_all(instances.iter().map(async |one| one.delete().await?.success())).await?;
    try_join_all(instances.iter().map(|one| one.wait_gone(LIMIT))).await?;
    for volume in volumes {
        volume.wait_for_state("available", CHANGE).await?;
        volume.delete().await?.success()?;
    }
    try_join_all(volumes.iter().map(|one| one.wait_gone(CHANGE))).await?;
    lab.wait_empty(Duration::from_secs(30)).await?;
    let hosts = lab.cloud.get("/v1/hosts").await?.success()?;
    for host in hosts["items"].as_array().context("no list of hosts")? {
        ensure!(host["disk_gib"]["reserved"] == 0, "disk is still reserved: {host}");
    }
    Ok(())
}

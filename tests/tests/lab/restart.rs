//! Instances that start elsewhere when their host dies, and never run twice.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Guest, Instance, Lab, LabOptions, eventually, in_lab};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::scene::LIMIT;
use crate::shared::{Shared, in_pool, index_of};
use crate::volumes::disk::{CHANGE, curtain, guests, holds, write};

/// What is promised from the death of a host on.
const PROMISED: Duration = Duration::from_secs(150);
/// Longer than it takes until somebody takes over.
const LONG: Duration = Duration::from_secs(100);

pub(crate) fn restarting() -> Value {
    let mut wanted = in_pool();
    wanted["on_host_failure"] = json!("restart");
    wanted
}

/// Waits until the guard of each host has its lease in the pool.
pub(crate) async fn guards_hold(lab: &Lab) -> Result<()> {
    eventually("all hosts to be guarded", CHANGE, async || {
        for host in &lab.hosts {
            let seen = lab.cloud.get(&format!("/v1/hosts/{}", host.name())).await?.success()?;
            ensure!(seen["guarded_pools"] == json!(["fast"]), "{seen}");
        }
        Ok(())
    })
    .await
}

fn domain(instance: &Instance) -> String {
    format!("cumulo-{}", instance.id)
}

/// Waits until another host runs it, at this boot, and looks all the while that no two do.
async fn runs_elsewhere(lab: &Lab, instance: &Instance, before: usize, boot: i64) -> Result<usize> {
    let there = eventually("the guest to run elsewhere", PROMISED, async || {
        lab.qemu_processes()?;
        let shown = instance.get().await?;
        ensure!(shown["state"] == "running", "{shown}");
        // What the control plane says: there may be no libvirt to ask where it was.
        let there = lab.hosts.iter().position(|host| shown["host"]["name"] == host.name());
        let there = there.context("it is on no host")?;
        ensure!(there != before, "it is where it was");
        Ok(there)
    })
    .await?;
    instance.wait_for_serial(&format!("cumulo-test: boot={boot}"), LIMIT).await?;
    Ok(there)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_runs_elsewhere_when_its_host_dies_with_all_that_it_had_written() -> Result<()> {
    in_lab(LabOptions { hosts: 3 }, async |lab| {
        let shared = Shared::start(lab).await?;
        guards_hold(lab).await?;
        let project = lab.project_with(Guest::Fast).await?;
        let [(instance, mut shell)] = guests(lab, &project, [("vm", restarting())]).await?;
        let lost = index_of(lab, &instance)?;
        write(&mut shell, "/dev/vda", 5, 900)?;
        drop(shell);
        let process = lab.hosts[lost].qemu_processes()?.remove(&domain(&instance)).context("no process")?;
        let host = &mut lab.hosts[lost];
        host.agent.kill().await?;
        host.guard.kill().await?;
        host.libvirtd.kill().await?;
        process.signal(Signal::SIGKILL)?;

        let there = runs_elsewhere(lab, &instance, lost, 2).await?;
        let shown = instance.get().await?;
        ensure!(shown["operation"]["kind"] == "restart_elsewhere", "{shown}");
        let mut shell = lab.shell(&instance, LIMIT).await?;
        holds(&mut shell, "/dev/vda", 5, 900)?;

        // It is repaired, and leaves the guest where it is.
        let host = &mut lab.hosts[lost];
        host.libvirtd.start().await?;
        host.guard.start().await?;
        host.agent.start().await?;
        lab.wait_hosts_ready(CHANGE).await?;
        lab.hosts[lost].wait_empty(CHANGE).await?;
        ensure!(index_of(lab, &instance)? == there, "it moved once more");
        holds(&mut shell, "/dev/vda", 5, 900)?;
        curtain(lab, &[&instance], &[]).await?;
        shared.wait_empty(lab).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn a_host_that_loses_the_control_plane_alone_keeps_its_guest() -> Result<()> {
    in_lab(LabOptions { hosts: 3 }, async |lab| {
        let shared = Shared::start(lab).await?;
        guards_hold(lab).await?;
        let project = lab.project_with(Guest::Fast).await?;
        let [(instance, mut shell)] = guests(lab, &project, [("vm", restarting())]).await?;
        let home = index_of(lab, &instance)?;
        let process = lab.hosts[home].qemu_processes()?.remove(&domain(&instance)).context("no process")?;
        lab.set_cable(&lab.hosts[home], false)?;
        let until = Instant::now() + LONG;
        while Instant::now() < until {
            lab.qemu_processes()?;
            ensure!(process.is_alive(), "its guest was ended");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let shown = instance.get().await?;
        ensure!(shown["state_reason"] == "host_unreachable", "{shown}");
        ensure!(shown["operation"]["kind"] == "create_instance", "{shown}");
        write(&mut shell, "/dev/vda", 5, 900)?;
        lab.set_cable(&lab.hosts[home], true)?;
        lab.wait_hosts_ready(CHANGE).await?;
        instance.wait_for_state("running", CHANGE).await?;
        ensure!(process.is_alive() && index_of(lab, &instance)? == home, "it was started twice");
        holds(&mut shell, "/dev/vda", 5, 900)?;
        curtain(lab, &[&instance], &[]).await?;
        shared.wait_empty(lab).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn a_guest_whose_host_loses_the_pool_is_ended_there_and_starts_elsewhere() -> Result<()> {
    in_lab(LabOptions { hosts: 3 }, async |lab| {
        let shared = Shared::start(lab).await?;
        guards_hold(lab).await?;
        let project = lab.project_with(Guest::Fast).await?;
        let [(instance, mut shell)] = guests(lab, &project, [("vm", restarting())]).await?;
        let home = index_of(lab, &instance)?;
        write(&mut shell, "/dev/vda", 5, 900)?;
        drop(shell);
        let process = lab.hosts[home].qemu_processes()?.remove(&domain(&instance)).context("no process")?;
        // Its QEMU has the disk open and could go on writing: only the guard keeps it from that.
        Shared::unmount(&lab.hosts[home])?;
        eventually("the guard to end the guest", Duration::from_secs(60), async || {
            ensure!(!process.is_alive(), "it lives");
            Ok(())
        })
        .await?;
        runs_elsewhere(lab, &instance, home, 2).await?;
        let mut shell = lab.shell(&instance, LIMIT).await?;
        holds(&mut shell, "/dev/vda", 5, 900)?;
        shared.mount(&lab.hosts[home])?;
        lab.hosts[home].wait_empty(CHANGE).await?;
        curtain(lab, &[&instance], &[]).await?;
        shared.wait_empty(lab).await
    })
    .await
}

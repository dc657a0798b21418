//! The way of a volume, whoever is killed on it.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Guest, Lab, LabOptions, eventually, in_lab};
use serde_json::json;

use super::disk::{
    CHANGE, GIB, attach, curtain, from_image, guests, has_none, holds, is_zero, size, soon_device, write,
};
use crate::scene::{EFFECT, LIMIT};

/// Who is killed at every step.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Nobody,
    Agent,
    Api,
    Postgres,
}

impl Victim {
    async fn crash(self, lab: &mut Lab, after_ms: u64) -> Result<()> {
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        match self {
            Self::Nobody => Ok(()),
            Self::Agent => lab.hosts[0].crash_agent().await,
            Self::Api => lab.control.crash_api().await,
            Self::Postgres => lab.control.crash_postgres().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_goes_from_guest_to_guest_and_grows() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| journey(lab, Victim::Nobody).await).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn an_agent_that_is_killed_at_every_step_ends_the_same() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| journey(lab, Victim::Agent).await).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn an_api_that_is_killed_at_every_step_ends_the_same() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| journey(lab, Victim::Api).await).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn a_database_that_is_killed_at_every_step_ends_the_same() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| journey(lab, Victim::Postgres).await).await
}

async fn journey(lab: &mut Lab, victim: Victim) -> Result<()> {
    let project = lab.project_with(Guest::Fast).await?;
    let wanted = [("first", from_image()), ("second", from_image())];
    let [(first, mut in_first), (second, mut in_second)] = guests(lab, &project, wanted).await?;
    let volume = project.volume(json!({"name": "data", "size_gib": 1})).await?;
    let processes = lab.qemu_processes()?;

    volume.attach_to(&first).await?.expect(202)?;
    victim.crash(lab, 0).await?;
    volume.wait_for_state("attached", CHANGE).await?;
    let disk = soon_device(&mut in_first, &volume).await?;
    ensure!(size(&mut in_first, &disk)? == GIB);
    is_zero(&mut in_first, &disk, 0, 16)?;
    write(&mut in_first, &disk, 1, 0)?;
    write(&mut in_first, &disk, 500_000, 1000)?;

    volume.detach_from(&first).await?.expect(202)?;
    victim.crash(lab, 30).await?;
    volume.wait_for_state("available", CHANGE).await?;
    has_none(&mut in_first, &volume)?;

    volume.attach_to(&second).await?.expect(202)?;
    victim.crash(lab, 100).await?;
    volume.wait_for_state("attached", CHANGE).await?;
    let disk = soon_device(&mut in_second, &volume).await?;
    holds(&mut in_second, &disk, 1, 0)?;
    holds(&mut in_second, &disk, 500_000, 1000)?;

    let limits = json!({"size_gib": 3, "iops_limit": 400, "bytes_per_second_limit": 50_000_000});
    volume.change(limits).await?;
    victim.crash(lab, 60).await?;
    volume.wait_for_state("attached", CHANGE).await?;
    eventually("the guest to see its new size", EFFECT, async || {
        let size = size(&mut in_second, &disk)?;
        ensure!(size == 3 * GIB, "{size} bytes");
        Ok(())
    })
    .await?;
    let xml = lab.hosts[0].virsh.run(&["dumpxml", &format!("cumulo-{}", second.id)])?;
    for limit in ["<total_iops_sec>400<", "<total_bytes_sec>50000000<"] {
        ensure!(xml.contains(limit), "no {limit} in {xml}");
    }
    holds(&mut in_second, &disk, 500_000, 1000)?;
    is_zero(&mut in_second, &disk, 1024, 16)?;
    write(&mut in_second, &disk, 7, 3000)?;
    holds(&mut in_second, &disk, 7, 3000)?;

    // It outlives its instance, and the guest need not let go of it first.
    volume.delete().await?.problem(409, "in_use")?;
    second.delete().await?.success()?;
    victim.crash(lab, 10).await?;
    second.wait_gone(LIMIT).await?;
    volume.wait_for_state("available", CHANGE).await?;
    let disk = attach(&volume, &first, &mut in_first).await?;
    holds(&mut in_first, &disk, 7, 3000)?;
    let still = lab.qemu_processes()?;
    ensure!(still.len() == 1 && still.iter().all(|one| processes.get(one.0) == Some(one.1)), "{still:?}");

    volume.detach_from(&first).await?.expect(202)?;
    volume.wait_for_state("available", CHANGE).await?;
    volume.delete().await?.expect(202)?;
    victim.crash(lab, 0).await?;
    volume.wait_gone(CHANGE).await?;
    curtain(lab, &[&first], &[]).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn an_agent_that_is_killed_ever_later_neither_loses_nor_doubles_a_volume() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let wanted = [("first", from_image()), ("second", from_image())];
        let mut pair = guests(lab, &project, wanted).await?;
        let volume = project.volume(json!({"name": "data", "size_gib": 1})).await?;
        for (round, after_ms) in (0..).zip([0, 10, 20, 40, 80, 160, 320]) {
            let [(instance, shell), (_, other)] = &mut pair;
            volume.attach_to(instance).await?.expect(202)?;
            Victim::Agent.crash(lab, after_ms).await?;
            volume.wait_for_state("attached", CHANGE).await?;
            let disk = soon_device(shell, &volume).await?;
            has_none(other, &volume)?;
            if round > 0 {
                holds(shell, &disk, round - 1, 10)?;
            }
            write(shell, &disk, round, 10)?;
            volume.detach_from(instance).await?.expect(202)?;
            Victim::Agent.crash(lab, after_ms).await?;
            volume.wait_for_state("available", CHANGE).await?;
            has_none(shell, &volume)?;
            pair.swap(0, 1);
        }
        curtain(lab, &[&pair[0].0, &pair[1].0], &[&volume]).await
    })
    .await
}

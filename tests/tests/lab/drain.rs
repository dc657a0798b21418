//! A host is emptied, switched off and removed.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Guest, Lab, LabOptions, Shell, eventually, in_lab};
use serde_json::{Value, json};

use crate::migration::is_the_same;
use crate::restart::{guards_hold, restarting};
use crate::scene::LIMIT;
use crate::shared::{Shared, in_pool};
use crate::volumes::disk::{CHANGE, from_image, guests, holds, write};

async fn cordon(lab: &Lab, host: &str, cordoned: bool) -> Result<()> {
    lab.cloud.patch(&format!("/v1/hosts/{host}"), json!({"cordoned": cordoned})).await?.success()?;
    Ok(())
}

async fn maintenance(lab: &Lab, host: &str) -> Result<Value> {
    Ok(lab.cloud.get(&format!("/v1/hosts/{host}")).await?.success()?["maintenance"].clone())
}

async fn wait_drained(lab: &Lab, host: &str, limit: Duration) -> Result<()> {
    eventually("the host to be drained", limit, async || {
        let seen = maintenance(lab, host).await?;
        ensure!(seen["state"] == "drained", "{seen}");
        Ok(())
    })
    .await
}

/// The first sector of those that a guest writes to all the time.
const SECTOR: u64 = 950 << 11;

/// From now on the guest writes a number to one sector after the other, each on its disk before the next.
fn write_on(shell: &mut Shell) -> Result<()> {
    shell
        .output(&format!(
            "(i=0; while usleep 100000; do i=$((i + 1)); \
             printf %08d $i | dd of=/dev/vda bs=512 seek=$(({SECTOR} + i)) conv=notrunc,fsync; \
             read up rest < /proc/uptime; echo $i $up >> /run/written; done > /dev/null 2>&1 &)"
        ))
        .map(drop)
}

/// How far it is. Every number has to be where it was written, and the guest must have written all the time.
fn written(shell: &mut Shell) -> Result<u64> {
    let last = shell.output("tail -n 1 /run/written | cut -d ' ' -f 1")?.parse()?;
    shell.output(&format!(
        "blockdev --flushbufs /dev/vda; dd if=/dev/vda bs=512 skip=$(({SECTOR} + 1)) count={last} 2>/dev/null | \
         tr -d '\\000' > /run/got; seq 1 {last} | awk '{{ printf \"%08d\", $1 }}' | cmp - /run/got"
    ))?;
    let gap = shell.output(
        "awk 'NR > 1 && $2 - last > most { most = $2 - last } { last = $2 } END { print most }' /run/written",
    )?;
    eprintln!("{last} writes, of which none took longer than {gap} s");
    Ok(last)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_emptied_and_removed() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let shared = Shared::start(lab).await?;
        guards_hold(lab).await?;
        let project = lab.project_with(Guest::Fast).await?;
        let (home, away) = (lab.hosts[0].name().to_owned(), lab.hosts[1].name().to_owned());
        cordon(lab, &away, true).await?;
        let wanted = [("own", from_image()), ("runs", restarting()), ("stopped", in_pool())];
        let [(own, mut in_own), (runs, mut in_runs), (stopped, in_stopped)] =
            guests(lab, &project, wanted).await?;
        write(&mut in_runs, "/dev/vda", 1, 900)?;
        write(&mut in_own, "/dev/vda", 2, 900)?;
        let boot_id = in_runs.output("cat /proc/sys/kernel/random/boot_id")?;
        let own_boot_id = in_own.output("cat /proc/sys/kernel/random/boot_id")?;
        drop((in_runs, in_stopped));
        stopped.stop().await?;
        stopped.wait_for_state("stopped", LIMIT).await?;
        // What is written from now on is in a layer of its own.
        let snapshot = project.snapshot(json!({"name": "before", "instance": own.id})).await?;
        snapshot.wait_for_state("available", CHANGE).await?;
        write_on(&mut in_own)?;
        eventually("some writes", CHANGE, async || {
            ensure!(written(&mut in_own)? > 5);
            Ok(())
        })
        .await?;
        drop(in_own);
        cordon(lab, &away, false).await?;

        let guards = |lab: &Lab| [0, 1].map(|index: usize| lab.hosts[index].guards(&runs.id));
        ensure!(guards(lab) == [true, false], "{:?}", guards(lab));
        let drain = format!("/v1/hosts/{home}/drain");
        lab.cloud.post(&drain, json!({})).await?.expect(202)?;
        let host = format!("/v1/hosts/{home}");
        lab.cloud.delete(&host).await?.problem(409, "in_use")?;
        wait_drained(lab, &home, 2 * LIMIT).await?;
        ensure!(stopped.get().await?["host"]["name"] == away.as_str(), "it has not moved");
        let mut in_runs = is_the_same(lab, &runs, 1, &boot_id).await?;
        holds(&mut in_runs, "/dev/vda", 1, 900)?;
        // What was on this host's own disk went along, and its guest did not notice.
        let mut in_own = is_the_same(lab, &own, 1, &own_boot_id).await?;
        let so_far = written(&mut in_own)?;
        eventually("it to write on", CHANGE, async || {
            ensure!(written(&mut in_own)? > so_far + 5);
            Ok(())
        })
        .await?;
        holds(&mut in_own, "/dev/vda", 2, 900)?;
        lab.hosts[0].wait_empty(CHANGE).await?;
        ensure!(guards(lab) == [false, true], "{:?}", guards(lab));
        // One whose guard kept its leases fresh after that would be told apart from one that is switched off.
        lab.hosts[0].agent.kill().await?;
        lab.hosts[0].guard.kill().await?;
        eventually("the host to be removed", CHANGE, async || {
            lab.cloud.delete(&host).await?.expect(204)?;
            Ok(())
        })
        .await?;
        lab.cloud.get(&host).await?.problem(404, "not_found")?;
        // Its agent comes back, and is nobody.
        lab.hosts[0].agent.start().await?;
        eventually("its agent to say so", CHANGE, async || {
            let said = lab.hosts[0].agent.log_tail(20);
            ensure!(said.contains("removed from the cloud"), "{said}");
            Ok(())
        })
        .await?;
        holds(&mut in_runs, "/dev/vda", 1, 900)?;
        holds(&mut in_own, "/dev/vda", 2, 900)?;
        drop((in_runs, in_own));
        snapshot.delete().await?.success()?;
        snapshot.wait_gone(LIMIT).await?;
        for instance in [&own, &runs, &stopped] {
            instance.delete().await?.success()?;
            instance.wait_gone(LIMIT).await?;
        }
        shared.wait_empty(lab).await?;
        lab.verify().await
    })
    .await
}

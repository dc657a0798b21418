//! A host is emptied, switched off and removed.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Guest, Lab, LabOptions, eventually, in_lab};
use serde_json::{Value, json};

use crate::migration::shell_on;
use crate::scene::LIMIT;
use crate::shared::{Shared, in_pool, index_of};
use crate::volumes::disk::{CHANGE, from_image, guests, holds, write};

async fn cordon(lab: &Lab, host: &str, cordoned: bool) -> Result<()> {
    lab.cloud.patch(&format!("/v1/hosts/{host}"), json!({"cordoned": cordoned})).await?.success()?;
    Ok(())
}

async fn maintenance(lab: &Lab, host: &str) -> Result<Value> {
    Ok(lab.cloud.get(&format!("/v1/hosts/{host}")).await?.success()?["maintenance"].clone())
}

/// Waits until exactly these remain, each with its code.
async fn wait_remaining(lab: &Lab, host: &str, wanted: &[(&str, &str)], limit: Duration) -> Result<()> {
    let wanted: Vec<_> = wanted.iter().map(|(name, code)| (json!(name), json!(code))).collect();
    eventually("what remains on the host", limit, async || {
        let seen = maintenance(lab, host).await?;
        let remaining = seen["remaining"].as_array().cloned().unwrap_or_default();
        let mut found: Vec<_> =
            remaining.iter().map(|one| (one["instance"]["name"].clone(), one["code"].clone())).collect();
        found.sort_by_key(|(name, _)| name.to_string());
        ensure!(found == wanted, "{seen}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_emptied_and_removed() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let shared = Shared::start(lab).await?;
        let project = lab.project_with(Guest::Fast).await?;
        let (home, away) = (lab.hosts[0].name().to_owned(), lab.hosts[1].name().to_owned());
        cordon(lab, &away, true).await?;
        let wanted = [("own", from_image()), ("runs", in_pool()), ("stopped", in_pool())];
        let [(own, mut in_own), (runs, mut in_runs), (stopped, in_stopped)] =
            guests(lab, &project, wanted).await?;
        write(&mut in_runs, "/dev/vda", 1, 900)?;
        write(&mut in_own, "/dev/vda", 2, 900)?;
        let boot_id = in_runs.output("cat /proc/sys/kernel/random/boot_id")?;
        drop((in_own, in_runs, in_stopped));
        stopped.stop().await?;
        stopped.wait_for_state("stopped", LIMIT).await?;
        cordon(lab, &away, false).await?;

        let drain = format!("/v1/hosts/{home}/drain");
        lab.cloud.post(&drain, json!({})).await?.expect(202)?;
        wait_remaining(lab, &home, &[("own", "running")], LIMIT).await?;
        ensure!(stopped.get().await?["host"]["name"] == away.as_str(), "it has not moved");
        eventually("the host that it has left to let go of it", CHANGE, async || {
            ensure!(index_of(lab, &runs)? == 1, "it has not");
            Ok(())
        })
        .await?;
        let mut in_runs = shell_on(lab, 1, &runs)?;
        let now = in_runs.output("cat /proc/sys/kernel/random/boot_id")?;
        ensure!(now == boot_id, "the guest was started anew: {now}, and not {boot_id}");
        holds(&mut in_runs, "/dev/vda", 1, 900)?;
        ensure!(maintenance(lab, &home).await?["state"] == "draining");
        let host = format!("/v1/hosts/{home}");
        lab.cloud.delete(&host).await?.problem(409, "in_use")?;

        // What is on this host's own disk goes along when its guest may be stopped.
        lab.cloud.post(&drain, json!({"stop_running": true})).await?.expect(202)?;
        eventually("the host to be drained", LIMIT, async || {
            let seen = maintenance(lab, &home).await?;
            ensure!(seen["state"] == "drained", "{seen}");
            Ok(())
        })
        .await?;
        lab.hosts[0].wait_empty(CHANGE).await?;
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
        let mut in_own = lab.shell(&own, LIMIT).await?;
        holds(&mut in_own, "/dev/vda", 2, 900)?;
        drop((in_runs, in_own));
        for instance in [&own, &runs, &stopped] {
            instance.delete().await?.success()?;
            instance.wait_gone(LIMIT).await?;
        }
        shared.wait_empty(lab).await?;
        lab.verify().await
    })
    .await
}

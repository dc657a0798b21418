//! A backup of the control plane is restored while the hosts go on with what came after it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{TryStreamExt as _, stream};
use lab::{Fleet, Instance, Lab, LabOptions, Project, binaries, eventually, in_lab, items, roomy_project};
use serde_json::json;

const HOSTS: usize = 6;
const OLD: usize = 12;
const YOUNG: usize = 4;
const LIMIT: Duration = Duration::from_secs(120);

const DATA: &str = "/var/lib/cumulo/api";
const FILE: &str = "/var/lib/cumulo/cumulo.dump";

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_harms_no_guest_and_tells_of_those_that_are_younger() -> Result<()> {
    in_lab(LabOptions { hosts: 0 }, async |lab| {
        let mut fleet = Fleet::start(&lab.control, &lab.cloud, HOSTS, &[]).await?;
        let project = roomy_project(&lab.cloud, "shop").await?;
        let old = create(&project, "old", OLD).await?;
        let [deleted, stopped, restarted, ..] = &old[..] else { anyhow::bail!("too few") };
        let program = binaries::find("cumulo-api")?;
        lab.control.machine.run(program.as_str(), &["backup", FILE, "--data-dir", DATA])?;

        let young = create(&project, "young", YOUNG).await?;
        let taken = addresses(&young).await?;
        ensure!(taken.len() == YOUNG, "{taken:?}");
        deleted.delete().await?.success()?;
        deleted.wait_gone(LIMIT).await?;
        for instance in [stopped, restarted] {
            instance.stop().await?;
            instance.wait_for_state("stopped", LIMIT).await?;
        }
        restarted.start().await?;
        restarted.wait_for_state("running", LIMIT).await?;

        restore(lab).await?;
        fleet.wait_ready(&lab.cloud, LIMIT).await?;
        for instance in &old[1..] {
            instance.wait_for_state("running", LIMIT).await?;
        }
        let shown = deleted.wait_for_state("error", LIMIT).await?;
        ensure!(shown["state_reason"] == "host_failed", "{shown}");
        deleted.delete().await?.success()?;
        deleted.wait_gone(LIMIT).await?;

        // Whoever is younger than the backup runs on, is named, and keeps its address.
        eventually("the young guests to be told of", LIMIT, async || {
            let (found, expected) = (unknown(lab).await?, ids(&young));
            ensure!(found == expected, "{found:?}, not {expected:?}");
            Ok(())
        })
        .await?;
        let later = create(&project, "later", 2 * YOUNG).await?;
        let given = addresses(&later).await?;
        ensure!(given.is_disjoint(&taken), "{given:?} were given, {taken:?} are taken");
        eventually("the control plane to find the young guests alone", LIMIT, async || {
            let findings = lab.control.findings()?;
            let others: Vec<_> =
                findings.iter().filter(|one| !one.starts_with("\"host_guests_unknown\"")).collect();
            ensure!(others.is_empty() && !findings.is_empty(), "{findings:#?}");
            Ok(())
        })
        .await?;

        // One boot of each, but of the one that was restarted and the one that was stopped.
        let report = fleet.end().await?;
        let guests = OLD - 1 + YOUNG + later.len();
        ensure!(report["guests"] == guests && report["starts"] == OLD + YOUNG + later.len() + 2, "{report}");
        ensure!(report["started_twice"] == json!([]), "{report}");
        fleet.destroy_guests(&ids(&young))?;
        fleet.process.start().await?;
        fleet.wait_ready(&lab.cloud, LIMIT).await?;
        eventually("no guest to be unknown", LIMIT, async || {
            let found = unknown(lab).await?;
            ensure!(found.is_empty(), "{found:?}");
            Ok(())
        })
        .await
    })
    .await
}

/// Their hosts are there all the while.
async fn restore(lab: &mut Lab) -> Result<()> {
    let control = &mut lab.control;
    control.api.stop(LIMIT).await?;
    let program = binaries::find("cumulo-api")?;
    control.machine.run(program.as_str(), &["restore", FILE, "--data-dir", DATA])?;
    control.api.start().await?;
    control.wait_ready(LIMIT).await
}

/// So many that run.
async fn create(project: &Project, name: &str, count: usize) -> Result<Vec<Instance>> {
    let bodies = (0..count).map(|number| {
        Ok(json!({"name": format!("{name}-{number}"), "image": "nothing", "instance_type": "small",
            "networks": [{"network": "fleet"}]}))
    });
    let created: Vec<_> = stream::iter(bodies).and_then(|body| project.create(body)).try_collect().await?;
    for instance in &created {
        instance.wait_for_state("running", LIMIT).await?;
    }
    Ok(created)
}

fn ids(instances: &[Instance]) -> BTreeSet<String> {
    instances.iter().map(|instance| instance.id.clone()).collect()
}

async fn addresses(instances: &[Instance]) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for instance in instances {
        let shown = instance.get().await?;
        let address = shown["nics"][0]["addresses"][0].as_str();
        all.insert(address.with_context(|| format!("no address in {shown}"))?.to_owned());
    }
    Ok(all)
}

/// The ids of the guests that the cloud does not know, on all hosts.
async fn unknown(lab: &Lab) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let hosts = lab.cloud.get("/v1/hosts").await?.success()?;
    for host in items(&hosts) {
        let name = host["name"].as_str().context("a host without a name")?;
        let guests = lab.cloud.get(&format!("/v1/hosts/{name}/unknown_guests")).await?.success()?;
        let guests: Vec<_> = items(&guests).filter_map(|guest| guest["id"].as_str()).collect();
        ensure!(host["quarantined_domains"] == guests.len(), "{host} has {guests:?}");
        found.extend(guests.into_iter().map(str::to_owned));
    }
    Ok(found)
}

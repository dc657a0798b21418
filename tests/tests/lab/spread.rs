//! Many instances on several hosts.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use lab::{Guest, LabOptions, in_lab};
use serde_json::json;

/// More of them would only take the processors away from what is tested beside this.
const INSTANCES: usize = 6;
/// Emulated guests share the processors of one machine.
const LIMIT: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn instances_spread_over_the_hosts_and_leave_nothing() -> Result<()> {
    in_lab(LabOptions::default(), async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let project = &project;
        let instances = try_join_all((0..INSTANCES).map(async |number| {
            let name = format!("vm-{number}");
            project.create(json!({"name": name, "image": "fast", "instance_type": "fast"})).await
        }))
        .await?;
        try_join_all(instances.iter().map(|instance| instance.wait_for_state("running", LIMIT))).await?;

        let mut domains = BTreeSet::new();
        for host in &lab.hosts {
            let here = host.virsh.domains()?;
            let share = INSTANCES / lab.hosts.len();
            ensure!(here.len().abs_diff(share) <= 1, "{} runs {} of {INSTANCES}", host.name(), here.len());
            // One download, however many instances want the image at once.
            let cached = std::fs::read_dir(host.agent_state().join("pool/images"))?.count();
            ensure!(cached == 1, "{} has {cached} files of one image", host.name());
            domains.extend(here);
        }
        let wanted: BTreeSet<String> = instances.iter().map(|i| format!("cumulo-{}", i.id)).collect();
        ensure!(domains == wanted, "domains {domains:?} for instances {wanted:?}");
        try_join_all(instances.iter().map(|i| i.wait_for_serial("cumulo-test: ready", LIMIT))).await?;

        try_join_all(instances.iter().map(|instance| instance.delete())).await?;
        try_join_all(instances.iter().map(|instance| instance.wait_gone(LIMIT))).await?;
        lab.wait_empty(Duration::from_secs(30)).await?;
        let hosts = lab.cloud.get("/v1/hosts").await?.success()?;
        for host in hosts["items"].as_array().context("no list of hosts")? {
            ensure!(host["memory_mib"]["reserved"] == 0, "memory is still reserved: {host}");
        }
        Ok(())
    })
    .await
}

//! Hundreds of instances on tens of simulated hosts, while the control plane and all agents are killed.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lab::{Fleet, LabOptions, Project, eventually, in_lab, roomy_project, wait_for};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

const HOSTS: usize = 24;
const INSTANCES: usize = 240;
const CLIENTS: usize = 16;
const FEW_HOSTS: usize = 8;
const FEW_INSTANCES: usize = 60;
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn no_boot_runs_twice_whoever_is_killed_and_nothing_is_left() -> Result<()> {
    in_lab(LabOptions { hosts: 0 }, async |lab| {
        let options = ["--create-latency", "300ms", "--faults", "failing-creates=2%"];
        let mut fleet = Fleet::start(&lab.control, &lab.cloud, HOSTS, &options).await?;
        let project = roomy_project(&lab.cloud, "fleet").await?;

        let asked = AtomicUsize::new(0);
        let (control, cloud) = (&mut lab.control, &lab.cloud);
        let killing = async {
            wait_for("a fifth to be asked for", LIMIT, async || {
                (asked.load(Relaxed) > INSTANCES / 5).then_some(())
            })
            .await?;
            control.crash_api().await?;
            wait_for("half to be asked for", LIMIT, async || {
                (asked.load(Relaxed) > INSTANCES / 2).then_some(())
            })
            .await?;
            fleet.crash().await?;
            fleet.wait_ready(cloud, LIMIT).await
        };
        tokio::try_join!(create_all(&project, &asked), killing)?;

        eventually("all to run", LIMIT, async || {
            let instances = project.instances().await?;
            let running = instances.iter().filter(|one| one["state"] == "running").count();
            let other = instances.iter().find(|one| one["state"] != "running");
            ensure!(running == INSTANCES, "{running} run, another is {:?}", other.map(summary));
            Ok(())
        })
        .await?;
        let findings = lab.control.findings()?;
        ensure!(findings.is_empty(), "{findings:#?}");

        // As many guests as instances, and as many starts: kept over the death of all agents.
        let report = fleet.end().await?;
        ensure!(report["guests"] == INSTANCES && report["starts"] == INSTANCES, "{report}");
        ensure!(report["started_twice"] == json!([]), "{report}");
        fleet.process.start().await?;
        fleet.wait_ready(&lab.cloud, LIMIT).await?;

        delete_all(&project).await?;
        eventually("nothing to be left", LIMIT, async || {
            let left = project.instances().await?;
            ensure!(left.is_empty(), "{} instances, one is {:?}", left.len(), left.first().map(summary));
            let files = fleet.leftovers()?;
            ensure!(files.is_empty(), "{} files, as {:?}", files.len(), files.first());
            Ok(())
        })
        .await?;
        let hosts = lab.cloud.get("/v1/hosts?limit=500").await?.success()?;
        for host in hosts["items"].as_array().context("no list of hosts")? {
            ensure!(host["memory_mib"]["reserved"] == 0, "memory is still reserved: {host}");
        }
        let report = fleet.end().await?;
        ensure!(report["guests"] == 0 && report["starts"] == INSTANCES, "{report}");
        ensure!(report["started_twice"] == json!([]), "{report}");
        Ok(())
    })
    .await
}

/// Each agent is started anew and falls silent several times while its guests are made, and no boot runs twice.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn agents_that_are_started_anew_and_fall_silent_bring_every_guest_up_once() -> Result<()> {
    in_lab(LabOptions { hosts: 0 }, async |lab| {
        let faults = "restart=10s,silence=12s/4s";
        let options = ["--create-latency", "300ms", "--faults", faults];
        let mut fleet = Fleet::start(&lab.control, &lab.cloud, FEW_HOSTS, &options).await?;
        let project = roomy_project(&lab.cloud, "faults").await?;
        create_some(&project, FEW_INSTANCES, &AtomicUsize::new(0)).await?;
        eventually("all to run", LIMIT, async || {
            let instances = project.instances().await?;
            let running = instances.iter().filter(|one| one["state"] == "running").count();
            ensure!(running == FEW_INSTANCES, "{running} run");
            Ok(())
        })
        .await?;
        tokio::time::sleep(Duration::from_secs(30)).await;
        let report = fleet.end().await?;
        let count = |what: &str| report[what].as_u64().unwrap_or_default();
        ensure!(count("restarts") >= FEW_HOSTS as u64 && count("silences") > 0, "{report}");
        ensure!(report["guests"] == FEW_INSTANCES && report["starts"] == FEW_INSTANCES, "{report}");
        ensure!(report["started_twice"] == json!([]), "{report}");
        // Without faults all is well at once.
        let healthy = Fleet::again(&lab.control, &lab.cloud, FEW_HOSTS).await?;
        eventually("the control plane to find nothing", LIMIT, async || {
            let findings = lab.control.findings()?;
            ensure!(findings.is_empty(), "{findings:#?}");
            Ok(())
        })
        .await?;
        drop(healthy);
        Ok(())
    })
    .await
}

fn summary(instance: &Value) -> Value {
    json!([instance["name"], instance["state"], instance["state_reason"], instance["state_detail"]])
}

/// As a program would that wants each exactly once: with a key, until there is an answer.
async fn create_all(project: &Project, asked: &AtomicUsize) -> Result<()> {
    create_some(project, INSTANCES, asked).await
}

async fn create_some(project: &Project, count: usize, asked: &AtomicUsize) -> Result<()> {
    let created = stream::iter(0..count).map(Ok).try_for_each_concurrent(CLIENTS, async |number| {
        let name = format!("vm-{number:03}");
        let body = json!({"name": name, "image": "nothing", "instance_type": "small",
            "networks": [{"network": "fleet"}]});
        let key = (HeaderName::from_static("idempotency-key"), HeaderValue::from_str(&name)?);
        let headers = HeaderMap::from_iter([key]);
        let path = project.path("/instances");
        eventually(format!("{name} to be accepted"), LIMIT, async || {
            project.cloud.send(Method::POST, &path, &headers, Some(body.clone())).await?.expect(202)
        })
        .await?;
        asked.fetch_add(1, Relaxed);
        Ok(())
    });
    created.await
}

async fn delete_all(project: &Project) -> Result<()> {
    let all = project.instances().await?;
    let deleted = stream::iter(&all).map(Ok).try_for_each_concurrent(CLIENTS, async |instance| {
        let instance = project.instance(instance)?;
        // Fifty agents come back at the same time: the control plane may ask to come again.
        eventually(format!("{} to be deleted", instance.name), LIMIT, async || {
            let answer = instance.delete().await?;
            ensure!(answer.status == 404 || answer.success().is_ok(), "it is not");
            Ok(())
        })
        .await
    });
    deleted.await
}

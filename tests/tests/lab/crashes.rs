//! kill -9 of each of our processes while instances come and go.
//!
//! Whoever dies: what was accepted happens, once; every operation ends; and the instances that were there
//! before do not notice, which their QEMU processes prove.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use lab::{Guest, Instance, Lab, LabOptions, Project, eventually, in_lab};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(180);
const BATCH: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Victim {
    Agent,
    Libvirtd,
    Api,
    Postgres,
}

impl Victim {
    /// kill -9, and what a supervisor would do next.
    async fn crash(self, lab: &mut Lab) -> Result<()> {
        match self {
            Self::Agent => lab.hosts[0].crash_agent().await,
            Self::Libvirtd => lab.hosts[0].crash_libvirtd().await,
            Self::Api => lab.control.crash_api().await,
            Self::Postgres => lab.control.crash_postgres().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn no_instance_is_lost_doubled_or_restarted_by_a_dying_agent() -> Result<()> {
    survive(Victim::Agent).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn no_instance_is_lost_doubled_or_restarted_by_a_dying_libvirtd() -> Result<()> {
    survive(Victim::Libvirtd).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn no_instance_is_lost_doubled_or_restarted_by_a_dying_api() -> Result<()> {
    survive(Victim::Api).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_instance_is_lost_doubled_or_restarted_by_a_dying_postgres() -> Result<()> {
    survive(Victim::Postgres).await
}

async fn survive(victim: Victim) -> Result<()> {
    in_lab(LabOptions::default(), async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let bystanders = create_batch(&project, "bystander", lab.hosts.len()).await?;
        all_running(&bystanders).await?;
        let qemu_before = lab.qemu_processes()?;

        // During creates.
        let (created, crashed) = tokio::join!(create_batch(&project, "created", BATCH), victim.crash(lab));
        crashed.with_context(|| format!("crash {victim:?}"))?;
        let created = created?;
        all_running(&created).await?;
        let expected = BATCH + bystanders.len();
        let qemu_with_batch = lab.qemu_processes()?;
        ensure!(
            qemu_with_batch.len() == expected,
            "{} domains for {expected} instances",
            qemu_with_batch.len()
        );
        ensure!(project.instances().await?.len() == expected, "an instance was lost or doubled");

        // During deletes.
        let (deleted, crashed) = tokio::join!(delete_all(&created), victim.crash(lab));
        crashed.with_context(|| format!("crash {victim:?} again"))?;
        deleted?;
        try_join_all(created.iter().map(|instance| instance.wait_gone(LIMIT))).await?;

        all_running(&bystanders).await?;
        let qemu_after = lab.qemu_processes()?;
        ensure!(qemu_after == qemu_before, "QEMU processes were {qemu_before:?} and are {qemu_after:?}");
        all_operations_ended(&project).await?;
        lab.wait_hosts_ready(LIMIT).await?;

        delete_all(&bystanders).await?;
        try_join_all(bystanders.iter().map(|instance| instance.wait_gone(LIMIT))).await?;
        lab.wait_empty(Duration::from_secs(30)).await
    })
    .await
}

async fn create_batch(project: &Project, prefix: &str, count: usize) -> Result<Vec<Instance>> {
    let create = async |number: usize| {
        let body = json!({"name": format!("{prefix}-{number}"), "image": "fast", "instance_type": "fast"});
        let accepted = insist(project, Method::POST, &project.path("/instances"), Some(body)).await?;
        project.instance(&accepted)
    };
    try_join_all((0..count).map(create)).await
}

async fn delete_all(instances: &[Instance]) -> Result<()> {
    let delete = async |instance: &Instance| {
        insist(&instance.project, Method::DELETE, &instance.path(""), None).await.map(|_| ())
    };
    try_join_all(instances.iter().map(delete)).await.map(|_| ())
}

/// Calls until the API accepts, always under the same Idempotency-Key: an answer that was lost on the way
/// must not make a second instance.
async fn insist(project: &Project, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
    let key = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string())?;
    let headers = HeaderMap::from_iter([("idempotency-key".parse()?, key)]);
    eventually(format!("{method} {path} to be accepted"), LIMIT, async || {
        let answer = project.cloud.send(method.clone(), path, &headers, body.clone()).await?;
        if answer.status == 404 && method == Method::DELETE {
            return Ok(Value::Null);
        }
        answer.expect(202)
    })
    .await
}

async fn all_running(instances: &[Instance]) -> Result<()> {
    try_join_all(instances.iter().map(|instance| instance.wait_for_state("running", LIMIT))).await.map(|_| ())
}

async fn all_operations_ended(project: &Project) -> Result<()> {
    eventually("all operations to end", LIMIT, async || {
        let page = project.cloud.get(&project.path("/operations?limit=500")).await?.success()?;
        let operations = page["items"].as_array().context("no list of operations")?;
        let open: Vec<&Value> =
            operations.iter().filter(|operation| operation["status"] == "running").collect();
        ensure!(open.is_empty(), "still open: {open:?}");
        let failed = operations.iter().find(|operation| operation["status"] != "succeeded");
        ensure!(failed.is_none(), "not a success: {failed:?}");
        Ok(())
    })
    .await
}

//! A quota holds while the control plane is killed under those who press against it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use lab::{Guest, LabOptions, Project, eventually, in_lab};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(120);
const ASKED: usize = 100;
const ALLOWED: usize = 10;

/// No host is needed: what is accepted counts, placed or not.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_creations_ten_succeed_whoever_dies_meanwhile() -> Result<()> {
    in_lab(LabOptions { hosts: 0 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let limits = json!({"instances": ALLOWED, "vcpus": -1, "memory_mib": -1, "disk_gib": -1});
        let quotas = project.path("/quotas");
        project.cloud.send(Method::PATCH, &quotas, &HeaderMap::new(), Some(limits)).await?.success()?;

        let creations = try_join_all((0..ASKED).map(|number| create(&project, number)));
        let crashes = async {
            for _ in 0..2 {
                lab.control.crash_api().await?;
            }
            anyhow::Ok(())
        };
        let (accepted, crashed) = tokio::join!(creations, crashes);
        crashed.context("crash the API")?;
        let accepted = accepted?.into_iter().filter(|accepted| *accepted).count();
        ensure!(accepted == ALLOWED, "{accepted} of {ASKED} creations were accepted, not {ALLOWED}");

        let instances = project.instances().await?.len();
        ensure!(instances == ALLOWED, "{instances} instances for {ALLOWED} accepted creations");
        let shown = project.cloud.get(&quotas).await?.success()?;
        let used = shown["items"].as_array().context("no list of quotas")?.iter();
        let used = used.filter(|quota| quota["resource"] == "instances").map(|quota| quota["used"].as_u64());
        ensure!(used.eq([Some(ALLOWED as u64)]), "the usage does not fit: {shown}");
        Ok(())
    })
    .await
}

/// Whether the creation was accepted. Asks until it is answered, always under the same Idempotency-Key: an
/// answer that a dying process took along must not make a second instance.
async fn create(project: &Project, number: usize) -> Result<bool> {
    let path = project.path("/instances");
    let key = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string())?;
    let headers = HeaderMap::from_iter([("idempotency-key".parse()?, key)]);
    let body = json!({"name": format!("web-{number}"), "image": "fast", "instance_type": "fast"});
    eventually(format!("creation {number} to be answered"), LIMIT, async || {
        let answer = project.cloud.send(Method::POST, &path, &headers, Some(body.clone())).await?;
        if answer.status == 202 {
            return Ok(true);
        }
        answer.problem(409, "quota_exceeded").map(|_| false)
    })
    .await
}

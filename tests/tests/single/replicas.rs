//! Several replicas of the API, which restart one after the other, and a PostgreSQL whose standby takes over.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use lab::{Answer, Cloud, Fleet, Project, Replicated, eventually, in_replicated_cloud, roomy_project};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

const HOSTS: usize = 4;
const CLIENTS: usize = 4;
/// Between two calls of a client.
const PAUSE: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_restarts_and_a_failover() -> Result<()> {
    in_replicated_cloud(async |cloud| {
        let users = [cloud.replicas[0].login().await?, cloud.replicas[1].login().await?];
        let mut fleet = Fleet::start(&cloud.replicas[0], &users[0], HOSTS, &["--cpus", "1024"]).await?;
        let project = roomy_project(&users[0], "shop").await?;
        let load = Load::new(users, &project);

        // A client that asks the other replica once sees nothing of it.
        tokio::try_join!(load.run(Patience::OneRetry), load.until(restart_in_turn(cloud)))?;
        let created = load.created();
        ensure!(created > 2 * CLIENTS, "only {created} calls were made meanwhile");

        tokio::try_join!(load.run(Patience::UntilItIsThere), load.until(fail_over(cloud)))?;
        ensure!(load.created() > created, "nothing was made after the failover");

        eventually("all that was acknowledged to run", LIMIT, async || {
            let instances = project.instances().await?;
            let running = instances.iter().filter(|one| one["state"] == "running").count();
            ensure!(
                running == load.created() && instances.len() == running,
                "{running} of {}",
                load.created()
            );
            Ok(())
        })
        .await?;
        eventually("verify to find nothing", LIMIT, async || {
            let found = cloud.replicas[1].findings()?;
            ensure!(found.is_empty(), "{found:#?}");
            Ok(())
        })
        .await?;
        let report = fleet.end().await?;
        ensure!(report["starts"] == load.created() && report["started_twice"] == json!([]), "{report}");
        Ok(())
    })
    .await
}

async fn restart_in_turn(cloud: &mut Replicated) -> Result<()> {
    for replica in &mut cloud.replicas {
        replica.api.stop(LIMIT).await?;
        replica.api.start().await?;
        replica.wait_ready(LIMIT).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// kill -9 of the primary. The standby takes over, with all that was acknowledged.
async fn fail_over(cloud: &mut Replicated) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    cloud.primary.process.kill().await?;
    cloud.standby.promote()?;
    let promoted = Instant::now();
    for replica in &cloud.replicas {
        replica.wait_ready(LIMIT).await?;
    }
    println!("both replicas serve {:?} after the promotion", promoted.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Patience {
    OneRetry,
    UntilItIsThere,
}

/// Clients that make instances all the time, each with a key, so that a call that is repeated is one.
struct Load {
    users: [Cloud; 2],
    path: String,
    next: AtomicUsize,
    is_over: AtomicBool,
}

impl Load {
    fn new(users: [Cloud; 2], project: &Project) -> Self {
        Self {
            users,
            path: project.path("/instances"),
            next: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Every number that was begun was acknowledged, once the load is over.
    fn created(&self) -> usize {
        self.next.load(Relaxed)
    }

    /// Ends the load when that is done.
    async fn until(&self, done: impl Future<Output = Result<()>>) -> Result<()> {
        let result = done.await;
        self.is_over.store(true, Relaxed);
        result
    }

    async fn run(&self, patience: Patience) -> Result<()> {
        self.is_over.store(false, Relaxed);
        let clients = (0..CLIENTS).map(async |_| {
            while !self.is_over.load(Relaxed) {
                let number = self.next.fetch_add(1, Relaxed);
                self.create(number, patience).await.with_context(|| format!("the call {number}"))?;
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        });
        try_join_all(clients).await.map(drop)
    }

    async fn create(&self, number: usize, patience: Patience) -> Result<()> {
        match patience {
            Patience::OneRetry => {
                let answer = match self.ask(number, number % 2).await {
                    Ok(answer) if answer.status != 503 => answer,
                    _ => self.ask(number, (number + 1) % 2).await?,
                };
                answer.expect(202).map(drop)
            }
            Patience::UntilItIsThere => {
                eventually("the call to be accepted", LIMIT, async || {
                    self.ask(number, number % 2).await?.expect(202).map(drop)
                })
                .await
            }
        }
    }

    async fn ask(&self, number: usize, replica: usize) -> Result<Answer> {
        let name = format!("vm-{number:04}");
        let key = (HeaderName::from_static("idempotency-key"), HeaderValue::from_str(&name)?);
        let body = json!({"name": name, "image": "nothing", "instance_type": "small", "networks": [{"network": "fleet"}]});
        self.users[replica].send(Method::POST, &self.path, &HeaderMap::from_iter([key]), Some(body)).await
    }
}

//! `cumulo-agent simulate` beside a control plane of the bench's own: the product's agents, without machines.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::Cloud;
use serde_json::json;
use tokio::process::{Child, Command};

use crate::control::Control;

/// How long all may take to join and to be heard of.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) struct Simulation {
    hosts: usize,
    agent_url: String,
    folder: PathBuf,
    agents: Child,
}

impl Simulation {
    /// Lets so many hosts join, and waits until all are ready.
    pub(crate) async fn start(control: &Control, cloud: &Cloud, hosts: usize) -> Result<Self> {
        let folder = control.folder.path().to_owned();
        let mut tokens = String::new();
        for _ in 0..hosts {
            let token = cloud.post("/v1/host_join_tokens", json!({"ttl_seconds": 3600})).await?.success()?;
            tokens += token["token"].as_str().context("the answer holds no join token")?;
            tokens += "\n";
        }
        std::fs::write(folder.join("tokens"), tokens)?;
        let agents = spawn(&folder, &control.agent_url, hosts)?;
        let this = Self { hosts, agent_url: control.agent_url.clone(), folder, agents };
        let started = Instant::now();
        loop {
            let ready = count_ready(cloud).await?;
            if ready == hosts {
                return Ok(this);
            }
            ensure!(started.elapsed() < PATIENCE, "only {ready} of {hosts} hosts are ready");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    pub(crate) fn process(&self) -> Result<u32> {
        self.agents.id().context("the agents have ended")
    }

    /// Ends all agents as a crash does, and starts them again at once.
    pub(crate) async fn crash(&mut self) -> Result<()> {
        self.agents.kill().await.context("kill the agents")?;
        self.agents = spawn(&self.folder, &self.agent_url, self.hosts)?;
        Ok(())
    }
}

fn spawn(folder: &std::path::Path, agent_url: &str, hosts: usize) -> Result<Child> {
    let log = File::options().create(true).append(true).open(folder.join("agents.log"))?;
    Command::new(lab::binaries::find("cumulo-agent")?)
        .args(["simulate", "--hosts", &hosts.to_string(), "--control-plane", agent_url])
        .arg("--token-file")
        .arg(folder.join("tokens"))
        .arg("--state-dir")
        .arg(folder.join("fleet"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("start cumulo-agent simulate")
}

async fn count_ready(cloud: &Cloud) -> Result<usize> {
    let (mut ready, mut path) = (0, "/v1/hosts?state=ready&limit=500".to_owned());
    loop {
        let page = cloud.get(&path).await?.success()?;
        ready += page["items"].as_array().map_or(0, Vec::len);
        let Some(cursor) = page["next_cursor"].as_str() else { return Ok(ready) };
        path = format!("/v1/hosts?state=ready&limit=500&cursor={cursor}");
    }
}

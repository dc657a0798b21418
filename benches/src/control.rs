//! A control plane of the bench's own: cumulo-api and its private PostgreSQL, in a folder that goes with them.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Cloud, Credentials};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::create::run_command;
use crate::postgres::Postgres;

/// How long it may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Control {
    pub folder: TempDir,
    pub agent_url: String,
    pub url: String,
    api: Child,
}

impl Control {
    /// Starts one on free ports of loopback and waits until it can be signed in to.
    pub(crate) async fn start() -> Result<(Self, Cloud)> {
        let folder = tempfile::Builder::new().prefix("cumulo-bench-").tempdir_in("/var/tmp")?;
        let path = folder.path().to_str().context("a path of text")?.to_owned();
        // PostgreSQL runs as another user.
        run_command("chmod", &["711", &path])?;
        let (url, agent_url) =
            (format!("http://{}", free_address()?), format!("https://{}", free_address()?));
        let api = spawn(&path, &url, &agent_url)?;
        let control = Self { folder, agent_url, url, api };
        let started = Instant::now();
        loop {
            match control.sign_in().await {
                Ok(cloud) => return Ok((control, cloud)),
                Err(error) => ensure!(started.elapsed() < PATIENCE, "cumulo-api does not answer: {error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The text of its folder's path.
    pub(crate) fn path(&self) -> Result<&str> {
        self.folder.path().to_str().context("a path of text")
    }

    pub(crate) fn postgres(&self) -> Result<Postgres> {
        Postgres::below(self.path()?)
    }

    /// The process of cumulo-api.
    pub(crate) fn process(&self) -> Result<u32> {
        self.api.id().context("cumulo-api has ended")
    }

    /// The first process of PostgreSQL.
    pub(crate) fn postgres_process(&self) -> Result<u32> {
        let pid = std::fs::read_to_string(self.folder.path().join("api/postgresql/data/postmaster.pid"))?;
        Ok(pid.lines().next().context("a process")?.parse()?)
    }

    /// Ends cumulo-api as a crash does, and starts it again at once, as its service manager would. PostgreSQL lives on.
    pub(crate) async fn crash(&mut self) -> Result<()> {
        self.api.kill().await.context("kill cumulo-api")?;
        self.api = spawn(self.path()?, &self.url, &self.agent_url)?;
        Ok(())
    }

    async fn sign_in(&self) -> Result<Cloud> {
        let credentials = std::fs::read(self.folder.path().join("credentials.json"))?;
        let credentials: Credentials = serde_json::from_slice(&credentials)?;
        Cloud::login(&self.url, credentials).await
    }
}

impl Drop for Control {
    /// Ends it in order, PostgreSQL too.
    fn drop(&mut self) {
        let Some(pid) = self.api.id() else { return };
        let mut ended = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).is_err();
        let started = Instant::now();
        while !ended && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
            ended = !matches!(self.api.try_wait(), Ok(None));
        }
        if !ended {
            eprintln!("cumulo-api, process {pid}, does not end");
        }
    }
}

fn spawn(path: &str, url: &str, agent_url: &str) -> Result<Child> {
    let log = File::options().create(true).append(true).open(format!("{path}/api.log"))?;
    let address = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
    Command::new(lab::binaries::find("cumulo-api")?)
        .args(["serve", "--data-dir", &format!("{path}/api")])
        .args(["--listen", &address(url), "--agent-listen", &address(agent_url)])
        .args(["--first-run-credentials", &format!("{path}/credentials.json")])
        .args(["--first-run-password-change", "optional"])
        // All agents come from one address.
        .args(["--max-connections", "65536", "--max-connections-per-address", "65536"])
        .env_remove("DATABASE_URL")
        .env("CUMULO_RATE_LIMIT", "0")
        .env("CUMULO_ADDRESS_RATE_LIMIT", "0")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start cumulo-api")
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

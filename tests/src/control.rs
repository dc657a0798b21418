//! The control plane of a lab: cumulo-api and its private PostgreSQL on a machine of their own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cloud::{Cloud, Credentials};
use crate::daemon::Daemon;
use crate::gateway::Gateway;
use crate::machine::Machine;
use crate::process::ProcessId;
use crate::wiring::CONTROL_ADDRESS;
use crate::{binaries, wait};

const DATA: &str = "/var/lib/cumulo/api";
const CREDENTIALS: &str = "/var/lib/cumulo/credentials.json";
/// Inside the machine, so always free; those of further replicas follow.
const PORT: u16 = 8080;
const AGENT_PORT: u16 = 8443;

/// Asks a control plane whether it is ready. One that starts may take a question and never answer it.
pub(crate) async fn is_ready(url: &str) -> Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
    let answer = client.get(format!("{url}/readyz")).send().await?;
    ensure!(answer.status() == 200, "/readyz answers {}", answer.status());
    Ok(())
}

pub struct ControlPlane {
    pub machine: Machine,
    pub api: Daemon,
    gateway: Gateway,
    place: Place,
}

/// Where a replica of the API listens, and what it works on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// From 0.
    pub replica: u16,
    /// Without one the API has a private PostgreSQL.
    pub database_url: Option<String>,
}

impl ControlPlane {
    /// Starts the API and waits until it is ready.
    pub(crate) async fn start(machine: Machine) -> Result<Self> {
        Self::start_at(machine, Place::default()).await
    }

    /// The same for one of several replicas on that machine.
    pub(crate) async fn start_at(machine: Machine, place: Place) -> Result<Self> {
        let gateway = Gateway::open(&machine, place.listen())?;
        let mut control = Self { api: api(&machine, &place)?, machine, gateway, place };
        control.api.start().await?;
        control.wait_ready(Duration::from_secs(60)).await?;
        Ok(control)
    }

    /// The API's address for the test: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.gateway.address)
    }

    /// Where agents dial.
    pub(crate) fn agent_url(&self) -> String {
        format!("https://{}", self.place.agent_listen())
    }

    /// The first-run administrator's.
    pub fn credentials(&self) -> Result<Credentials> {
        let path = self.machine.outside(CREDENTIALS);
        let text = fs::read(&path).with_context(|| format!("read {path}"))?;
        serde_json::from_slice(&text).with_context(|| format!("understand {path}"))
    }

    /// Signs in as the first-run administrator.
    pub async fn login(&self) -> Result<Cloud> {
        Cloud::login(&self.url(), self.credentials()?).await
    }

    pub async fn wait_ready(&self, limit: Duration) -> Result<()> {
        let ready = wait::eventually("cumulo-api to be ready", limit, async || {
            self.api.process()?;
            is_ready(&self.url()).await
        });
        ready.await.with_context(|| self.api.log_tail(30))
    }

    /// kill -9 of the API alone and a new start; its PostgreSQL lives on in between.
    pub async fn crash_api(&mut self) -> Result<()> {
        self.api.kill().await?;
        self.api.start().await?;
        self.wait_ready(Duration::from_secs(30)).await
    }

    /// kill -9 of the whole PostgreSQL; bringing it back is the API's business.
    pub async fn crash_postgres(&self) -> Result<()> {
        let victims = self.postgres_processes();
        ensure!(!victims.is_empty(), "no PostgreSQL runs in the lab");
        for victim in &victims {
            victim.signal(Signal::SIGKILL)?;
        }
        ensure!(
            victims.into_iter().all(|v| v.wait_gone(Duration::from_secs(5))),
            "PostgreSQL survives SIGKILL"
        );
        self.wait_ready(Duration::from_secs(60)).await
    }

    /// What `cumulo-api verify` finds.
    pub fn findings(&self) -> Result<Vec<String>> {
        let program = binaries::find("cumulo-api")?;
        let mut command = self.machine.command(program.as_str());
        command.args(["verify", "--data-dir", DATA, "--json"]);
        self.place.choose_database(&mut command);
        let output = command.output().context("run cumulo-api verify")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("verify: {said}"))?;
        let found = report["findings"].as_array().context("verify tells no findings")?;
        ensure!(found.is_empty() == output.status.success(), "verify ended with {}: {report}", output.status);
        Ok(found.iter().map(|one| format!("{}: {}", one["code"], one["detail"])).collect())
    }

    /// Asks its private database, past the API.
    pub fn sql(&self, statement: &str) -> Result<String> {
        let socket = format!("{DATA}/postgresql/run");
        let options = ["-XqAt", "-v", "ON_ERROR_STOP=1", "-h", &socket, "-U", "cumulo", "-d", "cumulo"];
        self.machine.output("psql", &[&options[..], &["-c", statement]].concat())
    }

    /// The postmaster and all its children.
    pub fn postgres_processes(&self) -> Vec<ProcessId> {
        let is_postgres = |id: &ProcessId| {
            fs::read_to_string(format!("/proc/{}/comm", id.pid)).is_ok_and(|name| name.trim() == "postgres")
        };
        self.machine.members().into_iter().filter(is_postgres).collect()
    }
}

impl Place {
    fn listen(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, PORT + self.replica))
    }

    fn agent_listen(&self) -> String {
        format!("{CONTROL_ADDRESS}:{}", AGENT_PORT + self.replica)
    }

    /// Whatever database the developer works with is none of the lab's business.
    fn choose_database(&self, command: &mut Command) {
        match &self.database_url {
            Some(url) => command.env("DATABASE_URL", url),
            None => command.env_remove("DATABASE_URL"),
        };
    }
}

fn api(machine: &Machine, place: &Place) -> Result<Daemon> {
    let program = binaries::find("cumulo-api")?;
    let log = machine.dir.join(format!("api-{}.log", place.replica));
    let (machine, place) = (machine.clone(), place.clone());
    Ok(Daemon::new("cumulo-api", log, move || {
        let mut command = machine.command(program.as_str());
        command.args(["serve", "--data-dir", DATA, "--listen", &place.listen().to_string()]);
        command.args(["--agent-listen", &place.agent_listen()]);
        command.args(["--first-run-credentials", CREDENTIALS, "--first-run-password-change", "optional"]);
        place.choose_database(&mut command);
        // Tests ask as one user from one address, as often as they can, and all hosts of a fleet are there.
        command.env("CUMULO_RATE_LIMIT", "0").env("CUMULO_ADDRESS_RATE_LIMIT", "0");
        command.env("CUMULO_MAX_CONNECTIONS_PER_ADDRESS", "4096");
        command
    }))
}

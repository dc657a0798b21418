//! A host of the lab: a machine with its own libvirtd and the real agent.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use camino::Utf8PathBuf;
use serde_json::Value;

use crate::daemon::Daemon;
use crate::machine::Machine;
use crate::process::ProcessId;
use crate::virsh::Virsh;
use crate::{binaries, libvirtd, networks, wait, wiring};

/// The agent's folder, as the agent sees it.
const AGENT_STATE: &str = "/var/lib/cumulo/agent";
const JOIN_TOKEN: &str = "/var/lib/cumulo/join-token";

pub struct Host {
    pub machine: Machine,
    pub libvirtd: Daemon,
    pub virtlogd: Daemon,
    pub agent: Daemon,
    /// Runs as soon as the host shares a pool.
    pub guard: Daemon,
    pub virsh: Virsh,
    /// Its address in the underlay.
    pub address: String,
    /// What its agent is started with beside the rest.
    options: Arc<Mutex<Vec<String>>>,
}

impl Host {
    /// A machine with a running libvirtd; the agent has not joined yet.
    /// `address` is the machine's own in the underlay.
    pub(crate) async fn start(machine: Machine, address: String) -> Result<Self> {
        let (mut libvirtd, mut virtlogd) = libvirtd::prepare(&machine)?;
        virtlogd.start().await?;
        libvirtd.start().await?;
        let virsh = libvirtd::virsh(&machine);
        let options = Arc::default();
        let agent = agent(&machine, &address, Arc::clone(&options))?;
        let guard = guard(&machine)?;
        let host = Self { machine, libvirtd, virtlogd, agent, guard, virsh, address, options };
        libvirtd::wait_ready(&host.libvirtd, &host.virsh).await?;
        Ok(host)
    }

    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// Joins the cloud with a one-time token and starts the agent.
    pub(crate) async fn join(&mut self, control_plane: &str, token: &str) -> Result<()> {
        fs::write(self.machine.outside(JOIN_TOKEN), token).context("write the join token")?;
        let program = binaries::find("cumulo-agent")?;
        let arguments = ["join", "--control-plane", control_plane, "--token-file", JOIN_TOKEN];
        let rest = ["--state-dir", AGENT_STATE, "--name", self.name()];
        self.machine.run(program.as_str(), &[arguments.as_slice(), &rest].concat())?;
        fs::remove_file(self.machine.outside(JOIN_TOKEN)).context("remove the join token")?;
        self.agent.start().await
    }

    /// Tells the agent of a shared pool, as NAME=/PATH, by starting it anew, with a guard beside it.
    pub async fn share_pool(&mut self, pool: &str) -> Result<()> {
        let option = ["--shared-pool".to_owned(), pool.to_owned()];
        self.options.lock().unwrap_or_else(PoisonError::into_inner).extend(option);
        self.crash_agent().await?;
        if self.guard.is_running() { Ok(()) } else { self.guard.start().await }
    }

    /// Makes a directory a shared pool, given as NAME=/PATH.
    pub fn make_pool(&self, pool: &str) -> Result<()> {
        self.machine.run(binaries::find("cumulo-agent")?.as_str(), &["make-pool", pool])
    }

    /// kill -9 and a new start.
    pub async fn crash_agent(&mut self) -> Result<()> {
        self.agent.kill().await?;
        self.agent.start().await
    }

    /// kill -9 and a new start.
    pub async fn crash_guard(&mut self) -> Result<()> {
        self.guard.kill().await?;
        self.guard.start().await
    }

    /// kill -9 and a new start; returns when the new libvirtd answers.
    pub async fn crash_libvirtd(&mut self) -> Result<()> {
        self.libvirtd.kill().await?;
        self.libvirtd.start().await?;
        libvirtd::wait_ready(&self.libvirtd, &self.virsh).await
    }

    /// The QEMU process of each domain.
    pub fn qemu_processes(&self) -> Result<BTreeMap<String, ProcessId>> {
        self.virsh.qemu_processes()
    }

    /// The dnsmasq processes of its networks.
    pub fn dnsmasqs(&self) -> Vec<ProcessId> {
        networks::dnsmasqs(&self.machine)
    }

    /// The agent's folder, seen from the test.
    pub fn agent_state(&self) -> Utf8PathBuf {
        self.machine.outside(AGENT_STATE)
    }

    /// Every file of an instance or a volume that is left on this host, every domain and QEMU process, and every part of a
    /// virtual network.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let mut found: Vec<String> =
            self.virsh.domains()?.into_iter().map(|d| format!("domain {d}")).collect();
        found.extend(self.qemu_processes()?.into_keys().map(|name| format!("QEMU process of {name}")));
        let pool = self.agent_state().join("pool");
        for kind in ["instances", "incoming", "layers"] {
            found.extend(files_below(&pool.join(kind))?);
        }
        found.extend(networks::parts(&self.machine)?);
        Ok(found)
    }

    /// What differs on this host from what its agent was last told, after the agent had time to put it right.
    pub fn differences(&self, patience: Duration) -> Result<Vec<String>> {
        let program = binaries::find("cumulo-agent")?;
        let wait = patience.as_secs().to_string();
        let mut command = self.machine.command(program.as_str());
        command.args(["verify", "--state-dir", AGENT_STATE, "--wait", &wait, "--output", "json"]);
        let output = command.output().context("run cumulo-agent verify")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        ensure!(
            matches!(code, Some(0 | 3)),
            "verify of {} ended with {}: {said}",
            self.name(),
            output.status
        );
        let report: Value = serde_json::from_slice(&output.stdout).context("understand what verify found")?;
        let found = report["differences"].as_array().context("verify tells no differences")?;
        ensure!(found.is_empty() == (code == Some(0)), "verify ended with {code:?}: {report}");
        let line = |one: &Value| {
            let [part, about, detail] =
                ["part", "about", "detail"].map(|key| one[key].as_str().unwrap_or("?"));
            format!("{part}: {about}: {detail}")
        };
        Ok(found.iter().map(line).collect())
    }

    /// Whether its guard has to watch over a guest of that instance.
    pub fn guards(&self, instance: &str) -> bool {
        self.agent_state().join("guard").join(format!("{instance}.json")).exists()
    }

    /// Waits until nothing of any instance is left here; the error names what is.
    pub async fn wait_empty(&self, limit: Duration) -> Result<()> {
        wait::eventually(format!("{} to be empty", self.name()), limit, async || {
            let left = self.leftovers()?;
            ensure!(left.is_empty(), "left: {}", left.join(", "));
            Ok(())
        })
        .await
    }

    /// What its daemons said last.
    pub fn log_tails(&self, lines: usize) -> String {
        let guard = if self.guard.log().is_empty() { String::new() } else { self.guard.log_tail(lines) };
        self.agent.log_tail(lines) + &guard + &self.libvirtd.log_tail(lines)
    }
}

fn agent(machine: &Machine, address: &str, options: Arc<Mutex<Vec<String>>>) -> Result<Daemon> {
    let program = binaries::find("cumulo-agent")?;
    let log = machine.dir.join("agent.log");
    let (machine, address) = (machine.clone(), address.to_owned());
    Ok(Daemon::new(format!("agent of {}", machine.name), log, move || {
        let mut command = machine.command(program.as_str());
        command.args(["run", "--state-dir", AGENT_STATE, "--libvirt-uri", "qemu:///system"]);
        command.args(["--underlay-address", &address, "--external-interface", wiring::UPLINK]);
        command.args(&*options.lock().unwrap_or_else(PoisonError::into_inner));
        command
    }))
}

fn guard(machine: &Machine) -> Result<Daemon> {
    let program = binaries::find("cumulo-agent")?;
    let log = machine.dir.join("guard.log");
    let machine = machine.clone();
    Ok(Daemon::new(format!("guard of {}", machine.name), log, move || {
        let mut command = machine.command(program.as_str());
        command.args(["guard", "--state-dir", AGENT_STATE]);
        command
    }))
}

/// All files below a folder, none when there is no such folder.
fn files_below(dir: &Utf8PathBuf) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {dir}")),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = Utf8PathBuf::try_from(entry?.path())?;
        // A file may go while we look.
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => found.extend(files_below(&path)?),
            Ok(_) => found.push(path.into_string()),
            Err(_) => (),
        }
    }
    Ok(found)
}

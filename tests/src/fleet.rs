//! Simulated hosts beside the control plane of a lab: one process that is the agents of all of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::cloud::{Cloud, Project};
use crate::control::ControlPlane;
use crate::daemon::Daemon;
use crate::machine::Machine;
use crate::{binaries, wait};

/// As the process sees them.
const STATE: &str = "/var/lib/cumulo/fleet";
/// The addresses of simulated hosts, at which their agents listen for guests that come.
const UNDERLAY: &str = "198.18.0.0/15";
const TOKENS: &str = "/var/lib/cumulo/fleet-tokens";
const REPORT: &str = "/var/lib/cumulo/fleet-report.json";
/// Each agent comes to rest before the process ends.
const END: Duration = Duration::from_secs(30);
/// How long hosts take to join, and each of very many.
const READY: Duration = Duration::from_secs(120);
const READY_EACH: Duration = Duration::from_secs(1);
/// Far more than any test has.
const ENOUGH: u32 = 10_000_000;

pub struct Fleet {
    pub process: Daemon,
    hosts: usize,
    machine: Machine,
}

impl Fleet {
    /// So many hosts, all ready; `options` are those of `cumulo-agent simulate` beside the usual ones.
    pub async fn start(
        control: &ControlPlane,
        cloud: &Cloud,
        hosts: usize,
        options: &[&str],
    ) -> Result<Self> {
        let tokens = tokens(cloud, hosts).await?;
        fs::write(control.machine.outside(TOKENS), tokens).context("write the join tokens")?;
        Self::with(control, cloud, hosts, options).await
    }

    /// Those that have joined before and have ended, without options.
    pub async fn again(control: &ControlPlane, cloud: &Cloud, hosts: usize) -> Result<Self> {
        Self::with(control, cloud, hosts, &[]).await
    }

    async fn with(control: &ControlPlane, cloud: &Cloud, hosts: usize, options: &[&str]) -> Result<Self> {
        let machine = control.machine.clone();
        machine.run("ip", &["route", "replace", "local", UNDERLAY, "dev", "lo"])?;
        let (program, inside) = (binaries::find("cumulo-agent")?, machine.clone());
        let (count, control_plane) = (hosts.to_string(), control.agent_url());
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let process = Daemon::new("the fleet", machine.dir.join("fleet.log"), move || {
            let mut command = inside.command(program.as_str());
            command.args(["simulate", "--hosts", &count, "--control-plane", &control_plane]);
            command.args(["--token-file", TOKENS, "--state-dir", STATE, "--report", REPORT]).args(&options);
            command
        });
        let mut fleet = Self { process, hosts, machine };
        fleet.process.start().await?;
        fleet.wait_ready(cloud, READY + READY_EACH * u32::try_from(hosts)?).await?;
        Ok(fleet)
    }

    /// Waits until the control plane calls every host ready.
    pub async fn wait_ready(&self, cloud: &Cloud, limit: Duration) -> Result<()> {
        let ready = wait::eventually("the fleet to be ready", limit, async || {
            self.process.process()?;
            let hosts = cloud.get("/v1/hosts?limit=500").await?.success()?;
            let hosts = hosts["items"].as_array().context("no list of hosts")?;
            let ready = hosts.iter().filter(|host| host["state"] == "ready").count();
            ensure!(ready == self.hosts, "{ready} of {} hosts are ready", self.hosts);
            Ok(())
        });
        ready.await.with_context(|| self.process.log_tail(20))
    }

    /// kill -9 of all agents and a new start: they are the same hosts, and their guests run on.
    pub async fn crash(&mut self) -> Result<()> {
        self.process.kill().await?;
        self.process.start().await
    }

    /// Ends it in order; gives its report.
    pub async fn end(&mut self) -> Result<Value> {
        self.process.stop(END).await?;
        let report = self.machine.outside(REPORT);
        let text = fs::read(&report).with_context(|| format!("read {report}"))?;
        serde_json::from_slice(&text).with_context(|| format!("understand {report}"))
    }

    /// Ends guests as their hosts' operator would, who does not ask the agents. Those do not run meanwhile.
    pub fn destroy_guests(&self, ids: &BTreeSet<String>) -> Result<()> {
        for host in self.machine.outside(STATE).read_dir_utf8()? {
            let file = host?.path().join("domains.json");
            if !file.is_file() {
                continue;
            }
            let mut kept: Value = serde_json::from_slice(&fs::read(&file)?)?;
            let domains = kept["domains"].as_array_mut().with_context(|| format!("no domains in {file}"))?;
            domains.retain(|domain| domain["id"].as_str().is_none_or(|id| !ids.contains(id)));
            fs::write(&file, serde_json::to_vec(&kept)?)?;
        }
        Ok(())
    }

    /// What has come of each ordeal that is over.
    pub fn ordeals(&self) -> Result<Vec<Value>> {
        let file = self.machine.outside(STATE).join("ordeals.jsonl");
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("understand {line}")))
            .collect()
    }

    /// What happened in a group of hosts that share a pool.
    pub fn history(&self, group: &str) -> Result<String> {
        let file = self.machine.outside(STATE).join(format!("pools/{group}.history"));
        fs::read_to_string(&file).with_context(|| format!("read {file}"))
    }

    /// How many ordeals a group has begun.
    pub fn begun(&self, group: &str) -> Result<usize> {
        let history = self.history(group)?;
        // The last line may be half written.
        let records = history.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let seeds: BTreeSet<_> = records.filter_map(|record| record["seed"].as_u64()).collect();
        Ok(seeds.len())
    }

    /// The files that the hosts have of instances.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for host in self.machine.outside(STATE).read_dir_utf8()? {
            let host = host?;
            for kind in ["desired", "boots", "outbox"] {
                let folder = host.path().join(kind);
                if folder.is_dir() {
                    let files = folder.read_dir_utf8()?.flatten();
                    found.extend(files.map(|file| file.path().to_string()));
                }
            }
        }
        Ok(found)
    }
}

/// One for each host, a line each.
async fn tokens(cloud: &Cloud, hosts: usize) -> Result<String> {
    let made = stream::iter(0..hosts).map(|_| async {
        let answer = cloud.post("/v1/host_join_tokens", json!({"ttl_seconds": 3600})).await?.success()?;
        answer["token"].as_str().map(str::to_owned).context("no token in the answer")
    });
    let made: Vec<String> = made.buffer_unordered(8).try_collect().await?;
    Ok(made.iter().fold(String::new(), |mut all, token| {
        let _ = writeln!(all, "{token}");
        all
    }))
}

/// A project without limits for thousands of instances: with an image `nothing`, which is empty, a type `small`, and a
/// network `fleet` that is large enough.
pub async fn roomy_project(cloud: &Cloud, name: &str) -> Result<Project> {
    let project = cloud.project(name).await?;
    let limits = json!({"instances": ENOUGH, "vcpus": ENOUGH, "memory_mib": ENOUGH, "disk_gib": ENOUGH,
        "ports": ENOUGH, "volumes": ENOUGH});
    cloud.send(Method::PATCH, &project.path("/quotas"), &HeaderMap::new(), Some(limits)).await?.success()?;
    cloud.post(&project.path("/networks"), json!({"name": "fleet"})).await?.success()?;
    let subnet = json!({"name": "fleet", "network": "fleet", "cidr": "10.20.0.0/16"});
    cloud.post(&project.path("/subnets"), subnet).await?.success()?;
    let image = json!({"name": "nothing", "format": "raw"});
    cloud.post(&project.path("/images"), image).await?.success()?;
    let file = tempfile::NamedTempFile::new()?;
    file.as_file().set_len(1 << 20)?;
    let path = Utf8Path::from_path(file.path()).context("a path of text")?;
    project.upload(&project.path("/images/nothing"), path).await?.success()?;
    cloud.instance_type("small", 1, 256, 1).await?;
    Ok(project)
}

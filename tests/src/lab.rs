//! A running lab.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;

use crate::cloud::{Cloud, Instance, Project};
use crate::control::ControlPlane;
use crate::guest::{self, Guest};
use crate::host::Host;
use crate::machine::Machine;
use crate::machines::Machines;
use crate::process::ProcessId;
use crate::shell::Shell;
use crate::{wait, wiring};

/// The probe of a new host boots a tiny guest, and may have to find out that KVM hangs.
const HOST_READY: Duration = Duration::from_secs(120);

/// Hosts look every ten seconds, and guests that stop may take their time.
const SETTLED: Duration = Duration::from_secs(40);

pub struct LabOptions {
    pub hosts: usize,
}

impl Default for LabOptions {
    /// `CUMULO_LAB_HOSTS` hosts, or three.
    fn default() -> Self {
        let asked = std::env::var("CUMULO_LAB_HOSTS").ok().and_then(|text| text.parse().ok());
        Self { hosts: asked.unwrap_or(3) }
    }
}

/// A cloud with its control plane and hosts, all ready.
pub struct Lab {
    pub control: ControlPlane,
    pub hosts: Vec<Host>,
    pub cloud: Cloud,
    underlay: Machine,
}

/// Runs a test in a lab of its own. When it fails, the error shows what all daemons said last; when it
/// succeeds, `verify` must find nothing on any machine, and the lab must end without leaving anything.
pub async fn in_lab(options: LabOptions, test: impl AsyncFnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let machines = tokio::task::spawn_blocking(move || Machines::start(options.hosts)).await??;
    let mut lab = Lab::start(&machines, options.hosts).await?;
    // Errors come as values; a panic unwinds through here and ends the machines all the same.
    let tested = match test(&mut lab).await {
        Ok(()) => lab.verify().await,
        failed => failed,
    };
    tested.map_err(|error| anyhow::anyhow!("{error:#}\n{}{}", lab.guest_states(), lab.log_tails(30)))?;
    drop(lab);
    machines.finish()
}

impl Lab {
    /// Starts every daemon, joins every host, and waits until all are ready.
    async fn start(machines: &Machines, hosts: usize) -> Result<Self> {
        let control = ControlPlane::start(machines.control()?).await?;
        let cloud = control.login().await?;
        let mut lab = Self { control, hosts: Vec::new(), cloud, underlay: machines.underlay()? };
        for number in 1..=hosts {
            // One after the other: the first one fills the cache of capabilities for all.
            let machine = machines.host(number)?;
            lab.hosts.push(Host::start(machine, wiring::host_address(number)).await?);
        }
        lab.join_all().await?;
        lab.wait_hosts_ready(HOST_READY).await?;
        lab.ignore_low_pools().await?;
        Ok(lab)
    }

    /// How full the disk of this machine is says nothing about the cloud that is tried on it.
    async fn ignore_low_pools(&self) -> Result<()> {
        for host in &self.hosts {
            let path = format!("/v1/hosts/{}", host.name());
            self.cloud.patch(&path, json!({"pool_low_percent": 0})).await?.success()?;
        }
        Ok(())
    }

    async fn join_all(&mut self) -> Result<()> {
        let agent_url = self.control.agent_url();
        let cloud = &self.cloud;
        let joins = self.hosts.iter_mut().map(async |host| {
            let answer = cloud.post("/v1/host_join_tokens", json!({"ttl_seconds": 600})).await?.success()?;
            let token = answer["token"].as_str().context("no token in the answer")?.to_owned();
            host.join(&agent_url, &token).await.with_context(|| format!("join {}", host.name()))
        });
        try_join_all(joins).await.map(|_| ())
    }

    /// Waits until the control plane calls every host ready.
    pub async fn wait_hosts_ready(&self, limit: Duration) -> Result<()> {
        let ready = wait::eventually("all hosts to be ready", limit, async || {
            let answer = self.cloud.get("/v1/hosts").await?.success()?;
            let states: Vec<(&str, &str)> = items(&answer)
                .filter_map(|host| Some((host["name"].as_str()?, host["state"].as_str()?)))
                .collect();
            let ready = states.iter().filter(|(_, state)| *state == "ready").count();
            ensure!(ready == self.hosts.len(), "{states:?}");
            Ok(())
        });
        ready.await.with_context(|| self.log_tails(20))
    }

    /// A project with this guest's image and an instance type that fits it, both named after the guest.
    pub async fn project_with(&self, guest: Guest) -> Result<Project> {
        self.project_named("tests", guest).await
    }

    /// The same under a name of its own.
    pub async fn project_named(&self, name: &str, guest: Guest) -> Result<Project> {
        let image = tokio::task::spawn_blocking(move || guest::cached(guest)).await??;
        let project = self.cloud.project(name).await?;
        project.image(guest.name(), &image).await?;
        let (memory_mib, root_disk_gib) = guest.needs();
        self.cloud.instance_type(guest.name(), 1, memory_mib, root_disk_gib).await?;
        Ok(project)
    }

    /// The host that runs an instance. A host whose libvirt is dead may be beside it.
    pub fn host_of(&self, instance: &Instance) -> Result<&Host> {
        let domain = format!("cumulo-{}", instance.id);
        let mut silent = Vec::new();
        for host in &self.hosts {
            match host.virsh.domains() {
                Ok(domains) if domains.contains(&domain) => return Ok(host),
                Ok(_) => {}
                Err(error) => silent.push(format!("{}: {error:#}", host.name())),
            }
        }
        anyhow::bail!("no host has {domain}; these did not say: {silent:?}")
    }

    /// A shell in a fast guest, once that has booted.
    pub async fn shell(&self, instance: &Instance, limit: Duration) -> Result<Shell> {
        instance.wait_for_state("running", limit).await?;
        instance.wait_for_serial("cumulo-test: ready", limit).await?;
        let host = self.host_of(instance)?;
        tokio::task::block_in_place(|| Shell::open(host, instance))
    }

    /// The QEMU process of each domain of all hosts. A domain that two hosts have is an error.
    pub fn qemu_processes(&self) -> Result<BTreeMap<String, ProcessId>> {
        let mut all = BTreeMap::new();
        for host in &self.hosts {
            for (domain, process) in host.qemu_processes()? {
                ensure!(all.insert(domain.clone(), process).is_none(), "{domain} runs on two hosts");
            }
        }
        Ok(all)
    }

    /// Cuts a host off from the underlay, or connects it again.
    pub fn set_cable(&self, host: &Host, plugged: bool) -> Result<()> {
        wiring::set_cable(&self.underlay, host.name(), plugged)
    }

    /// Waits until no host has anything of an instance left.
    pub async fn wait_empty(&self, limit: Duration) -> Result<()> {
        try_join_all(self.hosts.iter().map(|host| host.wait_empty(limit))).await.map(|_| ())
    }

    /// Waits until every host and the control plane are what they shall be; the error names what is not.
    pub async fn verify(&self) -> Result<()> {
        for host in &self.hosts {
            let found = host.differences(SETTLED)?;
            ensure!(found.is_empty(), "{} is not as wanted: {found:#?}", host.name());
        }
        wait::eventually("verify to find nothing in the control plane", SETTLED, async || {
            let found = self.control.findings()?;
            ensure!(found.is_empty(), "{found:#?}");
            Ok(())
        })
        .await
    }

    /// What all guests are doing.
    fn guest_states(&self) -> String {
        self.hosts.iter().map(|host| format!("guests of {}:\n{}", host.name(), host.virsh.states())).collect()
    }

    /// What all daemons said last.
    pub fn log_tails(&self, lines: usize) -> String {
        let hosts: String = self.hosts.iter().map(|host| host.log_tails(lines)).collect();
        self.control.api.log_tail(lines) + &hosts
    }
}

/// The items of a list answer.
pub fn items(answer: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    answer["items"].as_array().into_iter().flatten()
}

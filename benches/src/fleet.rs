//! Hosts that join a control plane and listen to it. All but one are simulated: they fetch what they are told and do
//! nothing about it. One is an agent with the networks of a real host, in namespaces of its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_trait::async_trait;
use camino::Utf8PathBuf;
use compute_agent::agent::{self, StateDir};
use compute_agent::clock::SystemClock;
use compute_agent::control_plane::ControlPlane;
use compute_agent::control_plane::http::HttpControlPlane;
use compute_agent::guard::Guards;
use compute_agent::guard::clock::KernelClock;
use compute_agent::guard::witness::Witness;
use compute_agent::host_storage::SimulatedStorage;
use compute_agent::hypervisor::simulated::{Simulated, SimulatedMachine};
use compute_agent::identity::Identity;
use compute_agent::identity::join::join;
use compute_agent::metadata::Metadata;
use compute_agent::networks::{Found, HostNetworking, LookError, Outcome, RealNetworking};
use lab::Cloud;
use networking::{links, packets};
use protocol::agent::*;
use protocol::{MemoryMib, Revision, Sha256, SizeGib};
use serde_json::json;
use sha2::Digest;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::control::Control;
use crate::world::Host;

/// A host has a document.
pub(crate) struct Heard {
    pub host: usize,
    pub rules: usize,
    pub local_ports: usize,
    pub members: usize,
    pub at: Instant,
}

impl Heard {
    fn of(host: usize, document: &HostNetwork) -> Self {
        let rules = document.security_groups.iter().flat_map(|group| &group.rules);
        let members = rules.clone().map(|rule| match &rule.remote {
            Remote::Group { addresses, .. } => addresses.len(),
            Remote::Cidr { .. } => 0,
        });
        Self {
            host,
            rules: rules.clone().count(),
            local_ports: document.networks.iter().map(|network| network.ports.len()).sum(),
            members: members.sum(),
            at: Instant::now(),
        }
    }
}

pub(crate) type Ears = mpsc::UnboundedSender<Heard>;

async fn new_identity(control: &Control, cloud: &Cloud, number: usize) -> Result<(Utf8PathBuf, Identity)> {
    let answer = cloud.post("/v1/host_join_tokens", json!({"ttl_seconds": 600})).await?.success()?;
    let token = answer["token"].as_str().context("the answer holds no join token")?.parse()?;
    let folder = control.folder.path().join(format!("host-{number}"));
    let folder = Utf8PathBuf::try_from(folder)?;
    std::fs::create_dir(&folder)?;
    let name = format!("host-{number}").parse()?;
    join(&control.agent_url.parse()?, &token, &folder, &name, &SystemClock).await?;
    let identity = Identity::load(&folder)?;
    Ok((folder, identity))
}

/// Of a host that has reported nothing.
pub(crate) fn heartbeat(epoch: Epoch) -> Heartbeat {
    Heartbeat {
        epoch,
        hypervisor: HypervisorHealth::Ok,
        observed_digest: Sha256::from_bytes(sha2::Sha256::digest("").into()),
        quarantined: 0,
        pool: None,
        shared_pools: Vec::new(),
        guarded_pools: Vec::new(),
        seen_leases: Vec::new(),
    }
}

/// A host that only listens.
pub(crate) struct SimulatedHost {
    number: usize,
    line: Arc<HttpControlPlane>,
    epoch: Epoch,
}

impl SimulatedHost {
    /// Joins and opens a session, which one of the tasks keeps alive.
    pub(crate) async fn join(
        control: &Control,
        cloud: &Cloud,
        number: usize,
        cpus: u32,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self> {
        let (_, identity) = new_identity(control, cloud, number).await?;
        let line = Arc::new(HttpControlPlane::new(&identity)?);
        let inventory = Inventory {
            cpus,
            memory_mib: MemoryMib(cpus * 4 * 1024),
            disk_gib: SizeGib(cpus * 64),
            cpu_model: "simulated".to_owned(),
            hypervisor: "simulated".to_owned(),
            acceleration: Acceleration::Simulated,
            acceleration_detail: "nothing runs".to_owned(),
            architectures: vec![Architecture::X86_64],
            features: Vec::new(),
            cpu_models: Vec::new(),
            boot_id: Uuid::now_v7(),
            underlay_address: Some(Ipv4Addr::from(0xc612_0000 + u32::try_from(number)?).into()),
        };
        let agent_version = env!("CARGO_PKG_VERSION").to_owned();
        let request = OpenSession { protocol_version: PROTOCOL_VERSION, agent_version, inventory };
        let opened = line.open_session(&request).await?;
        let (beating, epoch) = (Arc::clone(&line), opened.epoch);
        let pause = Duration::from_secs(opened.heartbeat_seconds.into());
        tasks.spawn(async move {
            loop {
                if let Err(error) = beating.heartbeat(&heartbeat(epoch)).await {
                    eprintln!("host {number}: {error}");
                }
                tokio::time::sleep(pause).await;
            }
        });
        Ok(Self { number, line, epoch })
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Sends one heartbeat more.
    pub(crate) async fn beat(&self) -> Result<()> {
        self.line.heartbeat(&heartbeat(self.epoch)).await?;
        Ok(())
    }

    /// Follows the desired state.
    pub(crate) async fn listen(self, ears: Ears) {
        let mut query =
            DesiredQuery { epoch: self.epoch, after: Revision(0), wait_seconds: MAX_WAIT_SECONDS };
        loop {
            match self.line.desired(&query).await {
                Ok(page) => {
                    query.after = page.revision;
                    for object in page.objects {
                        if let DesiredBody::Network(document) = object.body {
                            drop(ears.send(Heard::of(self.number, &document)));
                        }
                    }
                }
                Err(error) => {
                    eprintln!("host {}: {error}", self.number);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// The product's agent with the networks of a real host; its guests are simulated.
pub(crate) async fn start_agent(
    control: &Control,
    cloud: &Cloud,
    number: usize,
    host: Host,
    underlay: Ipv4Addr,
    ears: Ears,
) -> Result<Agent> {
    let (folder, identity) = new_identity(control, cloud, number).await?;
    let state_dir = StateDir::take(&folder)?;
    let underlay = Some(underlay.into());
    let boot = Uuid::now_v7();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let networks = folder.join("networks");
    let networking = move |metadata: Arc<Metadata>| -> Arc<dyn HostNetworking> {
        let links = links::Surroundings { underlay, external_interface: None };
        let packets = packets::Surroundings { underlay, ..Default::default() };
        let real = RealNetworking::new(links, packets, &networks, metadata);
        Arc::new(InNamespace { number, host, inside: Some(Arc::new(Inside { runtime, real })), ears })
    };
    let guards = Guards::open(&folder, BTreeMap::new(), boot, Arc::new(KernelClock))?;
    let surroundings = agent::Surroundings {
        hypervisor: Arc::new(Simulated::new(SimulatedMachine::new(boot))),
        storage: Arc::new(SimulatedStorage::default()),
        networking: Box::new(networking),
        control_plane: Arc::new(HttpControlPlane::new(&identity)?),
        clock: Arc::new(SystemClock),
        machine_boot: boot,
        underlay_address: underlay,
        guards: Arc::new(guards),
        witness: Witness::start(identity.membership.host_id, []),
    };
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move { agent::run(&state_dir, surroundings, stopped).await });
    Ok(Agent { stop, task })
}

pub(crate) struct Agent {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), agent::StateError>>,
}

impl Agent {
    /// Ends it; its networks go, too.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await??)
    }
}

/// What makes a host's networks, on the host's own thread.
struct Inside {
    runtime: Runtime,
    real: RealNetworking,
}

/// Tells when a document has been applied.
struct InNamespace {
    number: usize,
    host: Host,
    inside: Option<Arc<Inside>>,
    ears: Ears,
}

impl InNamespace {
    fn converge_now(&self, wanted: HostNetwork) -> Result<Outcome> {
        let inside = Arc::clone(self.inside.as_ref().context("the host has ended")?);
        self.host.run(move || inside.runtime.block_on(inside.real.converge(&wanted)))
    }
}

#[async_trait]
impl HostNetworking for InNamespace {
    async fn converge(&self, wanted: &HostNetwork) -> Outcome {
        let outcome = tokio::task::block_in_place(|| self.converge_now(wanted.clone()));
        let outcome = outcome.unwrap_or_else(|error| panic!("the host's networks: {error:#}"));
        for fault in &outcome.faults {
            eprintln!("host {}: {fault:?}", self.number);
        }
        drop(self.ears.send(Heard::of(self.number, wanted)));
        outcome
    }

    async fn look(&self, wanted: &HostNetwork) -> Result<Vec<Found>, LookError> {
        let (inside, wanted) = (self.inside.clone(), wanted.clone());
        tokio::task::block_in_place(|| {
            let inside = inside.unwrap_or_else(|| panic!("host {} has ended", self.number));
            let looked = self.host.run(move || inside.runtime.block_on(inside.real.look(&wanted)));
            looked.unwrap_or_else(|error| panic!("host {}: {error:#}", self.number))
        })
    }
}

impl Drop for InNamespace {
    /// The processes that serve networks outlive the agent.
    fn drop(&mut self) {
        let ended = self.converge_now(HostNetwork::default());
        // A runtime may not end in another one's thread.
        let inside = self.inside.take();
        let ended = self.host.run(move || drop(inside)).and(ended);
        if let Err(error) = ended {
            eprintln!("host {}: {error:#}", self.number);
        }
    }
}

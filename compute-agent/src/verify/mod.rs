//! `cumulo-agent verify`: compares this host with what is wanted of it, and changes nothing.
//!
//! What is wanted is what the agent has last heard, as it lies on disk; the agent may run or not. The comparison is
//! the agent's own: its planners say what they would do.

mod instances;
mod leftovers;
mod pools;
mod running;
mod settings;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use networking::links::{Links, stray_card};
use networking::packets::Packets;
use networking::services::Services;
use protocol::agent::{DriftCode, DriftSubject, HostDifference, HostNetwork};
use protocol::{InstanceId, Revision};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use running::RunningHost;
pub use settings::Settings;

use self::pools::Pools;
use self::shared::{Found, Turns};
use crate::clock::{Clock, SystemClock};
use crate::desired::DesiredStore;
use crate::guard::Guards;
use crate::guard::clock::KernelClock;
use crate::hypervisor::libvirt::{Libvirt, Options};
use crate::hypervisor::{Domain, Hypervisor, HypervisorError};
use crate::networks::{self, NetworkStore, Part};
use crate::reconcile::boots::Boots;

/// How long libvirt may take to be reached.
const CONNECT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const HOST: &str = "host";

/// What was looked at and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The revision of the networks' document; absent when the host was never told of networks.
    pub revision: Option<Revision>,
    /// Instances of which something is wanted.
    pub instances: usize,
    pub differences: Vec<Difference>,
}

/// Something that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `devices`, `packet_rules`, `services`, `pools`, `guard`, `instances` or `leftovers`.
    pub part: &'static str,
    /// What kind of difference it is; absent of what is under way, which is over by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<DriftCode>,
    /// Its kind and id.
    pub about: String,
    /// What is to be done.
    pub detail: String,
    #[serde(skip)]
    subject: DriftSubject,
}

impl Difference {
    fn new(code: DriftCode, subject: DriftSubject, detail: String) -> Self {
        Self { part: part(code), code: Some(code), about: about(subject), detail, subject }
    }

    /// Of something that is under way.
    fn passing(part: &'static str, subject: DriftSubject, detail: String) -> Self {
        Self { part, code: None, about: about(subject), detail, subject }
    }

    fn told(self) -> Option<HostDifference> {
        Some(HostDifference { code: self.code?, about: self.subject, detail: self.detail })
    }
}

const fn part(code: DriftCode) -> &'static str {
    match code {
        DriftCode::NetworkDeviceDiffers => "devices",
        DriftCode::PacketRulesDiffer => "packet_rules",
        DriftCode::NetworkServiceDiffers => "services",
        DriftCode::PoolUnusable => "pools",
        DriftCode::GuardFaulty => "guard",
        DriftCode::InstanceDiffers
        | DriftCode::InstanceStandsStill
        | DriftCode::InstanceUnreadable
        | DriftCode::InstanceFileMissing
        | DriftCode::InstanceDiskDiffers
        | DriftCode::InstanceCardMissing => "instances",
        DriftCode::UnknownGuest
        | DriftCode::UnknownDomain
        | DriftCode::UnknownFiles
        | DriftCode::UnknownRecord
        | DriftCode::UnknownProcess
        | DriftCode::ForeignFile
        | DriftCode::Unknown => "leftovers",
    }
}

/// What is wanted of a host, as its agent has it on disk.
struct Host {
    state_dir: Utf8PathBuf,
    settings: Settings,
    desired: Arc<DesiredStore>,
    boots: Arc<Boots>,
    guards: Arc<Guards>,
    networks: Arc<NetworkStore>,
    turns: Turns,
}

/// Looks at the host whose agent has this state folder. While there are differences, looks again until `patience` is
/// over: an agent that runs puts them right.
///
/// # Errors
/// When no agent has run here, or the host cannot be looked at.
pub async fn run(state_dir: &Utf8Path, machine_boot: Uuid, patience: Duration) -> Result<Report> {
    let until = Instant::now() + patience;
    loop {
        let report = look(state_dir, machine_boot).await?;
        if report.differences.is_empty() || Instant::now() >= until {
            return Ok(report);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn look(state_dir: &Utf8Path, machine_boot: Uuid) -> Result<Report> {
    let host = Host::read(state_dir, machine_boot)?;
    let uri = host.settings.libvirt_uri.clone();
    let uri = uri.context("the hypervisor of this agent is simulated: there is nothing to look at")?;
    let domains = domains(Options { uri, pool: host.pool() }).await?;
    let stored = host.networks.get();
    let networks = host.networks(stored.as_ref().map(|stored| &stored.networks)).await?;
    let mut differences: Vec<_> = host.without_strangers(networks, &domains).collect();
    // The agent that keeps the states of shared pools is another process, if there is one.
    let (shared, unusable) = host.shared_pools(&[]).await;
    differences.extend(unusable);
    differences.extend(host.beside_networks(&domains, shared, machine_boot, SystemClock.now())?);
    let revision = stored.map(|stored| stored.revision);
    Ok(Report { revision, instances: host.desired.ids().len(), differences })
}

impl Host {
    fn read(state_dir: &Utf8Path, machine_boot: Uuid) -> Result<Self> {
        // Nothing but its agent makes the folders.
        let settings = Settings::read(state_dir)?;
        let unreadable = |what: &'static str| move || format!("the {what} in {state_dir} cannot be read");
        let shared = settings.shared_pools.clone();
        let guards = Guards::open(state_dir, shared, machine_boot, Arc::new(KernelClock));
        Ok(Self {
            settings,
            guards: Arc::new(guards.with_context(unreadable("guarded guests"))?),
            desired: Arc::new(
                DesiredStore::open(state_dir.join("desired")).with_context(unreadable("wishes"))?,
            ),
            boots: Arc::new(
                Boots::open(state_dir.join("boots")).with_context(unreadable("records of boots"))?,
            ),
            networks: Arc::new(
                NetworkStore::open(state_dir.join("networks.json")).with_context(unreadable("networks"))?,
            ),
            state_dir: state_dir.to_owned(),
            turns: Turns::default(),
        })
    }

    fn pool(&self) -> Utf8PathBuf {
        self.state_dir.join("pool")
    }

    /// Everything but the networks and shared pools, of which `shared` was found. Reads files.
    fn beside_networks(
        &self,
        domains: &HashMap<InstanceId, Domain>,
        shared: Found,
        machine_boot: Uuid,
        now: OffsetDateTime,
    ) -> Result<Vec<Difference>> {
        let pools = Pools::of(&self.pool(), shared)?;
        let mut differences = self.guards();
        differences.extend(instances::differences(self, domains, &pools, machine_boot, now));
        differences.extend(leftovers::differences(self, domains, &pools.local));
        Ok(differences)
    }

    /// The same without the cards of guests of which nothing is wanted: they go with their guest, which is named.
    fn without_strangers(
        &self,
        networks: impl IntoIterator<Item = Difference>,
        domains: &HashMap<InstanceId, Domain>,
    ) -> impl Iterator<Item = Difference> {
        let wanted: HashSet<_> = self.desired.ids().into_iter().collect();
        let strangers = domains.values().filter(|domain| !wanted.contains(&domain.id));
        let taps = strangers.flat_map(|domain| &domain.cards).filter_map(|card| card.tap.as_deref());
        let theirs: HashSet<_> = taps.map(stray_card).collect();
        networks.into_iter().filter(move |one| !theirs.contains(&one.detail))
    }

    /// What keeps the guard from its work.
    fn guards(&self) -> Vec<Difference> {
        let faults = self.guards.faults().into_iter();
        faults.map(|detail| Difference::new(DriftCode::GuardFaulty, DriftSubject::Host, detail)).collect()
    }

    async fn networks(&self, wanted: Option<&HostNetwork>) -> Result<Vec<Difference>> {
        let links = Links::new(self.settings.links());
        let packets = Packets::new(self.settings.packets());
        let services = Services::new(self.state_dir.join(networks::FOLDER));
        let found = networks::look(&links, &packets, &services, wanted).await?;
        Ok(found.into_iter().map(of_networks).collect())
    }
}

fn of_networks(found: networks::Found) -> Difference {
    let code = match found.part {
        Part::Devices => DriftCode::NetworkDeviceDiffers,
        Part::PacketRules => DriftCode::PacketRulesDiffer,
        Part::Services => DriftCode::NetworkServiceDiffers,
    };
    Difference::new(code, found.subject.into(), found.detail)
}

/// Every domain of ours.
async fn domains(options: Options) -> Result<HashMap<InstanceId, Domain>> {
    let hypervisor: Arc<dyn Hypervisor> = Arc::new(Libvirt::start(options));
    let until = Instant::now() + CONNECT;
    loop {
        match hypervisor.domains().await {
            Ok(domains) => return Ok(domains.into_iter().map(|domain| (domain.id, domain)).collect()),
            Err(HypervisorError::Unreachable(_)) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error).context("the domains cannot be listed"),
        }
    }
}

fn about(subject: DriftSubject) -> String {
    match subject {
        DriftSubject::Host => HOST.to_owned(),
        DriftSubject::Instance(id) => format!("instance {id}"),
        DriftSubject::Port(id) => format!("port {id}"),
        DriftSubject::Network(id) => format!("network {id}"),
        DriftSubject::Router(id) => format!("router {id}"),
        DriftSubject::SecurityGroup(id) => format!("security group {id}"),
    }
}

/// For people: a line for each difference, then what it comes to.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = std::iter::once(("PART", "ABOUT", "TO BE DONE"))
            .chain(self.differences.iter().map(|one| (one.part, one.about.as_str(), one.detail.as_str())))
            .collect();
        if !self.differences.is_empty() {
            let width = |of: fn(&(&str, &str, &str)) -> usize| rows.iter().map(of).max().unwrap_or_default();
            let (parts, abouts) = (width(|row| row.0.len()), width(|row| row.1.len()));
            for (part, about, detail) in &rows {
                writeln!(out, "{part:parts$}  {about:abouts$}  {detail}")?;
            }
        }
        let of = match self.revision {
            Some(revision) => format!("{} instances and revision {revision} of the networks", self.instances),
            None => format!("{} instances; the host was never told of networks", self.instances),
        };
        match self.differences.len() {
            0 => write!(out, "The host is as wanted: {of}."),
            1 => write!(out, "1 difference from what is wanted: {of}."),
            many => write!(out, "{many} differences from what is wanted: {of}."),
        }
    }
}

//! The reconciler against the strict simulations: killed everywhere, and led through random lives.

mod cards;
mod disks;
mod golden;
mod guarded;
mod killed;
mod lives;
mod memory;
mod migrating;
mod pauses;
mod shared;

use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use camino::Utf8PathBuf;
use protocol::InstanceId;
use protocol::agent::{DesiredBody, InstanceReport, ObservedState, Step as Told};
use uuid::Uuid;

use super::boots::{Boots, Phase};
use super::plan::Step;
use super::{Checkpoint, Moment, Outcome, Parts, Reconciler};
use crate::clock::{Clock, ManualClock};
use crate::control_plane::fake::FakeControlPlane;
use crate::desired::DesiredStore;
use crate::guard;
use crate::host_storage::{Doomed, Files, HostStorage, SimulatedStorage};
use crate::hypervisor::simulated::{Simulated, SimulatedMachine};
use crate::hypervisor::{DomainState, Event, Hypervisor};
use crate::migration::Relays;
use crate::networks::simulated::SimulatedNetworking;
use crate::networks::{Keeper, NetworkStore};
use crate::report::Outbox;
use crate::samples;

/// A host whose agent may die and come back: everything here outlives it.
struct Host {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    hypervisor: Arc<Simulated>,
    storage: Arc<SimulatedStorage>,
    networking: Arc<SimulatedNetworking>,
    control_plane: Arc<FakeControlPlane>,
    machine_boot: Uuid,
}

/// In memory where there is such a place: thousands of synced writes take their time on a disk.
fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// An agent's life: from its start to its death.
struct Life {
    reconciler: Reconciler,
    desired: Arc<DesiredStore>,
    boots: Arc<Boots>,
    outbox: Arc<Outbox>,
    networks: Arc<NetworkStore>,
    keeper: Arc<Keeper>,
    clock: Arc<ManualClock>,
    events: tokio::sync::broadcast::Receiver<Event>,
}

/// What is left when everything is quiet.
#[derive(Debug, PartialEq)]
struct End {
    domain: Option<(i64, DomainState)>,
    /// How many layers the domain has of each volume.
    chains: Vec<usize>,
    files: Files,
    layers: usize,
    merged: usize,
    record: Option<(i64, Phase)>,
    state: Option<ObservedState>,
}

/// Cuts the n-th checkpoint off.
struct KillAt(AtomicU64);

const NEVER: u64 = u64::MAX;

impl Checkpoint for KillAt {
    fn reached(&self, _: InstanceId, _: &Step, _: Moment) -> ControlFlow<()> {
        if self.0.fetch_sub(1, Ordering::SeqCst) == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

impl Host {
    fn new() -> Self {
        let machine_boot = Uuid::now_v7();
        Self {
            dir: tempdir(),
            clock: Arc::default(),
            hypervisor: Arc::new(Simulated::new(SimulatedMachine::new(machine_boot))),
            storage: Arc::default(),
            networking: Arc::default(),
            control_plane: FakeControlPlane::with_blob(samples::IMAGE_SHA256, samples::IMAGE),
            machine_boot,
        }
    }

    fn folder(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.dir.path().join(name)).unwrap()
    }

    /// A fresh agent, killed at a checkpoint.
    fn start_agent(&self, kill_at: u64) -> Life {
        let desired = Arc::new(DesiredStore::open(self.folder("desired")).unwrap());
        let boots = Arc::new(Boots::open(self.folder("boots")).unwrap());
        let outbox = Arc::new(Outbox::open(self.folder("outbox")).unwrap());
        let networks = Arc::new(NetworkStore::open(self.folder("networks.json")).unwrap());
        let networking = Arc::clone(&self.networking) as _;
        let keeper = Arc::new(Keeper::new(
            Arc::clone(&networks),
            networking,
            Arc::clone(&outbox),
            Arc::clone(&self.clock) as _,
        ));
        let events = self.hypervisor.events();
        let reconciler = Reconciler::new(Parts {
            desired: Arc::clone(&desired),
            boots: Arc::clone(&boots),
            outbox: Arc::clone(&outbox),
            hypervisor: Arc::clone(&self.hypervisor) as _,
            storage: Arc::clone(&self.storage) as _,
            networks: Arc::clone(&keeper),
            control_plane: Arc::clone(&self.control_plane) as _,
            clock: Arc::clone(&self.clock) as _,
            guards: guard::tests::guards(&self.folder("."), self.machine_boot, Arc::clone(&self.clock) as _),
            relays: Arc::new(Relays::new(
                self.folder("."),
                Some(Ipv4Addr::LOCALHOST.into()),
                Arc::clone(&self.hypervisor) as _,
            )),
            machine_boot: self.machine_boot,
            checkpoint: Arc::new(KillAt(AtomicU64::new(kill_at))),
        });
        reconciler.set_acting(true);
        Life { reconciler, desired, boots, outbox, networks, keeper, clock: Arc::clone(&self.clock), events }
    }

    /// The machine loses power and comes back.
    fn reboot_machine(&mut self) {
        self.machine_boot = Uuid::now_v7();
        self.hypervisor.reboot_machine(self.machine_boot);
    }

    async fn end(&self, life: &Life, id: InstanceId) -> End {
        let domains = self.hypervisor.domains().await.unwrap();
        let domain = domains.into_iter().find(|domain| domain.id == id);
        let chains = domain.iter().flat_map(|domain| &domain.volumes).map(|volume| volume.layers.len());
        let report = life.outbox.latest(id).map(|(report, _)| report);
        let merged = |report: &InstanceReport| report.volumes.iter().map(|volume| volume.merged.len()).sum();
        End {
            chains: chains.collect(),
            merged: report.as_ref().map_or(0, merged),
            domain: domain.map(|domain| (domain.boot, domain.state)),
            files: Files {
                bases: false,
                volumes: false,
                ..self.storage.look(id, &[], &[], Doomed::default()).await.unwrap()
            },
            layers: self.storage.layers().len(),
            record: life.boots.get(id).map(|record| (record.boot, record.phase)),
            state: report.map(|report| report.state),
        }
    }
}

impl Life {
    fn want(&self, body: DesiredBody) {
        self.desired.take(&samples::page(false, [body])).unwrap();
    }

    /// Passes until nothing is left to do or the agent is killed. Time flies.
    async fn until_quiet(&mut self, id: InstanceId) -> Outcome {
        for _ in 0..100 {
            while let Ok(event) = self.events.try_recv() {
                if let Event::Ended { id, why } = event {
                    self.reconciler.ended(id, why);
                }
            }
            match self.reconciler.pass(id).await {
                Outcome::Wait(until) => {
                    assert!(until > self.clock.now(), "a wait that is over");
                    self.clock.advance_to(until);
                }
                Outcome::Failed(_) | Outcome::Blind => {}
                outcome => return outcome,
            }
        }
        panic!("it never comes to rest");
    }

    async fn settle(&mut self, id: InstanceId) {
        assert_eq!(self.until_quiet(id).await, Outcome::Settled);
    }

    fn steps(&self, id: InstanceId) -> Vec<Told> {
        self.outbox.latest(id).map(|(_, steps)| steps).unwrap_or_default()
    }

    fn state(&self, id: InstanceId) -> ObservedState {
        self.outbox.latest(id).unwrap().0.state
    }
}

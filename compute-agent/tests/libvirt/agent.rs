//! The agent's own work on a real libvirtd and a real pool: killed wherever a test says so.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use camino::{Utf8Path, Utf8PathBuf};
use compute_agent::clock::SystemClock;
use compute_agent::consoles;
use compute_agent::control_plane::{ControlPlane, ControlPlaneError};
use compute_agent::desired::DesiredStore;
use compute_agent::guard::Guards;
use compute_agent::guard::clock::KernelClock;
use compute_agent::host_storage::{ByteStream, LocalPool, OwnPool};
use compute_agent::hypervisor::libvirt::{Libvirt, Options};
use compute_agent::hypervisor::{Event, Hypervisor as _, SeenVolume};
use compute_agent::migration::Relays;
use compute_agent::networks::simulated::SimulatedNetworking;
use compute_agent::networks::{Keeper, NetworkStore};
use compute_agent::reconcile::boots::Boots;
use compute_agent::reconcile::plan::Step;
use compute_agent::reconcile::{Checkpoint, Moment, Outcome, Parts, Reconciler};
use compute_agent::report::Outbox;
use futures_util::StreamExt as _;
use protocol::agent::{
    Architecture, DesiredBody, DesiredObject, DesiredPage, DesiredQuery, Disk, DriftAccepted, DriftReport,
    Epoch, Firmware, GuestHardware, Heartbeat, HeartbeatReply, ImageSource, ImageStatus, InsightAccepted,
    InsightBatch, InstanceReport, InstanceSpec, IoLimits, ObservedAccepted, ObservedBatch, OpenSession,
    Power, Refusal, Seed, SessionOpened, StopMode, VolumeSpec,
};
use protocol::{
    ConsoleId, GIB, Generation, InstanceId, LayerId, MemoryMib, Revision, Sha256, SizeGib, TransferId,
    VolumeId,
};
use tokio::sync::broadcast::Receiver;
use uuid::Uuid;

use crate::expect;
use crate::host::{Host, run};

pub const NEVER: u64 = u64::MAX;
const PATIENCE: Duration = Duration::from_secs(150);

/// A host with a pool: outlives its agents.
pub struct Site {
    pub host: Host,
    pub pool: Arc<LocalPool>,
    images: HashMap<Sha256, Bytes>,
    machine_boot: Uuid,
}

/// An agent, from its start to its death.
pub struct Agent {
    pub reconciler: Arc<Reconciler>,
    pub libvirt: Arc<Libvirt>,
    pub boots: Arc<Boots>,
    desired: Arc<DesiredStore>,
    outbox: Arc<Outbox>,
    events: Receiver<Event>,
}

impl Site {
    pub fn start() -> Self {
        let host = Host::start();
        let pool = Arc::new(
            LocalPool::open(OwnPool::new(&host.root().join("pool"), &host.root().join("record"))).unwrap(),
        );
        Self { host, pool, images: HashMap::new(), machine_boot: Uuid::now_v7() }
    }

    /// Where a layer is, or will be.
    pub fn layer(&self, id: LayerId) -> Utf8PathBuf {
        self.host.root().join(format!("pool/layers/{id}.qcow2"))
    }

    /// An image that the control plane has.
    pub fn image(&mut self, path: &Utf8Path) -> ImageSource {
        use sha2::Digest as _;
        let bytes = Bytes::from(std::fs::read(path).unwrap());
        let sha256 = Sha256::from_bytes(sha2::Sha256::digest(&bytes).into());
        let virtual_size_bytes = u64::from_be_bytes(bytes[24..32].try_into().unwrap());
        let (format, size_bytes) = (protocol::image::Format::Qcow2, bytes.len() as u64);
        self.images.insert(sha256, bytes);
        ImageSource { sha256, format, size_bytes, virtual_size_bytes }
    }

    fn folder(&self, name: &str) -> Utf8PathBuf {
        self.host.root().join(name)
    }

    /// A fresh agent that dies at a checkpoint.
    pub async fn agent(&self, dies_at: u64) -> Agent {
        let libvirt =
            Arc::new(Libvirt::start(Options { uri: self.host.uri(), pool: self.host.root().to_owned() }));
        let mut events = libvirt.events();
        expect(&mut events, &Event::Connected).await;
        let desired = Arc::new(DesiredStore::open(self.folder("desired")).unwrap());
        let boots = Arc::new(Boots::open(self.folder("boots")).unwrap());
        let outbox = Arc::new(Outbox::open(self.folder("outbox")).unwrap());
        let networks = Arc::new(NetworkStore::open(self.folder("networks.json")).unwrap());
        let networking = Arc::new(SimulatedNetworking::default());
        let keeper = Keeper::new(networks, networking, Arc::clone(&outbox), Arc::new(SystemClock));
        let pools = BTreeMap::new();
        let guards =
            Guards::open(&self.folder("state"), pools, self.machine_boot, Arc::new(KernelClock)).unwrap();
        let reconciler = Reconciler::new(Parts {
            desired: Arc::clone(&desired),
            boots: Arc::clone(&boots),
            outbox: Arc::clone(&outbox),
            hypervisor: Arc::clone(&libvirt) as _,
            storage: Arc::clone(&self.pool) as _,
            networks: Arc::new(keeper),
            control_plane: Arc::new(Images(self.images.clone())),
            clock: Arc::new(SystemClock),
            guards: Arc::new(guards),
            relays: Arc::new(Relays::new(self.folder("state"), None, Arc::clone(&libvirt) as _)),
            machine_boot: self.machine_boot,
            checkpoint: Arc::new(DiesAt(AtomicU64::new(dies_at))),
        });
        reconciler.set_acting(true);
        Agent { reconciler: Arc::new(reconciler), libvirt, boots, desired, outbox, events }
    }

    pub fn top(&self, disk: &Disk) -> Utf8PathBuf {
        self.layer(disk.volume.top().unwrap())
    }

    /// Lets QEMU itself write to a disk and flush it. What it says goes to its log; what it did is seen elsewhere.
    pub fn write(&self, id: InstanceId, disk: &Disk, byte: u8, place: &str) {
        let device = format!("/machine/peripheral/ua-{}/virtio-backend", disk.volume.id);
        let command = format!(r#"qemu-io -d {device} "write -f -P {byte} {place}""#);
        self.host.virsh(&["qemu-monitor-command", "--hmp", &format!("cumulo-{id}"), &command]);
    }
}

impl Agent {
    pub fn want(&self, spec: &InstanceSpec) {
        let body = DesiredBody::Instance(Box::new(spec.clone()));
        let objects = vec![DesiredObject { revision: Revision(1), body }];
        self.desired
            .take(&DesiredPage { revision: Revision(1), complete: false, objects, requests: Vec::new() })
            .unwrap();
    }

    /// Passes until nothing is left to do or the agent dies.
    pub async fn until_quiet(&mut self, id: InstanceId) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Ok(event) = self.events.try_recv() {
                if let Event::Ended { id, why } = event {
                    self.reconciler.ended(id, why);
                }
            }
            match self.reconciler.pass(id).await {
                outcome @ (Outcome::Wait(_) | Outcome::Failed(_) | Outcome::Blind) => {
                    assert!(Instant::now() < deadline, "it never comes to rest: {outcome:?}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                outcome => return outcome,
            }
        }
    }

    pub async fn settle(&mut self, id: InstanceId) {
        assert_eq!(self.until_quiet(id).await, Outcome::Settled);
    }

    pub fn report(&self, id: InstanceId) -> InstanceReport {
        let reports = self.outbox.outgoing(100).unwrap().reports;
        reports.into_iter().find(|report| report.id == id).unwrap()
    }

    pub fn merged(&self, id: InstanceId) -> Vec<LayerId> {
        self.report(id).volumes.into_iter().flat_map(|volume| volume.merged).collect()
    }

    pub async fn chains(&self, id: InstanceId) -> Vec<Vec<LayerId>> {
        let domains = self.libvirt.domains().await.unwrap();
        let domain = domains.into_iter().find(|domain| domain.id == id);
        let layers = |volume: SeenVolume| volume.layers;
        domain.into_iter().flat_map(|domain| domain.volumes).map(layers).collect()
    }
}

/// A running instance with so many disks, the first over the image.
pub fn instance(image: Option<&ImageSource>, disks: usize, user_data: Option<String>) -> InstanceSpec {
    let mut disks: Vec<_> = (0..disks).map(|_| disk()).collect();
    disks[0].volume.image = image.cloned();
    InstanceSpec {
        id: Uuid::now_v7().into(),
        generation: Generation(1),
        project_id: None,
        hostname: "guest".parse().unwrap(),
        power: Power::Running,
        boot: 1,
        stop: StopMode::Force,
        architecture: Architecture::X86_64,
        firmware: Firmware::Bios,
        hardware: GuestHardware::default(),
        vcpus: 1,
        memory_mib: MemoryMib(if image.is_some() { 128 } else { 64 }),
        disks,
        freeze: false,
        save_memory: None,
        load_memory: None,
        nics: Vec::new(),
        seed: Seed::new(user_data.map(String::into_bytes), Vec::new()),
        on_host_failure: Default::default(),
        migration: None,
        operation_id: None,
        request_id: None,
    }
}

fn disk() -> Disk {
    let volume = VolumeSpec {
        id: VolumeId::from_uuid(Uuid::now_v7()),
        generation: Generation(1),
        size_gib: SizeGib(1),
        image: None,
        layers: vec![layer()],
        merges: Vec::new(),
        pool: None,
    };
    Disk { volume, limits: IoLimits::default() }
}

pub fn layer() -> LayerId {
    LayerId::from_uuid(Uuid::now_v7())
}

pub fn next(spec: &InstanceSpec) -> InstanceSpec {
    InstanceSpec { generation: Generation(spec.generation.0 + 1), ..spec.clone() }
}

/// With a new layer on each disk.
pub fn snapshot(spec: &InstanceSpec) -> InstanceSpec {
    let mut spec = next(spec);
    spec.disks.iter_mut().for_each(|disk| disk.volume.layers.push(layer()));
    spec
}

/// What a disk of a GiB shall hold: a byte for each place of 64 KiB, zeros elsewhere.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Content(HashMap<u64, u8>);

impl Content {
    const PLACE: u64 = 64 << 10;

    pub fn write(&mut self, site: &Site, id: InstanceId, disk: &Disk, place: u64, byte: u8) {
        site.write(id, disk, byte, &format!("{} {}", place * Self::PLACE, Self::PLACE));
        self.0.insert(place, byte);
    }

    pub fn set(&mut self, places: std::ops::Range<u64>, byte: u8) {
        self.0.extend(places.map(|place| (place, byte)));
    }

    /// Compares the whole disk that the file and what it stands on make, byte for byte.
    pub fn assert_is(&self, site: &Site, file: &Utf8Path) {
        use std::os::unix::fs::FileExt as _;
        let path = site.host.root().join("expected.raw");
        let expected = std::fs::File::create(&path).unwrap();
        expected.set_len(GIB).unwrap();
        for (place, byte) in &self.0 {
            let data = vec![*byte; usize::try_from(Self::PLACE).unwrap()];
            expected.write_all_at(&data, place * Self::PLACE).unwrap();
        }
        run("qemu-img", &["compare", "-U", "-q", "-f", "raw", "-F", "qcow2", path.as_str(), file.as_str()]);
    }
}

struct DiesAt(AtomicU64);

impl Checkpoint for DiesAt {
    fn reached(&self, _: InstanceId, _: &Step, _: Moment) -> ControlFlow<()> {
        match self.0.fetch_sub(1, Ordering::SeqCst) {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// A control plane that has images and says nothing.
struct Images(HashMap<Sha256, Bytes>);

fn silent<T>(call: &'static str) -> Result<T, ControlPlaneError> {
    Err(ControlPlaneError::Unreachable { call, source: "this one says nothing".into() })
}

#[async_trait]
impl ControlPlane for Images {
    async fn open_session(&self, _: &OpenSession) -> Result<SessionOpened, ControlPlaneError> {
        silent("session")
    }

    async fn desired(&self, _: &DesiredQuery) -> Result<DesiredPage, ControlPlaneError> {
        silent("desired")
    }

    async fn observed(&self, _: &ObservedBatch) -> Result<ObservedAccepted, ControlPlaneError> {
        silent("observed")
    }

    async fn heartbeat(&self, _: &Heartbeat) -> Result<HeartbeatReply, ControlPlaneError> {
        silent("heartbeat")
    }

    async fn drift(&self, _: &DriftReport) -> Result<DriftAccepted, ControlPlaneError> {
        silent("drift")
    }

    async fn insight(&self, _: &InsightBatch) -> Result<InsightAccepted, ControlPlaneError> {
        silent("measurements")
    }

    async fn blob(&self, sha256: Sha256) -> Result<ByteStream, ControlPlaneError> {
        let bytes = self.0.get(&sha256).cloned().unwrap();
        Ok(futures_util::stream::once(async { Ok(bytes) }).boxed())
    }

    async fn transfer(&self, _: TransferId, _: Epoch, _: Vec<u8>) -> Result<(), ControlPlaneError> {
        silent("transfer")
    }

    async fn send_image(
        &self,
        _: TransferId,
        _: Epoch,
        _: u64,
        _: ByteStream,
    ) -> Result<(), ControlPlaneError> {
        silent("image")
    }

    async fn bring_console(
        &self,
        _: ConsoleId,
        _: Epoch,
        _: Option<&str>,
    ) -> Result<consoles::Stream, ControlPlaneError> {
        silent("console")
    }

    async fn refuse(&self, _: TransferId, _: Epoch, _: &Refusal) -> Result<(), ControlPlaneError> {
        silent("refusal")
    }

    async fn image_status(&self, _: TransferId, _: &ImageStatus) -> Result<(), ControlPlaneError> {
        silent("image status")
    }
}

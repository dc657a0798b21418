//! A hypervisor that runs nothing, and is as strict as the real one.
//!
//! Thousands of hosts of it fit into one machine, speaking the real protocol. It refuses what libvirt
//! refuses (a second domain for an instance, the destruction of none), loses its domains at
//! [`Simulated::reboot_machine`], goes away and comes back, fails on demand, and counts every start, so a
//! test can prove that no boot ran twice.

mod call;
mod kept;
mod lives;
mod machine;
mod migrating;
mod mirrors;
mod told;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use protocol::agent::{
    Acceleration, Architecture, CardCounters, ConsoleKind, DISK_MOVES, DiskCounters, GUARDED_MIGRATION,
    GuestInfo, Inventory, IoLimits, LIVE_DISKS, LIVE_MIGRATION, MemorySample, Nic, PauseReason,
};
use protocol::{InstanceId, LayerId, MacAddress, MemoryMib, SizeGib, VolumeId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::{
    Beside, Card, Domain, DomainDisk, DomainSpec, DomainState, EndCause, Event, Hypervisor, HypervisorError,
    Measured, MeasuredCard, MeasuredDisk, Merge, NewLayer, SeenVolume, Transfer,
};
use crate::consoles;
use crate::kept::{KeptFile, Locked};
pub use call::Call;
use kept::Starts;
pub use kept::Tally;
pub use lives::Hearer;
use lives::Lives;
pub use machine::SimulatedMachine;

/// Events that a slow receiver may fall behind before it has to look again.
const EVENT_BUFFER: usize = 1024;
/// What a console holds.
const CONSOLE_BYTES: usize = 4096;

/// See the module.
/// Clones are the same.
#[derive(Debug, Clone)]
pub struct Simulated {
    state: Arc<Mutex<State>>,
    /// Consoles say back whatever they are told.
    open_consoles: Arc<AtomicUsize>,
    begun: Instant,
    events: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct State {
    machine: SimulatedMachine,
    /// Where domains and starts are kept.
    file: KeptFile,
    dice: StdRng,
    domains: BTreeMap<InstanceId, Domain>,
    starts: Starts,
    lives: Lives,
    presses: HashMap<InstanceId, u32>,
    detachments_asked: u32,
    /// What [`Hypervisor::tune_disk`] or the start gave each disk.
    tuned: HashMap<(InstanceId, VolumeId), (SizeGib, IoLimits)>,
    snapshots: u32,
    /// The boots that began with a memory, and which.
    restored: Vec<(InstanceId, i64, Utf8PathBuf)>,
    /// Guests that cannot write.
    frozen: HashSet<InstanceId>,
    /// The connection breaks when the next guest is frozen.
    breaks_when_frozen: bool,
    resumes: u32,
    /// Guests that come and go; the state of one that is gone says nothing.
    transfers: HashMap<InstanceId, Transfer>,
    /// The ways of mirrors.
    mirrors: HashMap<InstanceId, Vec<UnixStream>>,
    /// The ways of guests that stand still until their mirrors have ended.
    switching: HashMap<InstanceId, UnixStream>,
    /// Disks that somebody else may write to, and how many of them are not whole yet.
    open_disks: HashMap<InstanceId, usize>,
    failures: HashMap<Call, u32>,
    reachable: bool,
}

impl Simulated {
    pub fn new(machine: SimulatedMachine) -> Self {
        Self::with(machine, KeptFile::default(), kept::Kept::default())
    }

    /// One whose domains are kept in a file: they outlive the process.
    pub fn kept_in(file: Utf8PathBuf, machine: SimulatedMachine) -> io::Result<Self> {
        let (file, kept) = KeptFile::open(file)?;
        Ok(Self::with(machine, file, kept))
    }

    fn with(machine: SimulatedMachine, file: KeptFile, kept: kept::Kept) -> Self {
        let mut state = State {
            file,
            dice: StdRng::seed_from_u64(machine.seed),
            machine,
            domains: kept.domains.into_iter().map(|domain| (domain.id, domain)).collect(),
            starts: kept.starts,
            lives: Lives::default(),
            presses: HashMap::new(),
            detachments_asked: 0,
            tuned: HashMap::new(),
            snapshots: 0,
            restored: Vec::new(),
            frozen: HashSet::new(),
            breaks_when_frozen: false,
            resumes: 0,
            transfers: HashMap::new(),
            mirrors: HashMap::new(),
            switching: HashMap::new(),
            open_disks: HashMap::new(),
            failures: HashMap::new(),
            reachable: true,
        };
        // Those that were kept began before.
        state.lives.look(&state.domains);
        let open_consoles = Arc::default();
        let events = broadcast::Sender::new(EVENT_BUFFER);
        Self { state: Arc::new(Mutex::new(state)), open_consoles, begun: Instant::now(), events }
    }

    /// The guest powers itself off. False when there is no domain.
    pub fn guest_shutdown(&self, id: InstanceId) -> bool {
        self.end(id, EndCause::GuestShutdown)
    }

    /// QEMU dies. False when there is no domain.
    pub fn crash(&self, id: InstanceId) -> bool {
        self.end(id, EndCause::Crashed)
    }

    /// The guest stands still. False when there is no domain.
    pub fn pause(&self, id: InstanceId, reason: PauseReason) -> bool {
        let paused =
            self.lock().domains.get_mut(&id).map(|domain| domain.state = DomainState::Paused(reason));
        if paused.is_some() {
            self.emit(Event::Changed { id });
        }
        paused.is_some()
    }

    /// How often a paused guest was told to go on.
    pub fn resumes(&self) -> u32 {
        self.lock().resumes
    }

    /// A domain ends and the event about it is lost. False when there is no domain.
    pub fn vanish(&self, id: InstanceId) -> bool {
        let mut state = self.lock();
        state.frozen.remove(&id);
        state.domains.remove(&id).is_some()
    }

    /// The machine goes down hard and comes up again: no domain is left and nobody says why.
    pub fn reboot_machine(&self, boot_id: Uuid) {
        let mut state = self.lock();
        state.domains.clear();
        state.frozen.clear();
        state.machine.boot_id = boot_id;
    }

    /// More memory is plugged in.
    pub fn set_memory(&self, memory_mib: MemoryMib) {
        self.lock().machine.memory_mib = memory_mib;
    }

    /// Breaks or restores the connection; domains run on meanwhile.
    pub fn set_reachable(&self, reachable: bool) {
        self.lock().reachable = reachable;
        self.emit(if reachable { Event::Connected } else { Event::Disconnected });
    }

    /// What the instance's domain says of itself cannot be read from now on; gives what it said.
    pub fn make_unreadable(&self, id: InstanceId) -> Option<Domain> {
        self.lock().domains.insert(id, Domain::unreadable(id))
    }

    /// The domain says this of itself.
    pub fn make_readable(&self, domain: Domain) {
        self.lock().domains.insert(domain.id, domain);
    }

    /// Whether guests obey the power button from now on.
    pub fn set_guests_obey_power_button(&self, obey: bool) {
        self.lock().machine.guests_obey_power_button = obey;
    }

    /// Whether guests let go of their network cards and disks from now on.
    pub fn set_guests_release_devices(&self, release: bool) {
        self.lock().machine.guests_release_devices = release;
    }

    /// Whether an agent in the guests freezes and thaws their file systems from now on.
    pub fn set_guests_freeze(&self, freeze: bool) {
        self.lock().machine.guests_freeze = freeze;
    }

    /// The hypervisor dies when it has frozen the next guest, before the snapshot.
    pub fn break_when_frozen(&self) {
        self.lock().breaks_when_frozen = true;
    }

    /// Whether the guest's file systems are frozen.
    pub fn is_frozen(&self, id: InstanceId) -> bool {
        self.lock().frozen.contains(&id)
    }

    fn end(&self, id: InstanceId, why: EndCause) -> bool {
        let had = {
            let mut state = self.lock();
            state.frozen.remove(&id);
            state.domains.remove(&id).is_some()
        };
        if had {
            self.emit(Event::Ended { id, why });
        }
        had
    }

    fn freeze(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let breaks = {
            let mut state = self.reached()?;
            if !state.domains.contains_key(&id) {
                return Err(HypervisorError::NotFound(id));
            }
            if !state.machine.guests_freeze || !state.frozen.insert(id) {
                return Err(HypervisorError::NotFrozen("simulated: the guest does not freeze".into()));
            }
            std::mem::take(&mut state.breaks_when_frozen)
        };
        if breaks {
            self.set_reachable(false);
        }
        Ok(())
    }

    fn emit(&self, event: Event) {
        // Nobody listening is no error: the agent may not have started yet.
        let _ = self.events.send(event);
    }

    fn lock(&self) -> Locked<'_, State> {
        Locked::of(&self.state)
    }

    /// A step other than a start takes its time.
    async fn step(&self) {
        let latency = self.lock().machine.step_latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }

    fn reached(&self) -> Result<Locked<'_, State>, HypervisorError> {
        let state = self.lock();
        if state.reachable {
            Ok(state)
        } else {
            let source = io::Error::new(io::ErrorKind::ConnectionRefused, "simulated: not reachable");
            Err(HypervisorError::Unreachable(Box::new(source)))
        }
    }
}

fn refused(call: Call, why: &'static str) -> HypervisorError {
    HypervisorError::Refused { attempted: call.attempted(), source: Box::new(io::Error::other(why)) }
}

fn seen(disk: &DomainDisk) -> SeenVolume {
    SeenVolume { id: disk.volume, layers: disk.layers.iter().filter_map(|path| layer_of(path)).collect() }
}

/// The ids are the names of the files.
fn layer_of(path: &Utf8Path) -> Option<LayerId> {
    path.file_stem()?.parse().ok()
}

#[async_trait]
impl Hypervisor for Simulated {
    async fn inventory(&self) -> Result<Inventory, HypervisorError> {
        let state = self.reached()?;
        Ok(Inventory {
            cpus: state.machine.cpus,
            memory_mib: state.machine.memory_mib,
            disk_gib: state.machine.disk_gib,
            cpu_model: "simulated".to_owned(),
            hypervisor: "simulated".to_owned(),
            acceleration: Acceleration::Simulated,
            acceleration_detail: "this host is simulated: its guests are only said to run".to_owned(),
            architectures: vec![Architecture::X86_64, Architecture::Aarch64, Architecture::Riscv64],
            features: [LIVE_MIGRATION, DISK_MOVES, LIVE_DISKS, GUARDED_MIGRATION].map(str::to_owned).to_vec(),
            cpu_models: Vec::new(),
            boot_id: state.machine.boot_id,
            underlay_address: None,
        })
    }

    async fn domains(&self) -> Result<Vec<Domain>, HypervisorError> {
        Ok(self.reached()?.domains.values().cloned().collect())
    }

    async fn create(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        let latency = self.reached()?.machine.create_latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let id = spec.id;
        {
            let mut state = self.reached()?;
            state.fail_if_asked(Call::Create)?;
            state.fail_by_chance()?;
            if state.domains.contains_key(&id) {
                return Err(HypervisorError::Exists(id));
            }
            let cards = spec.nics.iter().map(Card::of).collect();
            let (generation, boot) = (spec.generation, spec.boot);
            state.refuse_shared(id, &spec.disks)?;
            let volumes = spec.disks.iter().map(seen).collect();
            let domain = Domain { id, generation, boot, state: DomainState::Running, cards, volumes };
            for disk in &spec.disks {
                state.tuned.insert((id, disk.volume), (disk.size_gib, disk.limits));
            }
            state.domains.insert(id, domain);
            state.transfers.remove(&id);
            state.starts.count(id, spec.boot);
        }
        self.emit(Event::Changed { id });
        Ok(())
    }

    async fn press_power_button(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.step().await;
        let obeys = {
            let mut state = self.reached()?;
            state.fail_if_asked(Call::PressPowerButton)?;
            if !state.domains.contains_key(&id) {
                return Err(HypervisorError::NotFound(id));
            }
            *state.presses.entry(id).or_default() += 1;
            let stands_still =
                matches!(state.domains.get(&id), Some(Domain { state: DomainState::Paused(_), .. }));
            state.machine.guests_obey_power_button && !stands_still
        };
        if obeys {
            self.end(id, EndCause::GuestShutdown);
        }
        Ok(())
    }

    async fn destroy(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.step().await;
        self.reached()?.fail_if_asked(Call::Destroy)?;
        if self.end(id, EndCause::Destroyed) { Ok(()) } else { Err(HypervisorError::NotFound(id)) }
    }

    async fn suspend(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.step().await;
        {
            let mut state = self.reached()?;
            let domain = state.domains.get_mut(&id).ok_or(HypervisorError::NotFound(id))?;
            if domain.state == DomainState::Running {
                domain.state = DomainState::Paused(PauseReason::Suspended);
            }
        }
        self.emit(Event::Changed { id });
        Ok(())
    }

    async fn resume(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.step().await;
        {
            let mut state = self.reached()?;
            state.resumes += 1;
            // QEMU would let it run as soon as it has come, or beside the one that it was sent to.
            if matches!(state.transfers.get(&id), Some(Transfer::Waiting | Transfer::Sent)) {
                return Err(refused(Call::Resume, "simulated: it would run twice"));
            }
            if state.open_disks.contains_key(&id) {
                return Err(refused(Call::Resume, "simulated: somebody else writes to its disks"));
            }
            let domain = state.domains.get_mut(&id).ok_or(HypervisorError::NotFound(id))?;
            domain.state = DomainState::Running;
        }
        self.emit(Event::Changed { id });
        Ok(())
    }

    async fn attach_card(&self, id: InstanceId, nic: &Nic) -> Result<(), HypervisorError> {
        self.step().await;
        {
            let mut state = self.reached()?;
            state.fail_if_asked(Call::AttachCard)?;
            let domain = state.domains.get_mut(&id).ok_or(HypervisorError::NotFound(id))?;
            if domain.cards.iter().any(|card| card.mac == nic.mac) {
                let source = io::Error::other("simulated: there is a card with this address");
                return Err(HypervisorError::Refused {
                    attempted: Call::AttachCard.attempted(),
                    source: Box::new(source),
                });
            }
            domain.cards.push(Card::of(nic));
        }
        self.emit(Event::Changed { id });
        Ok(())
    }

    async fn detach_card(&self, id: InstanceId, mac: MacAddress) -> Result<(), HypervisorError> {
        self.step().await;
        {
            let mut state = self.reached()?;
            let releases = state.machine.guests_release_devices;
            let domain = state.domains.get_mut(&id).ok_or(HypervisorError::NotFound(id))?;
            domain.cards.retain(|card| !releases || card.mac != mac);
            state.detachments_asked += 1;
        }
        self.emit(Event::Changed { id });
        Ok(())
    }

    async fn attach_disk(&self, id: InstanceId, disk: &DomainDisk) -> Result<(), HypervisorError> {
        self.step().await;
        {
            let mut state = self.reached()?;
            state.fail_if_asked(Call::AttachDisk)?;
            state.refuse_shared(id, std::slice::from_ref(disk))?;
            let domain = state.domains.get_mut(&id).ok_or(HypervisorError::NotFound(id))?;
            if domain.volume(disk.volume).is_some() {
                let source = io::Error::other("simulated: there is a disk with this serial number");
                return Err(HypervisorError::Refused {
                    attempted: Call::AttachDisk.attempted(),
                    source: Box::new(source),
                });
            }
            domain.volumes.push(seen(disk));
            state.tuned.insert((id, disk.volume), (disk.size_gib, disk.limits));
        }
        self.emit(Event::Changed { id });
        Ok(())
    }

    async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<(), HypervisorError> {
        self.step().await;
        {
            let mut state = self.reached()?;
            let releases = state.machine.guests_release_devices;
            let domain = state.domains.get_mut(&id).ok_or(HypervisorError::NotFound(id))?;
            domain.volumes.retain(|one| !releases || one.id != volume);
            state.detachments_asked += 1;
        }
        self.emit(Event::Changed { id });
        Ok(())
    }

    async fn tune_disk(
        &self,
        id: InstanceId,
        volume: VolumeId,
        size: SizeGib,
        limits: IoLimits,
    ) -> Result<(), HypervisorError> {
        self.step().await;
        let mut state = self.reached()?;
        state.fail_if_asked(Call::TuneDisk)?;
        if state.domains.get(&id).is_none_or(|domain| domain.volume(volume).is_none()) {
            return Err(HypervisorError::NotFound(id));
        }
        state.tuned.insert((id, volume), (size, limits));
        Ok(())
    }

    async fn snapshot(
        &self,
        id: InstanceId,
        layers: &[NewLayer],
        beside: &Beside,
    ) -> Result<(), HypervisorError> {
        self.step().await;
        if *beside == Beside::Rest {
            self.freeze(id)?;
        }
        {
            let mut state = self.reached()?;
            state.fail_if_asked(Call::Snapshot)?;
            state.frozen.remove(&id);
            let domain = state.domains.get_mut(&id).ok_or(HypervisorError::NotFound(id))?;
            for new in layers {
                let volume = domain.volumes.iter_mut().find(|volume| volume.id == new.volume);
                let volume = volume.ok_or(HypervisorError::NotFound(id))?;
                volume.layers.extend(layer_of(&new.layer));
            }
            state.snapshots += 1;
        }
        self.emit(Event::Changed { id });
        Ok(())
    }

    async fn restore(&self, spec: &DomainSpec, memory: &Utf8Path) -> Result<(), HypervisorError> {
        self.reached()?.fail_if_asked(Call::Restore)?;
        self.create(spec).await?;
        let mut state = self.reached()?;
        state.restored.push((spec.id, spec.boot, memory.to_owned()));
        let domain = state.domains.get_mut(&spec.id).ok_or(HypervisorError::NotFound(spec.id))?;
        domain.state = DomainState::Paused(PauseReason::Suspended);
        Ok(())
    }

    async fn thaw(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.step().await;
        let mut state = self.reached()?;
        state.fail_if_asked(Call::Thaw)?;
        if !state.domains.contains_key(&id) {
            return Err(HypervisorError::NotFound(id));
        }
        state.frozen.remove(&id);
        Ok(())
    }

    async fn merge(&self, id: InstanceId, merge: &Merge) -> Result<(), HypervisorError> {
        self.step().await;
        {
            let mut state = self.reached()?;
            state.fail_if_asked(Call::Merge)?;
            let domain = state.domains.get_mut(&id).ok_or(HypervisorError::NotFound(id))?;
            let volume = domain.volumes.iter_mut().find(|volume| volume.id == merge.volume);
            let volume = volume.ok_or(HypervisorError::NotFound(id))?;
            let (into, from) = (layer_of(&merge.into), layer_of(&merge.from));
            let is_between = |three: &[LayerId]| Some(three[0]) == into && Some(three[1]) == from;
            if !volume.layers.windows(3).any(is_between) {
                let source = io::Error::other("simulated: these are no neighbours under another");
                return Err(HypervisorError::Refused { attempted: "merge layers", source: Box::new(source) });
            }
            volume.layers.retain(|layer| Some(*layer) != from);
        }
        self.emit(Event::Changed { id });
        Ok(())
    }

    async fn create_waiting(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        self.begin_waiting(spec)
    }

    async fn receive(&self, id: InstanceId, way: UnixStream) -> Result<(), HypervisorError> {
        self.take(id, way)
    }

    async fn open_disks(
        &self,
        id: InstanceId,
        volumes: &[VolumeId],
        door: UnixListener,
    ) -> Result<(), HypervisorError> {
        self.open(id, volumes.len(), &door)
    }

    async fn close_disks(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.reached()?.open_disks.remove(&id);
        Ok(())
    }

    async fn mirror(&self, id: InstanceId, ways: Vec<(VolumeId, UnixStream)>) -> Result<(), HypervisorError> {
        self.begin_mirrors(id, ways)
    }

    async fn end_mirrors(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.step().await;
        let mut state = self.reached()?;
        state.fail_if_asked(Call::EndMirrors)?;
        state.end_mirrors(id);
        Ok(())
    }

    async fn switch_over(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.finish_mirrors(id).await
    }

    async fn send(&self, id: InstanceId, way: UnixStream, _: u32) -> Result<(), HypervisorError> {
        self.give(id, way)
    }

    async fn cancel_sending(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.step().await;
        let mut state = self.reached()?;
        state.fail_if_asked(Call::CancelSending)?;
        state.cancel_sending(id);
        Ok(())
    }

    async fn transfer(&self, id: InstanceId) -> Result<Transfer, HypervisorError> {
        let mut state = self.reached()?;
        if !state.domains.contains_key(&id) {
            return Err(HypervisorError::NotFound(id));
        }
        Ok(state.transfer(id))
    }

    async fn open_console(
        &self,
        id: InstanceId,
        _: ConsoleKind,
    ) -> Result<consoles::Stream, HypervisorError> {
        let mut events = self.events.subscribe();
        if !self.reached()?.domains.contains_key(&id) {
            return Err(HypervisorError::NotFound(id));
        }
        let (ours, theirs) = tokio::io::duplex(CONSOLE_BYTES);
        let open = Arc::clone(&self.open_consoles);
        open.fetch_add(1, SeqCst);
        tokio::spawn(async move {
            let until_ended = async {
                while !matches!(events.recv().await, Ok(Event::Ended { id: ended, .. }) if ended == id) {}
            };
            let (mut read, mut write) = tokio::io::split(ours);
            tokio::select! {
                _ = tokio::io::copy(&mut read, &mut write) => {}
                () = until_ended => {}
            }
            open.fetch_sub(1, SeqCst);
        });
        Ok(Box::new(theirs))
    }

    async fn screenshot(&self, id: InstanceId) -> Result<Vec<u8>, HypervisorError> {
        if !self.reached()?.domains.contains_key(&id) {
            return Err(HypervisorError::NotFound(id));
        }
        Ok(b"P6 2 1 255 \0\0\0\xff\xff\xff".to_vec())
    }

    /// Guests are half busy, and do a little with each disk and card.
    async fn measure(&self) -> Result<Vec<Measured>, HypervisorError> {
        let state = self.reached()?;
        let elapsed = self.begun.elapsed();
        let (nanoseconds, milliseconds) = (elapsed.as_nanos() as u64, elapsed.as_millis() as u64);
        let disk = |volume: &SeenVolume| {
            let counters = DiskCounters {
                read_bytes: milliseconds * 4096,
                read_requests: milliseconds,
                written_bytes: milliseconds * 2048,
                write_requests: milliseconds / 2,
            };
            Some(MeasuredDisk { layer: *volume.layers.last()?, counters })
        };
        let card = |card: &Card| {
            let counters = CardCounters {
                received_bytes: milliseconds * 1000,
                received_packets: milliseconds,
                sent_bytes: milliseconds * 500,
                sent_packets: milliseconds,
                ..CardCounters::default()
            };
            Some(MeasuredCard { tap: card.tap.clone()?, counters })
        };
        let measured = state.domains.values().map(|domain| Measured {
            id: domain.id,
            run: state.starts.of(domain.id, domain.boot),
            cpu_ns: Some(nanoseconds / 2),
            memory: MemorySample { resident_bytes: Some(64 << 20), ..MemorySample::default() },
            disks: domain.volumes.iter().filter_map(disk).collect(),
            cards: domain.cards.iter().filter_map(card).collect(),
        });
        Ok(measured.collect())
    }

    async fn ask_guest(&self, id: InstanceId) -> Result<GuestInfo, HypervisorError> {
        let state = self.reached()?;
        if !state.domains.contains_key(&id) {
            return Err(HypervisorError::NotFound(id));
        }
        if !state.machine.guests_freeze {
            return Err(HypervisorError::NoGuestAgent);
        }
        Ok(GuestInfo { hostname: Some("simulated".to_owned()), ..GuestInfo::default() })
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

//! What the agent needs of a hypervisor, and the two that it has: libvirt and a strict simulation.
//!
//! A hypervisor knows instances by id alone. It makes transient domains: nothing of a domain outlives its
//! run, so every start is rendered from the desired state. It never decides anything.

pub mod libvirt;
mod measured;
mod probe;
pub mod simulated;

use std::os::unix::net::{UnixListener, UnixStream};

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use protocol::agent::{
    Architecture, ConsoleKind, GuestHardware, GuestInfo, Inventory, IoLimits, Nic, PauseReason,
};
use protocol::{Generation, InstanceId, LayerId, MacAddress, MemoryMib, Name, RequestId, SizeGib, VolumeId};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::broadcast;

use crate::consoles;

pub use measured::{Measured, MeasuredCard, MeasuredDisk};

/// The seam between the reconciler and whatever runs guests.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// What this host can really do. Slow (it runs a probe guest); called when a session opens.
    async fn inventory(&self) -> Result<Inventory, HypervisorError>;

    /// Every domain that carries our metadata, in any state.
    async fn domains(&self) -> Result<Vec<Domain>, HypervisorError>;

    /// Starts a domain. [`HypervisorError::Exists`] when the instance already has one.
    async fn create(&self, spec: &DomainSpec) -> Result<(), HypervisorError>;

    /// Presses the ACPI power button. Returns at once; the guest may ignore it.
    async fn press_power_button(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Cuts the power. [`HypervisorError::NotFound`] when there is no domain.
    async fn destroy(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Lets a running domain stand still, with all that it has in memory. Does nothing to one that does already.
    async fn suspend(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Lets a paused domain go on. What it could not read or write is tried again.
    async fn resume(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Plugs a network card into a running domain.
    async fn attach_card(&self, id: InstanceId, nic: &Nic) -> Result<(), HypervisorError>;

    /// Asks the guest to let go of a network card. Returns without waiting for that; the guest may not listen.
    async fn detach_card(&self, id: InstanceId, mac: MacAddress) -> Result<(), HypervisorError>;

    /// Plugs a disk into a running domain.
    async fn attach_disk(&self, id: InstanceId, disk: &DomainDisk) -> Result<(), HypervisorError>;

    /// Asks the guest to let go of a disk. Returns without waiting for that; the guest may not listen.
    async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<(), HypervisorError>;

    /// Gives a disk of a running domain its size, which only grows, and its limits.
    async fn tune_disk(
        &self,
        id: InstanceId,
        volume: VolumeId,
        size: SizeGib,
        limits: IoLimits,
    ) -> Result<(), HypervisorError>;

    /// Lets a running domain write to new layers from one instant on. Each file is there, empty, over the one
    /// that is written to now.
    ///
    /// With [`Beside::Rest`], the guest's file systems are at rest at that instant, or nothing happens:
    /// [`HypervisorError::NoGuestAgent`] or [`HypervisorError::NotFrozen`]. Whoever asked for that and got another answer
    /// than the former or success, or none, has to [`Hypervisor::thaw`]. With [`Beside::Memory`], the file holds the memory
    /// of that instant, or no layer was added. It takes long, while the guest goes on and, in the end, stands still.
    async fn snapshot(
        &self,
        id: InstanceId,
        layers: &[NewLayer],
        beside: &Beside,
    ) -> Result<(), HypervisorError>;

    /// Starts a domain, as [`Hypervisor::create`] does, with a memory that [`Hypervisor::snapshot`] has written. Its guest
    /// stands still, and goes on with [`Hypervisor::resume`]. It has the cards and disks that it had; `spec` says which
    /// files the disks are now.
    async fn restore(&self, spec: &DomainSpec, memory: &Utf8Path) -> Result<(), HypervisorError>;

    /// Lets the guest's file systems be written to again, if they are frozen. A snapshot that is under way ends
    /// first.
    async fn thaw(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Begins to merge a layer of a running domain into the one below, or goes on with that. Returns without
    /// waiting for it; [`Domain::volumes`] shows when it is done. Never the layer that is written to: whoever
    /// loses sight of the guest then would not know which file holds the newest.
    async fn merge(&self, id: InstanceId, merge: &Merge) -> Result<(), HypervisorError>;

    /// Makes a domain for a guest that comes from another host. It waits, and nothing in it runs before
    /// [`Hypervisor::resume`]. [`HypervisorError::Exists`] when the instance already has one.
    async fn create_waiting(&self, spec: &DomainSpec) -> Result<(), HypervisorError>;

    /// Lets a domain that waits take its guest from there. When that breaks off, the domain ends.
    async fn receive(&self, id: InstanceId, way: UnixStream) -> Result<(), HypervisorError>;

    /// Lets a domain that waits be given what its guest writes to: whoever connects there writes to these volumes.
    async fn open_disks(
        &self,
        id: InstanceId,
        volumes: &[VolumeId],
        door: UnixListener,
    ) -> Result<(), HypervisorError>;

    /// Nobody writes to them any more. Before that the guest does not go on.
    async fn close_disks(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Begins to write what a running guest writes to there, too: all that is in the top layers of these volumes, and from
    /// then on what changes. Returns without waiting for it; when that breaks off, or the other side cannot write, the guest
    /// does not notice.
    async fn mirror(&self, id: InstanceId, ways: Vec<(VolumeId, UnixStream)>) -> Result<(), HypervisorError>;

    /// Ends that, however far it is.
    async fn end_mirrors(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Of a guest that stands still since all but the rest of its memory is sent: ends its mirrors when the other side has all
    /// of them on its disk, and then sends the rest. INVARIANT: if that fails nothing more is sent.
    async fn switch_over(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Begins to send a running guest there. Returns without waiting for it; [`Hypervisor::transfer`] tells how far it is.
    /// When that breaks off, the guest goes on. One whose disks are mirrored waits at the end for
    /// [`Hypervisor::switch_over`].
    async fn send(
        &self,
        id: InstanceId,
        way: UnixStream,
        max_downtime_ms: u32,
    ) -> Result<(), HypervisorError>;

    /// Sends it no further. Does nothing to one that is sent.
    async fn cancel_sending(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Whether the guest of a domain is on its way.
    async fn transfer(&self, id: InstanceId) -> Result<Transfer, HypervisorError>;

    /// Opens a console of a running guest, beside others that are open. It ends with the guest, and when the stream is
    /// dropped. [`HypervisorError::NoDisplay`] for the display of a guest that has none.
    async fn open_console(
        &self,
        id: InstanceId,
        kind: ConsoleKind,
    ) -> Result<consoles::Stream, HypervisorError>;

    /// What the display of a running guest shows, a PNG or a PPM. [`HypervisorError::NoDisplay`] when it has none.
    async fn screenshot(&self, id: InstanceId) -> Result<Vec<u8>, HypervisorError>;

    /// The counters of all domains that run or stand still, in some seconds or not at all. Refused while an earlier
    /// measurement has not ended.
    async fn measure(&self) -> Result<Vec<Measured>, HypervisorError>;

    /// What the agent in a guest says, within the bounds of [`GuestInfo::bounded`]; [`HypervisorError::NoGuestAgent`]
    /// when none listens. One guest at a time, and each for a minute at most.
    async fn ask_guest(&self, id: InstanceId) -> Result<GuestInfo, HypervisorError>;

    /// What happens from now on. A receiver that lags must look at [`Hypervisor::domains`] again.
    fn events(&self) -> broadcast::Receiver<Event>;
}

/// A domain as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    pub id: InstanceId,
    /// From the domain's metadata: the generation that rendered it.
    pub generation: Generation,
    /// From the domain's metadata: the boot it is.
    pub boot: i64,
    pub state: DomainState,
    /// Of a running domain.
    pub cards: Vec<Card>,
    /// Of a running domain: the volumes that it has.
    pub volumes: Vec<SeenVolume>,
}

/// A volume that a domain has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenVolume {
    pub id: VolumeId,
    /// From the bottom to the top.
    pub layers: Vec<LayerId>,
}

/// A network card that a domain has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    pub mac: MacAddress,
    /// The host's end.
    pub tap: Option<String>,
}

impl Domain {
    /// What the domain has of a volume.
    /// One of which nothing is known but that it is there.
    pub fn unreadable(id: InstanceId) -> Self {
        let (cards, volumes) = (Vec::new(), Vec::new());
        Self { id, generation: Generation(0), boot: 0, state: DomainState::Unreadable, cards, volumes }
    }

    pub fn volume(&self, id: VolumeId) -> Option<&SeenVolume> {
        self.volumes.iter().find(|volume| volume.id == id)
    }
}

impl Card {
    /// The card that is made of a specification.
    pub fn of(nic: &Nic) -> Self {
        Self { mac: nic.mac, tap: Some(networking::names::tap(nic.port_id)) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainState {
    Running,
    /// The guest is shutting down.
    ShuttingDown,
    /// Its guest stands still.
    Paused(PauseReason),
    /// Guest code has ended but the domain is still there for a moment.
    Off,
    /// The domain is there, and what it says of itself cannot be read: nothing else of it is known.
    Unreadable,
}

/// Everything needed to render and start a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSpec {
    pub id: InstanceId,
    pub generation: Generation,
    pub boot: i64,
    pub hostname: Name,
    pub architecture: Architecture,
    /// Where UEFI keeps its variables from boot to boot; the guest has a BIOS without it.
    pub uefi_variables: Option<Utf8PathBuf>,
    pub hardware: GuestHardware,
    pub vcpus: u32,
    pub memory_mib: MemoryMib,
    /// It boots from the first.
    pub disks: Vec<DomainDisk>,
    pub nics: Vec<Nic>,
    /// The seed, a raw image, read-only.
    pub seed: Utf8PathBuf,
    /// Where the serial console is logged; bounded and rotated by virtlogd.
    pub serial_log: Utf8PathBuf,
    pub request_id: Option<RequestId>,
}

/// A volume as a domain has it: the files of its chain, all qcow2, formats given and never probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainDisk {
    pub volume: VolumeId,
    pub size_gib: SizeGib,
    pub limits: IoLimits,
    /// Whether other hosts reach its files, too.
    pub shared: bool,
    /// The cached image under the lowest layer, shared by many and never written.
    pub base: Option<Utf8PathBuf>,
    /// From the bottom to the top; the last is written to.
    pub layers: Vec<Utf8PathBuf>,
}

/// A layer that a volume of a running domain gets on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLayer {
    pub volume: VolumeId,
    /// Whether other hosts reach its file, too.
    pub shared: bool,
    pub layer: Utf8PathBuf,
}

/// What a snapshot has beside the new layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    Nothing,
    /// A guest whose file systems are at rest.
    Rest,
    /// The guest's memory, in a new file.
    Memory {
        file: Utf8PathBuf,
        size: MemoryMib,
    },
}

/// Whether a guest is on its way between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// It is not, whatever there was before.
    Idle,
    /// The domain waits for it.
    Waiting,
    /// What it writes to is being written there, too: so much of that is there.
    Mirroring { done_bytes: u64, total_bytes: u64 },
    /// The other side has all that it writes to, and gets each change.
    Mirrored,
    /// It is being sent: so much of its memory need not be sent any more.
    Sending { done_bytes: u64, total_bytes: u64 },
    /// It stands still, and is sent when its mirrors have ended.
    Switching,
    /// The other side has said that it has all of it.
    Sent,
}

/// Two neighbours in a chain that become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    pub volume: VolumeId,
    /// The lower one, which stays.
    pub into: Utf8PathBuf,
    /// The upper one, which leaves the chain. Another stands on it.
    pub from: Utf8PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A domain of ours came to its end.
    Ended { id: InstanceId, why: EndCause },
    /// A domain of ours changed in another way: look again.
    Changed { id: InstanceId },
    /// The connection to the hypervisor broke; nothing is known until [`Event::Connected`].
    Disconnected,
    /// The connection is there (again): look at everything.
    Connected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// The guest powered itself off, asked or not.
    GuestShutdown,
    /// Somebody cut the power.
    Destroyed,
    /// QEMU died.
    Crashed,
}

#[derive(Debug, Error)]
pub enum HypervisorError {
    #[error("the hypervisor is not reachable")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("there is a domain for {0} already")]
    Exists(InstanceId),
    #[error("there is no domain for {0}")]
    NotFound(InstanceId),
    #[error("the guest has no display")]
    NoDisplay,
    /// Nothing was asked of it.
    #[error("no agent in the guest listens")]
    NoGuestAgent,
    /// It runs on, and goes once it has been stopped and started.
    #[error("an earlier QEMU, or an earlier release of this agent, has started the guest")]
    StartedEarlier,
    #[error("the guest's file systems could not be frozen")]
    NotFrozen(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the hypervisor refused to {attempted}")]
    Refused {
        attempted: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

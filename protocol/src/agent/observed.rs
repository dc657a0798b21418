//! Observed reports: what a host saw.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::agent::{Epoch, MigrationReport, NetworkReport, UnknownGuest, VolumeReport};
use crate::{Generation, InstanceId, LayerId, MacAddress, OperationId, RemovalId};

/// The most reports in one batch.
pub const MAX_REPORTS: usize = 500;
/// The longest `detail` that is stored; longer ones are cut.
pub const MAX_DETAIL_CHARS: usize = 1000;

/// The `detail` of an instance whose guest could not be frozen for a snapshot. Its volumes are
/// [`super::VolumeState::Preparing`], and the agent tries again.
pub const NOT_FROZEN: &str =
    "The guest's file systems could not be frozen for the snapshot: the guest agent has to run in it.";

/// `POST /agent/v1/observed`. Idempotent: a repeated batch changes nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservedBatch {
    pub epoch: Epoch,
    pub reports: Vec<InstanceReport>,
    /// Of what these name, nothing is left: see [`super::DesiredBody::RemoveLayers`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RemovalId>,
    /// Of migrations that the feed told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrations: Vec<MigrationReport>,
    /// Present when it has changed since it was last accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkReport>,
    /// All guests that are left alone because nothing is wanted of them. Present when it has changed since it was last
    /// accepted, and once in each session; see [`super::told_of_unknown`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_guests: Option<Vec<UnknownGuest>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ObservedAccepted {
    /// Instances in the batch that are not this host's, or whose report is older than what is stored.
    pub ignored: Vec<InstanceId>,
}

/// The latest word about one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceReport {
    pub id: InstanceId,
    /// The newest generation that the agent has acted on.
    pub generation: Generation,
    /// The boot that `state` speaks of.
    pub boot: i64,
    pub state: ObservedState,
    /// The volumes that it has, in their order; those that are on their way out come last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeReport>,
    /// The network cards that its domain still has although they are not wanted any more. `None` when the agent does not
    /// tell, as older ones do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving_cards: Option<Vec<MacAddress>>,
    /// Why its guest stands still, while it does. The domain is there and keeps its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseReason>,
    /// Why a snapshot that its specification asks for was not taken; its guest goes on as before, and the agent tries
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_taken: Option<NotTaken>,
    /// The file that [`super::InstanceSpec::save_memory`] names, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved_memory: Option<LayerId>,
    /// For people, in a sentence: why it waits or failed. Never a path or a host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Steps done for the open operation, each once, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepReport>,
}

impl InstanceReport {
    /// The lines of [`ObservedBatch::digest_input`]: one for the instance, and one for each of its pause, its volumes and
    /// the cards that it still has.
    fn digest_lines(&self) -> String {
        let reason = match self.state {
            ObservedState::Stopped { reason } => reason.as_str(),
            _ => "-",
        };
        let mut lines =
            format!("{} {} {} {} {reason}\n", self.id, self.generation, self.boot, self.state.as_str());
        if let Some(paused) = self.paused {
            lines += &format!("- paused {}\n", paused.as_str());
        }
        for volume in &self.volumes {
            lines += &format!("- {} {} {}\n", volume.id, volume.generation, volume.state.as_str());
            volume.merged.iter().for_each(|layer| lines += &format!("- merged {layer}\n"));
        }
        for card in self.leaving_cards.iter().flatten() {
            lines += &format!("- card {card}\n");
        }
        lines
    }
}

impl ObservedBatch {
    /// The text whose SHA-256 a heartbeat carries: the instances with their volumes, ordered by id. Both sides build
    /// it with this function.
    pub fn digest_input<'a>(reports: impl IntoIterator<Item = &'a InstanceReport>) -> String {
        let mut reports: Vec<_> = reports.into_iter().collect();
        reports.sort_by_key(|report| report.id);
        reports.into_iter().map(InstanceReport::digest_lines).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ObservedState {
    /// Making disk and domain.
    Preparing,
    /// A domain runs.
    Running,
    /// A domain runs and is going down.
    Stopping,
    /// No domain runs, and none will start by itself.
    Stopped { reason: EndReason },
    /// The agent cannot go on; it tries again by itself, ever more slowly.
    Failed,
    /// Nothing of the instance is left on the host.
    Absent,
}

/// Why a guest stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// What it writes finds no room in the host's pool. It goes on by itself when there is some.
    PoolFull,
    /// The host could not read or write one of its disks. Its host tries again, ever more slowly.
    IoError,
    /// Somebody on the host has suspended it.
    Suspended,
    /// Its owner wants it to.
    Requested,
}

impl PauseReason {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PoolFull => "pool_full",
            Self::IoError => "io_error",
            Self::Suspended => "suspended",
            Self::Requested => "requested",
        }
    }

    /// The reason of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::PoolFull, Self::IoError, Self::Suspended, Self::Requested];
        all.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// Why a snapshot was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotTaken {
    /// The guest was to be frozen, and no agent in it listens.
    NoGuestAgent,
    /// The agent in the guest did not freeze all file systems, or not in time.
    NotFrozen,
    /// There is too little room for its memory.
    NoRoom,
    /// Its memory could not be saved, or not in time.
    MemoryNotSaved,
}

impl NotTaken {
    const ALL: [Self; 4] = [Self::NoGuestAgent, Self::NotFrozen, Self::NoRoom, Self::MemoryNotSaved];

    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoGuestAgent => "no_guest_agent",
            Self::NotFrozen => "not_frozen",
            Self::NoRoom => "no_room",
            Self::MemoryNotSaved => "memory_not_saved",
        }
    }

    /// The reason of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// Why no domain runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The desired state asked for it.
    Requested,
    /// The guest powered itself off.
    GuestShutdown,
    /// QEMU ended without being asked.
    Crashed,
    /// It ended while no agent watched.
    Unobserved,
    /// It has not been started yet.
    NeverStarted,
    /// The guard of its host has cut its power, because the host could not renew its lease in a shared pool.
    Fenced,
}

impl ObservedState {
    /// The stored form; the reason of `Stopped` is stored beside it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped { .. } => "stopped",
            Self::Failed => "failed",
            Self::Absent => "absent",
        }
    }
}

impl EndReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::GuestShutdown => "guest_shutdown",
            Self::Crashed => "crashed",
            Self::Unobserved => "unobserved",
            Self::NeverStarted => "never_started",
            Self::Fenced => "fenced",
        }
    }
}

/// One step of an operation's trail, as the agent did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepReport {
    pub operation_id: OperationId,
    pub step: Step,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    AgentReceived,
    ImageCached,
    /// The root disk, or a volume that is being attached.
    DiskMade,
    /// A volume was plugged into the running guest.
    DiskAttached,
    /// The running guest was asked to let go of a volume.
    DiskDetachRequested,
    /// A volume has its new size and limits in the running guest.
    DiskChanged,
    /// From one instant on, the running guest writes to new layers.
    SnapshotTaken,
    /// The memory that the guest goes on from is in place; it stands still.
    MemoryLoaded,
    /// Layers of the running guest's volumes are being merged.
    LayersMerging,
    NetworkReady,
    SeedMade,
    DomainDefined,
    Running,
    /// The guest stands still.
    Paused,
    PowerButtonPressed,
    PowerCut,
    Stopped,
    DiskRemoved,
    Absent,
}

impl Step {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AgentReceived => "agent_received",
            Self::ImageCached => "image_cached",
            Self::DiskMade => "disk_made",
            Self::DiskAttached => "disk_attached",
            Self::DiskDetachRequested => "disk_detach_requested",
            Self::DiskChanged => "disk_changed",
            Self::SnapshotTaken => "snapshot_taken",
            Self::MemoryLoaded => "memory_loaded",
            Self::LayersMerging => "layers_merging",
            Self::NetworkReady => "network_ready",
            Self::SeedMade => "seed_made",
            Self::DomainDefined => "domain_defined",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::PowerButtonPressed => "power_button_pressed",
            Self::PowerCut => "power_cut",
            Self::Stopped => "stopped",
            Self::DiskRemoved => "disk_removed",
            Self::Absent => "absent",
        }
    }
}

//! Sessions, heartbeats, and what a host has to offer.

use serde::{Deserialize, Serialize};

use crate::agent::{GuardedPool, SeenLease};
use crate::{HostId, MemoryMib, Name, Sha256, SizeGib};

/// Counts the sessions of one host; the newest is the only valid one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

/// `POST /agent/v1/sessions`: this agent now speaks for the host of its certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    pub protocol_version: u32,
    /// The agent's own version, for the operator.
    pub agent_version: String,
    pub inventory: Inventory,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct SessionOpened {
    pub host_id: HostId,
    pub epoch: Epoch,
    /// Send a [`Heartbeat`] this often.
    pub heartbeat_seconds: u32,
    /// What both sides speak from now on: that of [`OpenSession`].
    #[serde(default = "super::version::unsaid")]
    pub protocol_version: u32,
}

/// What the host can really do, probed and not guessed. It is also stored, and read by replicas of another release: what they
/// do not know they pass over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Inventory {
    /// Logical processors.
    pub cpus: u32,
    pub memory_mib: MemoryMib,
    /// Size of the local pool's file system.
    pub disk_gib: SizeGib,
    /// The processor as the kernel names it.
    pub cpu_model: String,
    /// For example `QEMU 10.0.2, libvirt 11.3.0`.
    pub hypervisor: String,
    pub acceleration: Acceleration,
    /// Why that acceleration, in a sentence for the operator.
    pub acceleration_detail: String,
    /// Guest architectures that this host can run.
    pub architectures: Vec<Architecture>,
    /// What else its guests may have: `nested_virtualization`, or nothing.
    #[serde(default)]
    pub features: Vec<String>,
    /// Processor models that its guests may have by name, as libvirt says.
    #[serde(default)]
    pub cpu_models: Vec<String>,
    /// Changes at each boot of the machine (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: uuid::Uuid,
    /// Where other hosts reach this one's virtual networks (VXLAN); absent when it has none.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "ip"))]
    pub underlay_address: Option<std::net::IpAddr>,
}

/// A feature of hosts whose guests may run guests of their own on hardware.
pub const NESTED_VIRTUALIZATION: &str = "nested_virtualization";

/// How guest code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Acceleration {
    /// Hardware virtualization, proved by a guest that really ran.
    Kvm,
    /// Emulation by QEMU's TCG.
    Tcg,
    /// No guest runs at all: the simulated hypervisor.
    Simulated,
}

/// A guest's processor architecture, as the kernel and libvirt name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Architecture {
    #[serde(rename = "x86_64")]
    X86_64,
    Aarch64,
    Riscv64,
}

impl Architecture {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Riscv64 => "riscv64",
        }
    }

    /// Whether its machines have a BIOS, too. All have UEFI.
    pub const fn has_bios(self) -> bool {
        matches!(self, Self::X86_64)
    }

    /// The architecture of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::X86_64, Self::Aarch64, Self::Riscv64]
            .into_iter()
            .find(|architecture| architecture.as_str() == name)
    }
}

/// Whether the agent can see its domains. `Degraded` says nothing about the domains themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum HypervisorHealth {
    Ok,
    Degraded { reason: String },
}

/// The most shared pools of a host.
pub const MAX_SHARED_POOLS: usize = 32;

/// `POST /agent/v1/heartbeat`: the agent lives. Carries a digest, not the list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    pub epoch: Epoch,
    pub hypervisor: HypervisorHealth,
    /// [`super::ObservedBatch::digest_input`] of everything the agent has reported, hashed; the control
    /// plane asks for all reports again when its own differs.
    pub observed_digest: Sha256,
    /// Domains of ours that the desired state does not know. They are left alone and shown.
    pub quarantined: u32,
    /// Absent when the pool could not be measured, and from agents of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolUsage>,
    /// The shared pools that this host was told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_pools: Vec<SharedPoolReport>,
    /// The shared pools in which its guard keeps its lease fresh now; nothing without a guard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guarded_pools: Vec<GuardedPool>,
    /// What it sees of other hosts' leases; at most [`super::MAX_SEEN_LEASES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen_leases: Vec<SeenLease>,
}

/// The file system of the local pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolUsage {
    pub total_bytes: u64,
    /// As an unprivileged process finds it.
    pub free_bytes: u64,
    /// Of cached images, needed or not.
    pub image_cache_bytes: u64,
}

/// A shared pool as this host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedPoolReport {
    pub name: Name,
    pub state: SharedPoolState,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SharedPoolState {
    Ready {
        /// As the directory says itself. Two directories under one name have different ones.
        identity: uuid::Uuid,
        /// Of the file system.
        total_bytes: u64,
        free_bytes: u64,
    },
    /// It cannot be used here now.
    Unusable {
        /// Why, for the operator.
        reason: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// Send every report again: what the control plane has stored differs.
    pub report_all: bool,
    /// The newest version that the control plane speaks. An agent that speaks an older one only for its sake opens another
    /// session.
    #[serde(default = "super::version::unsaid")]
    pub protocol_version: u32,
}

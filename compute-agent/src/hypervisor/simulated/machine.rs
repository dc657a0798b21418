//! What a simulated machine has and how its guests behave.

use std::time::Duration;

use protocol::{MemoryMib, SizeGib};
use uuid::Uuid;

/// The machine that is pretended.
#[derive(Debug, Clone)]
pub struct SimulatedMachine {
    pub cpus: u32,
    pub memory_mib: MemoryMib,
    pub disk_gib: SizeGib,
    pub boot_id: Uuid,
    /// How long [`Hypervisor::create`] takes.
    pub create_latency: Duration,
    /// How long each other step takes.
    pub step_latency: Duration,
    /// The share of starts that are refused, from 0 to 1; which ones, the seed decides.
    pub failing_creates: f64,
    pub seed: u64,
    /// Whether guests obey the power button.
    pub guests_obey_power_button: bool,
    /// Whether guests let go of their network cards and disks.
    pub guests_release_devices: bool,
    /// Whether an agent in the guests freezes and thaws their file systems.
    pub guests_freeze: bool,
}

impl SimulatedMachine {
    /// 16 processors, 64 GiB of memory, 1 TiB of disk, obedient guests.
    pub fn new(boot_id: Uuid) -> Self {
        Self {
            cpus: 16,
            memory_mib: MemoryMib(64 * 1024),
            disk_gib: SizeGib(1024),
            boot_id,
            create_latency: Duration::ZERO,
            step_latency: Duration::ZERO,
            failing_creates: 0.0,
            seed: 0,
            guests_obey_power_button: true,
            guests_release_devices: true,
            guests_freeze: true,
        }
    }
}

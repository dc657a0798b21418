//! What a hypervisor measures of a domain.

use protocol::agent::{CardCounters, DiskCounters, MemorySample};
use protocol::{InstanceId, LayerId};

/// The counters of one domain, all since its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    pub id: InstanceId,
    /// Another number is another start.
    pub run: u32,
    pub cpu_ns: Option<u64>,
    pub memory: MemorySample,
    pub disks: Vec<MeasuredDisk>,
    pub cards: Vec<MeasuredCard>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredDisk {
    /// The layer that is written to.
    pub layer: LayerId,
    pub counters: DiskCounters,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredCard {
    /// The host's end.
    pub tap: String,
    pub counters: CardCounters,
}

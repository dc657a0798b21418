//! A sample as it is kept: short, since there are many.

use std::collections::BTreeSet;

use protocol::agent::{
    CardCounters, DiskCounters, MAX_MEASURED, MemorySample, PortSample, Sample, VolumeSample, believable,
};
use protocol::{PortId, VolumeId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// The counters of an instance at one instant, all since the start of its domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The start: where it is another one, all counters have begun anew.
    #[serde(rename = "r")]
    pub run: u32,
    #[serde(rename = "v")]
    pub vcpus: u32,
    #[serde(rename = "c")]
    pub cpu_ns: Option<u64>,
    #[serde(rename = "m")]
    memory: [Option<u64>; 4],
    #[serde(rename = "d")]
    disks: Vec<(VolumeId, [u64; 4])>,
    #[serde(rename = "p")]
    cards: Vec<(PortId, [u64; 6])>,
}

/// One that was measured at this time.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub at: OffsetDateTime,
    pub kept: Kept,
}

impl Kept {
    /// What a host says, within bounds: of each disk and card that is one of the instance's, the first that it says.
    pub(super) fn of(sample: &Sample, is_own: impl Fn(Uuid) -> bool) -> Self {
        let mut seen = BTreeSet::new();
        let mut counts = |id: Uuid| is_own(id) && seen.insert(id);
        let MemorySample { size_bytes, total_bytes, available_bytes, resident_bytes } = sample.memory;
        let disk = |VolumeSample { id, counters }: &VolumeSample| {
            let DiskCounters { read_bytes, read_requests, written_bytes, write_requests } = *counters;
            (*id, [read_bytes, read_requests, written_bytes, write_requests].map(believable))
        };
        let card = |PortSample { id, counters }: &PortSample| {
            let CardCounters {
                received_bytes,
                received_packets,
                received_drops,
                sent_bytes,
                sent_packets,
                sent_drops,
            } = *counters;
            let numbers =
                [received_bytes, received_packets, received_drops, sent_bytes, sent_packets, sent_drops];
            (*id, numbers.map(believable))
        };
        Self {
            run: sample.run,
            vcpus: sample.vcpus.clamp(1, 4096),
            cpu_ns: sample.cpu_ns.map(believable),
            memory: [size_bytes, total_bytes, available_bytes, resident_bytes].map(|one| one.map(believable)),
            disks: sample
                .volumes
                .iter()
                .filter(|one| counts(one.id.as_uuid()))
                .take(MAX_MEASURED)
                .map(disk)
                .collect(),
            cards: sample
                .ports
                .iter()
                .filter(|one| counts(one.id.as_uuid()))
                .take(MAX_MEASURED)
                .map(card)
                .collect(),
        }
    }

    pub(super) fn memory(&self) -> MemorySample {
        let [size_bytes, total_bytes, available_bytes, resident_bytes] = self.memory;
        MemorySample { size_bytes, total_bytes, available_bytes, resident_bytes }
    }

    /// Bytes and requests read, bytes and requests written, of each volume.
    pub(super) fn disks(&self) -> impl Iterator<Item = (VolumeId, [u64; 4])> {
        self.disks.iter().copied()
    }

    /// Bytes, packets and drops received, the same sent, of each port.
    pub(super) fn cards(&self) -> impl Iterator<Item = (PortId, [u64; 6])> {
        self.cards.iter().copied()
    }
}

/// What the guest uses of its memory, as far as its balloon driver says.
pub(super) fn used_bytes(memory: &MemorySample) -> Option<u64> {
    Some(memory.total_bytes?.saturating_sub(memory.available_bytes?))
}

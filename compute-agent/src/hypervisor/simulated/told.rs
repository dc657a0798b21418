//! What tests are told of a simulation, and what they make fail.

use std::sync::atomic::Ordering::SeqCst;

use camino::Utf8PathBuf;
use protocol::agent::IoLimits;
use protocol::{InstanceId, SizeGib, VolumeId};

use super::{Call, Simulated, Tally};

impl Simulated {
    /// Consoles that are open now.
    pub fn open_consoles(&self) -> usize {
        self.open_consoles.load(SeqCst)
    }

    /// How often a guest was asked to let go of a card or a disk.
    pub fn detachments_asked(&self) -> u32 {
        self.lock().detachments_asked
    }

    /// How many snapshots were taken.
    pub fn snapshots(&self) -> u32 {
        self.lock().snapshots
    }

    /// The boots that began with a memory, and which.
    pub fn restored(&self) -> Vec<(InstanceId, i64, Utf8PathBuf)> {
        self.lock().restored.clone()
    }

    /// Size and limits of a disk of a domain.
    pub fn tuned(&self, id: InstanceId, volume: VolumeId) -> Option<(SizeGib, IoLimits)> {
        self.lock().tuned.get(&(id, volume)).copied()
    }

    /// The next `times` calls of that kind are refused.
    pub fn fail_next(&self, call: Call, times: u32) {
        self.lock().failures.insert(call, times);
    }

    /// How often that boot of the instance was started.
    pub fn starts(&self, id: InstanceId, boot: i64) -> u32 {
        self.lock().starts.of(id, boot)
    }

    /// What runs, and how often anything was started.
    pub fn tally(&self) -> Tally {
        let state = self.lock();
        state.starts.tally(state.domains.len())
    }

    /// How often the instance's power button was pressed.
    pub fn presses(&self, id: InstanceId) -> u32 {
        self.lock().presses.get(&id).copied().unwrap_or(0)
    }
}

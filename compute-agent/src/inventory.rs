//! What the host last offered, for a session that has to be opened while the hypervisor is away.

use std::io;
use std::net::IpAddr;

use camino::Utf8PathBuf;
use protocol::agent::Inventory;
use uuid::Uuid;

use crate::durable::{self, Survive, off_thread};

/// See the module.
#[derive(Debug, Clone)]
pub struct LastInventory {
    pub file: Utf8PathBuf,
    /// The machine's current boot.
    pub machine_boot: Uuid,
    /// Where other hosts reach this one's virtual networks: as the agent was told, not as was kept.
    pub underlay_address: Option<IpAddr>,
}

impl LastInventory {
    /// Adds what the hypervisor cannot know.
    pub fn complete(&self, inventory: Inventory) -> Inventory {
        Inventory { underlay_address: self.underlay_address, ..inventory }
    }

    /// Remembers what was found. A failure costs nothing now, so it is only logged.
    pub async fn keep(&self, inventory: &Inventory) {
        let (file, contents) = (self.file.clone(), serde_json::to_vec(inventory));
        let written = off_thread(move || durable::write(&file, &contents?, Survive::Process)).await;
        if let Err(error) = written {
            tracing::warn!(%error, "the inventory could not be written down");
        }
    }

    /// What was found the last time that the hypervisor answered.
    pub async fn last(&self) -> Option<Inventory> {
        let file = self.file.clone();
        let read = off_thread(move || {
            serde_json::from_slice::<Inventory>(&std::fs::read(&file)?).map_err(io::Error::from)
        });
        let inventory = read.await.ok()?;
        Some(self.complete(Inventory { boot_id: self.machine_boot, ..inventory }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::Hypervisor;
    use crate::hypervisor::simulated::{Simulated, SimulatedMachine};

    #[tokio::test]
    async fn what_is_kept_is_told_with_the_present_boot_and_underlay_address() {
        let dir = tempfile::tempdir().unwrap();
        let file = Utf8PathBuf::from_path_buf(dir.path().join("inventory.json")).unwrap();
        let at = |n, underlay: Option<&str>| LastInventory {
            file: file.clone(),
            machine_boot: Uuid::from_u128(n),
            underlay_address: underlay.map(|address| address.parse().unwrap()),
        };
        let found = Simulated::new(SimulatedMachine::new(Uuid::from_u128(1))).inventory().await.unwrap();
        let first = at(1, Some("192.0.2.1"));
        let told = first.complete(found);
        assert_eq!(told.underlay_address, Some("192.0.2.1".parse().unwrap()));
        first.keep(&told).await;
        assert_eq!(first.last().await, Some(told));
        let later = at(2, None).last().await.unwrap();
        assert_eq!((later.boot_id, later.underlay_address), (Uuid::from_u128(2), None));
    }
}

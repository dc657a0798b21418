//! What outlives the process of a simulation: its domains, and what was ever started.

use std::collections::{BTreeMap, BTreeSet};

use protocol::InstanceId;
use serde::{Deserialize, Serialize};

use super::State;
use crate::hypervisor::Domain;
use crate::kept::Keep;

/// The instances of which each boot's starts are remembered: those that were made last.
const REMEMBERED: usize = 1000;

/// What is in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub domains: Vec<Domain>,
    pub starts: Starts,
}

#[derive(Serialize)]
struct Keeping<'a> {
    domains: Vec<&'a Domain>,
    starts: &'a Starts,
}

impl Keep for State {
    fn keep(&mut self) {
        self.lives.look(&self.domains);
        if self.file.is_there() {
            self.file.write(&Keeping { domains: self.domains.values().collect(), starts: &self.starts });
        }
    }
}

/// How often which boot was started.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Starts {
    boots: BTreeMap<InstanceId, BTreeMap<i64, u32>>,
    total: u64,
    repeated: BTreeSet<(InstanceId, i64)>,
    pub refused: u64,
}

impl Starts {
    pub fn count(&mut self, id: InstanceId, boot: i64) {
        let times = self.boots.entry(id).or_default().entry(boot).or_default();
        *times += 1;
        self.total += 1;
        if *times > 1 {
            self.repeated.insert((id, boot));
        }
        // Ids sort by time.
        while self.boots.len() > REMEMBERED {
            self.boots.pop_first();
        }
    }

    pub fn of(&self, id: InstanceId, boot: i64) -> u32 {
        self.boots.get(&id).and_then(|boots| boots.get(&boot)).copied().unwrap_or_default()
    }

    pub fn tally(&self, domains: usize) -> Tally {
        let repeated = self.repeated.iter().copied().collect();
        Tally { domains, starts: self.total, refused: self.refused, repeated }
    }
}

/// A simulated hypervisor in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// That are there now.
    pub domains: usize,
    /// Ever.
    pub starts: u64,
    /// Starts that were refused by chance.
    pub refused: u64,
    /// The boots that were started more than once, which must never be.
    pub repeated: Vec<(InstanceId, i64)>,
}

#[cfg(test)]
pub(super) mod tests {
    use camino::Utf8PathBuf;
    use uuid::Uuid;

    use super::*;
    use crate::hypervisor::simulated::{Simulated, SimulatedMachine};
    use crate::hypervisor::{DomainSpec, Hypervisor};
    use crate::samples::{instance_id, nic, running};

    pub(in crate::hypervisor::simulated) fn spec(id: InstanceId) -> DomainSpec {
        let spec = running(id);
        DomainSpec {
            id,
            generation: spec.generation,
            boot: spec.boot,
            hostname: spec.hostname,
            architecture: spec.architecture,
            uefi_variables: None,
            hardware: spec.hardware,
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            disks: Vec::new(),
            seed: "/nonexistent/seed".into(),
            nics: vec![nic(1)],
            serial_log: "/nonexistent/log".into(),
            request_id: None,
        }
    }

    #[tokio::test]
    async fn domains_and_starts_outlive_the_process_and_a_file_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = Utf8PathBuf::from_path_buf(dir.path().join("domains.json")).unwrap();
        let open = || Simulated::kept_in(file.clone(), SimulatedMachine::new(Uuid::from_u128(1)));
        let (stays, goes) = (spec(instance_id()), spec(instance_id()));
        let first = open().unwrap();
        first.create(&stays).await.unwrap();
        first.create(&goes).await.unwrap();
        first.destroy(goes.id).await.unwrap();
        let seen = first.domains().await.unwrap();
        drop(first);

        let second = open().unwrap();
        assert_eq!(second.domains().await.unwrap(), seen);
        assert!(second.create(&stays).await.is_err(), "it runs");
        second.create(&goes).await.unwrap();
        drop(second);
        let tally = open().unwrap().tally();
        assert_eq!((tally.domains, tally.starts, tally.repeated), (2, 3, vec![(goes.id, 1)]));

        std::fs::write(&file, "{\"domains\":").unwrap();
        assert!(open().is_err());
    }

    #[tokio::test]
    async fn the_same_seed_refuses_the_same_starts() {
        let refused = async |seed| {
            let machine =
                SimulatedMachine { failing_creates: 0.3, seed, ..SimulatedMachine::new(Uuid::nil()) };
            let simulated = Simulated::new(machine);
            let mut refused = Vec::new();
            for _ in 0..50 {
                refused.push(simulated.create(&spec(instance_id())).await.is_err());
            }
            assert_eq!(simulated.tally().refused, refused.iter().filter(|it| **it).count() as u64);
            refused
        };
        let first = refused(1).await;
        assert!(first.iter().any(|it| *it) && first.iter().any(|it| !*it));
        assert_eq!(refused(1).await, first);
        assert_ne!(refused(2).await, first);
    }

    #[test]
    fn a_boot_that_is_started_twice_is_not_forgotten_and_the_oldest_of_many_instances_is() {
        let mut starts = Starts::default();
        let id = |n: u128| InstanceId::from_uuid(Uuid::from_u128(n));
        for n in 0..1500 {
            starts.count(id(n), 1);
        }
        starts.count(id(1499), 2);
        assert_eq!(starts.tally(0).repeated, []);
        starts.count(id(1499), 2);
        assert_eq!((starts.of(id(1499), 2), starts.of(id(0), 1)), (2, 0));
        let tally = starts.tally(7);
        assert_eq!((tally.domains, tally.starts, tally.repeated), (7, 1502, vec![(id(1499), 2)]));
    }
}

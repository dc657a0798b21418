//! From what was measured of a domain to what is told of an instance.

use protocol::agent::{MAX_SAMPLES, PortSample, Sample, VolumeSample};

use crate::desired::Wanted;
use crate::hypervisor::Measured;

/// Samples, volumes and ports of one batch: with more, it would be too long for the control plane.
const MAX_ITEMS: usize = 3000;

/// What of it belongs to the instance; `None` when that is being deleted.
pub(super) fn sample(measured: &Measured, wanted: &Wanted) -> Option<Sample> {
    let Wanted::Instance(spec) = wanted else { return None };
    let volumes = measured.disks.iter().filter_map(|disk| {
        let of = wanted.disks().iter().find(|wanted| wanted.volume.layers.contains(&disk.layer))?;
        Some(VolumeSample { id: of.volume.id, counters: disk.counters })
    });
    let ports = measured.cards.iter().filter_map(|card| {
        let of = wanted.nics().iter().find(|nic| networking::names::tap(nic.port_id) == card.tap)?;
        Some(PortSample { id: of.port_id, counters: card.counters })
    });
    Some(Sample {
        id: measured.id,
        run: measured.run,
        age_ms: 0,
        vcpus: spec.vcpus,
        cpu_ns: measured.cpu_ns,
        memory: measured.memory,
        volumes: volumes.collect(),
        ports: ports.collect(),
    })
}

/// In so many batches that each is short enough.
pub(super) fn batches(samples: Vec<Sample>) -> Vec<Vec<Sample>> {
    let mut batches: Vec<Vec<Sample>> = Vec::new();
    let mut items = MAX_ITEMS;
    for sample in samples {
        let weight = 1 + sample.volumes.len() + sample.ports.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < MAX_SAMPLES && items + weight <= MAX_ITEMS => {
                items += weight;
                batch.push(sample);
            }
            _ => {
                items = weight;
                batches.push(vec![sample]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use protocol::agent::{CardCounters, DiskCounters, MemorySample};

    use super::*;
    use crate::hypervisor::{MeasuredCard, MeasuredDisk};
    use crate::samples::{deleted, instance_id, nic, running};

    fn wanted() -> Wanted {
        let mut spec = running(instance_id());
        spec.nics = vec![nic(1)];
        Wanted::Instance(Box::new(spec))
    }

    fn measured(wanted: &Wanted) -> Measured {
        let layer = wanted.disks()[0].volume.layers[0];
        let tap = networking::names::tap(wanted.nics()[0].port_id);
        let other = protocol::LayerId::from_uuid(uuid::Uuid::now_v7());
        let disk = |layer| MeasuredDisk { layer, counters: DiskCounters::default() };
        let card = |tap: &str| MeasuredCard { tap: tap.to_owned(), counters: CardCounters::default() };
        Measured {
            id: wanted.id(),
            run: 1,
            cpu_ns: Some(1),
            memory: MemorySample::default(),
            disks: vec![disk(layer), disk(other)],
            cards: vec![card("vnet0"), card(&tap)],
        }
    }

    #[test]
    fn only_what_is_wanted_of_an_instance_is_told() {
        let wanted = wanted();
        let told = sample(&measured(&wanted), &wanted).unwrap();
        assert_eq!(told.volumes.iter().map(|one| one.id).collect::<Vec<_>>(), [wanted.disks()[0].volume.id]);
        assert_eq!(told.ports.iter().map(|one| one.id).collect::<Vec<_>>(), [wanted.nics()[0].port_id]);
        let protocol::agent::DesiredBody::DeleteInstance { id, generation, .. } =
            deleted(&running(wanted.id()))
        else {
            panic!("no deletion")
        };
        let gone =
            Wanted::Deleted { id, generation, layers: Vec::new(), pools: Vec::new(), operation_id: None };
        assert_eq!(sample(&measured(&wanted), &gone), None);
    }

    #[test]
    fn a_batch_is_short_enough_for_the_control_plane() {
        let wanted = wanted();
        let mut one = sample(&measured(&wanted), &wanted).unwrap();
        assert_eq!(batches(vec![one.clone(); 1001]).iter().map(Vec::len).collect::<Vec<_>>(), [500, 500, 1]);
        let counters = DiskCounters {
            read_bytes: u64::MAX,
            read_requests: u64::MAX,
            written_bytes: u64::MAX,
            write_requests: u64::MAX,
        };
        one.volumes = vec![VolumeSample { id: wanted.disks()[0].volume.id, counters }; 60];
        let batches = batches(vec![one; 200]);
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 200);
        assert!(batches.iter().all(|batch| serde_json::to_vec(batch).unwrap().len() < 1 << 20));
    }
}

//! Instances with several disks: plugged in, pulled out, grown, and kept when the instance goes.

use protocol::agent::{Disk, InstanceSpec, IoLimits, Step as Told, VolumeState};
use protocol::{Generation, InstanceId, LayerId, SizeGib, VolumeId};
use uuid::Uuid;

use super::{Host, Life, NEVER};
use crate::hypervisor::Hypervisor;
use crate::hypervisor::simulated::Call;
use crate::samples::{deleted, disk, instance_id, next, running, stopped, wish};

impl Life {
    fn volumes(&self, id: InstanceId) -> Vec<(VolumeId, i64, VolumeState)> {
        let (report, _) = self.outbox.latest(id).unwrap();
        report.volumes.into_iter().map(|volume| (volume.id, volume.generation.0, volume.state)).collect()
    }
}

impl Host {
    async fn volumes(&self, id: InstanceId) -> Vec<VolumeId> {
        let domains = self.hypervisor.domains().await.unwrap();
        let domain = domains.into_iter().find(|domain| domain.id == id).unwrap();
        domain.volumes.into_iter().map(|volume| volume.id).collect()
    }
}

fn data_disk() -> Disk {
    disk(Uuid::now_v7())
}

fn with(spec: &InstanceSpec, disks: Vec<Disk>) -> InstanceSpec {
    InstanceSpec { disks, ..next(spec) }
}

async fn running_with_two(host: &Host) -> (Life, InstanceSpec) {
    let mut life = host.start_agent(NEVER);
    let mut spec = running(instance_id());
    spec.disks.push(data_disk());
    life.want(wish(&spec));
    life.settle(spec.id).await;
    (life, spec)
}

#[tokio::test]
async fn an_instance_starts_with_all_its_disks() {
    let host = Host::new();
    let (life, spec) = running_with_two(&host).await;
    let ids: Vec<_> = spec.disks.iter().map(|disk| disk.volume.id).collect();
    assert_eq!(host.volumes(spec.id).await, ids);
    assert_eq!(life.volumes(spec.id), [(ids[0], 1, VolumeState::Ready), (ids[1], 1, VolumeState::Ready)]);
    assert_eq!(host.storage.layers_made(), 2);
}

#[tokio::test]
async fn a_disk_is_plugged_into_a_running_instance_and_pulled_out() {
    let host = Host::new();
    let (mut life, spec) = running_with_two(&host).await;
    let (root, old, new) = (spec.disks[0].clone(), spec.disks[1].clone(), data_disk());
    host.hypervisor.set_guests_release_devices(false);
    let swapped = with(&spec, vec![root.clone(), new.clone()]);
    life.want(wish(&swapped));
    for _ in 0..20 {
        life.reconciler.pass(spec.id).await;
    }
    let held = life.volumes(spec.id);
    assert_eq!(held[1], (new.volume.id, 1, VolumeState::Ready), "nobody waits for the one that stays");
    assert_eq!(held[2], (old.volume.id, 0, VolumeState::Detaching));
    assert_eq!(host.hypervisor.detachments_asked(), 1, "asked again only later");
    let (report, steps) = life.outbox.latest(spec.id).unwrap();
    let serial = old.volume.id.serial();
    assert_eq!(report.detail.unwrap(), format!("The guest has been asked to let go of the disk {serial}."));
    assert!(steps.contains(&Told::DiskAttached) && steps.contains(&Told::DiskDetachRequested), "{steps:?}");

    host.hypervisor.set_guests_release_devices(true);
    life.settle(spec.id).await;
    assert_eq!(host.volumes(spec.id).await, [root.volume.id, new.volume.id]);
    assert_eq!(life.volumes(spec.id).len(), 2);
    assert!(host.storage.layers().contains(&old.volume.layers[0]), "what was pulled out is kept");
}

#[tokio::test]
async fn a_disk_grows_and_is_limited_while_it_is_used() {
    let host = Host::new();
    let (mut life, spec) = running_with_two(&host).await;
    let mut disks = spec.disks.clone();
    let limits = IoLimits { iops: Some(10), bytes_per_second: None };
    disks[1].volume.size_gib = SizeGib(9);
    disks[1].volume.generation = Generation(2);
    disks[1].limits = limits;
    let grown = with(&spec, disks);
    let volume = grown.disks[1].volume.id;
    host.hypervisor.fail_next(Call::TuneDisk, 1);
    life.want(wish(&grown));
    life.reconciler.pass(spec.id).await;
    assert_eq!(life.volumes(spec.id)[1], (volume, 2, VolumeState::Preparing));
    life.settle(spec.id).await;
    assert_eq!(host.hypervisor.tuned(spec.id, volume), Some((SizeGib(9), limits)));
    assert_eq!(life.volumes(spec.id)[1], (volume, 2, VolumeState::Ready));
    assert!(life.steps(spec.id).contains(&Told::DiskChanged));

    // Not running: grown at the next start. An agent that does not know says it again.
    drop(life);
    let mut life = host.start_agent(NEVER);
    life.settle(spec.id).await;
    let mut off = stopped(&grown, grown.stop);
    off.disks[1].volume.size_gib = SizeGib(12);
    life.want(wish(&off));
    life.settle(spec.id).await;
    assert_eq!(life.volumes(spec.id)[1], (volume, 2, VolumeState::Ready));
}

fn layer() -> LayerId {
    LayerId::from_uuid(Uuid::now_v7())
}

#[tokio::test]
async fn a_snapshot_is_one_instant_of_all_disks_and_merges_again() {
    let host = Host::new();
    let (mut life, spec) = running_with_two(&host).await;
    let mut chains = spec.disks.clone();
    for disk in &mut chains {
        disk.volume.layers.push(layer());
    }
    let taken = with(&spec, chains.clone());
    host.hypervisor.fail_next(Call::Snapshot, 1);
    life.want(wish(&taken));
    life.reconciler.pass(spec.id).await;
    assert_eq!(life.volumes(spec.id)[0].2, VolumeState::Preparing);
    let (report, _) = life.outbox.latest(spec.id).unwrap();
    assert_eq!(report.detail.unwrap(), "The host could not take the snapshot.");
    life.settle(spec.id).await;
    assert_eq!(host.hypervisor.snapshots(), 1, "one for both disks");
    let layers = async || -> Vec<_> {
        let domain = host.hypervisor.domains().await.unwrap().remove(0);
        domain.volumes.into_iter().map(|volume| volume.layers).collect()
    };
    let expected: Vec<_> = chains.iter().map(|disk| disk.volume.layers.clone()).collect();
    assert_eq!(layers().await, expected);
    assert!(life.steps(spec.id).contains(&Told::SnapshotTaken));

    // A second one of the first disk; then both snapshots of it are deleted.
    let mut more = chains.clone();
    more[0].volume.layers.push(layer());
    life.want(wish(&with(&taken, more.clone())));
    life.settle(spec.id).await;
    more[0].volume.layers.truncate(1);
    life.want(wish(&InstanceSpec { generation: Generation(9), ..with(&taken, more.clone()) }));
    life.settle(spec.id).await;
    let expected: Vec<_> = more.iter().map(|disk| disk.volume.layers.clone()).collect();
    assert_eq!(layers().await, expected);
    assert!(life.volumes(spec.id).iter().all(|volume| volume.2 == VolumeState::Ready));
}

#[tokio::test]
async fn a_volume_that_another_domain_has_is_not_plugged_in() {
    let host = Host::new();
    let (mut life, first) = running_with_two(&host).await;
    let second = running(instance_id());
    life.want(wish(&second));
    life.settle(second.id).await;
    let stolen = with(&second, vec![second.disks[0].clone(), first.disks[1].clone()]);
    life.want(wish(&stolen));
    for _ in 0..3 {
        life.reconciler.pass(second.id).await;
    }
    assert_eq!(host.volumes(second.id).await.len(), 1);
    assert_eq!(life.volumes(second.id)[1].2, VolumeState::Preparing);
    life.want(wish(&with(&first, vec![first.disks[0].clone()])));
    life.settle(first.id).await;
    life.settle(second.id).await;
    assert_eq!(host.volumes(second.id).await.len(), 2);
}

#[tokio::test]
async fn deletion_takes_the_layers_that_it_names_and_no_others() {
    let host = Host::new();
    let (mut life, spec) = running_with_two(&host).await;
    life.want(deleted(&InstanceSpec { disks: vec![spec.disks[0].clone()], ..spec.clone() }));
    life.settle(spec.id).await;
    assert_eq!(host.storage.layers(), spec.disks[1].volume.layers);
    assert_eq!(life.volumes(spec.id), []);
}

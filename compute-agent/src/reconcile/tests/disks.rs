//! Instances with several disks: plugged in, pulled out, grown, and kept when the instance goes.

use protocol::agent::{
    Disk, EndReason, InstanceSpec, IoLimits, NOT_FROZEN, NotTaken, ObservedState, Step as Told, VolumeState,
};
use protocol::{Generation, InstanceId, LayerId, SizeGib, VolumeId};
use uuid::Uuid;

use super::{Host, Life, NEVER, Outcome};
use crate::host_storage::{BROKEN_CHAIN, DELETED_DISK};
use crate::hypervisor::Hypervisor;
use crate::hypervisor::simulated::Call;
use crate::samples::{booted_again, deleted, disk, instance_id, next, running, stopped, wish};

impl Life {
    fn volumes(&self, id: InstanceId) -> Vec<(VolumeId, i64, VolumeState)> {
        let (report, _) = self.outbox.latest(id).unwrap();
        report.volumes.into_iter().map(|volume| (volume.id, volume.generation.0, volume.state)).collect()
    }

    fn merged(&self, id: InstanceId) -> Vec<LayerId> {
        let (report, _) = self.outbox.latest(id).unwrap();
        report.volumes.into_iter().flat_map(|volume| volume.merged).collect()
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

pub(super) async fn running_with_two(host: &Host) -> (Life, InstanceSpec) {
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
async fn snapshots_are_one_instant_of_all_disks_and_layers_between_are_merged() {
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

    // Two more of the first disk; then the layers between are merged away.
    let mut more = chains.clone();
    more[0].volume.layers.extend([layer(), layer()]);
    life.want(wish(&with(&taken, more.clone())));
    life.settle(spec.id).await;
    assert_eq!(host.hypervisor.snapshots(), 3);
    let between = more[0].volume.layers[1..3].to_vec();
    more[0].volume.merges = between.clone();
    host.hypervisor.fail_next(Call::Merge, 1);
    life.want(wish(&InstanceSpec { generation: Generation(9), ..with(&taken, more.clone()) }));
    life.reconciler.pass(spec.id).await;
    assert_eq!((life.merged(spec.id), life.volumes(spec.id)[0].2), (vec![], VolumeState::Ready));
    life.settle(spec.id).await;
    let expected: Vec<Vec<_>> = more.iter().map(|disk| disk.volume.kept().collect()).collect();
    assert_eq!(layers().await, expected);
    assert_eq!(life.merged(spec.id), between);
    assert!(life.steps(spec.id).contains(&Told::LayersMerging));
    assert!(life.volumes(spec.id).iter().all(|volume| volume.2 == VolumeState::Ready));

    // The next start does not bring them back, and the top is merged by nobody.
    let again = booted_again(&InstanceSpec { generation: Generation(10), ..with(&taken, more.clone()) });
    life.want(wish(&InstanceSpec { generation: Generation(11), ..again }));
    life.settle(spec.id).await;
    assert_eq!(layers().await, expected);
}

/// A chain may have grown too long for any guest to start with.
#[tokio::test]
async fn layers_are_merged_before_a_start() {
    let host = Host::new();
    let (mut life, spec) = running_with_two(&host).await;
    let mut disks = spec.disks.clone();
    disks[0].volume.layers.extend([layer(), layer(), layer()]);
    let taken = with(&spec, disks);
    life.want(wish(&taken));
    life.settle(spec.id).await;
    let off = stopped(&taken, spec.stop);
    life.want(wish(&off));
    life.settle(spec.id).await;
    // A start that fails, and then is told to merge.
    host.hypervisor.fail_next(Call::Create, 1);
    let again = booted_again(&off);
    life.want(wish(&again));
    life.reconciler.pass(spec.id).await;
    let mut disks = again.disks.clone();
    disks[0].volume.merges = disks[0].volume.layers[1..3].to_vec();
    let merges = disks[0].volume.merges.clone();
    host.hypervisor.fail_next(Call::Merge, u32::MAX);
    life.want(wish(&with(&again, disks.clone())));
    life.settle(spec.id).await;
    assert_eq!((life.state(spec.id), life.merged(spec.id)), (ObservedState::Running, merges));
    let steps = life.steps(spec.id);
    assert!(!steps.contains(&Told::LayersMerging) && !steps.contains(&Told::Stopped), "{steps:?}");
    assert_eq!(host.hypervisor.starts(spec.id, again.boot), 1);
    let domain = host.hypervisor.domains().await.unwrap().remove(0);
    assert_eq!(domain.volumes[0].layers, disks[0].volume.kept().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stopped_instance_merges_without_being_started() {
    let host = Host::new();
    let (mut life, spec) = running_with_two(&host).await;
    let off = stopped(&spec, spec.stop);
    let mut disks = off.disks.clone();
    disks[1].volume.layers.extend([layer(), layer()]);
    disks[1].volume.merges = vec![disks[1].volume.layers[1]];
    let merges = disks[1].volume.merges.clone();
    life.want(wish(&with(&off, disks)));
    host.storage.fail_next(1);
    life.until_quiet(spec.id).await;
    assert_eq!(life.merged(spec.id), merges);
    assert_eq!(life.state(spec.id), ObservedState::Stopped { reason: EndReason::Requested });
    assert_eq!(host.hypervisor.starts(spec.id, 1), 1);
    assert!(!host.storage.layers().contains(&merges[0]), "what was never made is not made to be merged");

    // So does one that was never started.
    let mut never = stopped(&running(instance_id()), spec.stop);
    never.disks[0].volume.layers.extend([layer(), layer()]);
    never.disks[0].volume.merges = vec![never.disks[0].volume.layers[1]];
    life.want(wish(&never));
    life.settle(never.id).await;
    assert_eq!(life.merged(never.id), never.disks[0].volume.merges);
    assert_eq!(life.state(never.id), ObservedState::Stopped { reason: EndReason::NeverStarted });
}

#[tokio::test]
async fn a_chain_that_lacks_a_layer_is_a_fault_and_is_left_alone() {
    let host = Host::new();
    let (mut life, spec) = running_with_two(&host).await;
    let chain: Vec<_> = spec.disks[1].volume.layers.iter().copied().chain([layer(), layer()]).collect();
    let of = |layers: Vec<LayerId>, generation: i64| {
        let mut disks = spec.disks.clone();
        disks[1].volume.layers = layers;
        disks[0].volume.layers.extend((generation > 9).then(layer));
        wish(&InstanceSpec { generation: Generation(generation), ..with(&spec, disks) })
    };
    life.want(of(chain.clone(), 8));
    life.settle(spec.id).await;
    let taken = host.hypervisor.snapshots();
    let is_broken = |life: &Life| {
        let (report, _) = life.outbox.latest(spec.id).unwrap();
        report.detail.as_deref() == Some(BROKEN_CHAIN) && life.volumes(spec.id)[1].2 == VolumeState::Preparing
    };
    // One less than there is, another one, and all disks at one instant or none.
    for (layers, generation) in [(chain[..2].to_vec(), 9), (vec![chain[0], chain[2]], 10)] {
        life.want(of(layers, generation));
        life.settle(spec.id).await;
        assert!(is_broken(&life));
        assert_eq!(host.hypervisor.snapshots(), taken);
    }
    life.want(of(chain, 11));
    life.settle(spec.id).await;
    assert_eq!(host.hypervisor.snapshots(), taken + 1);
    assert!(life.volumes(spec.id).iter().all(|volume| volume.2 == VolumeState::Ready));
}

/// The second disk gets a layer, of a guest at rest.
fn frozen_snapshot(spec: &InstanceSpec) -> InstanceSpec {
    let mut disks = spec.disks.clone();
    disks.iter_mut().for_each(|disk| disk.volume.layers.push(layer()));
    InstanceSpec { freeze: true, ..with(spec, disks) }
}

#[tokio::test]
async fn a_guest_that_cannot_be_frozen_gets_no_snapshot_until_it_may_go_without() {
    let host = Host::new();
    let (mut life, spec) = running_with_two(&host).await;
    host.hypervisor.set_guests_freeze(false);
    let wanted = frozen_snapshot(&spec);
    life.want(wish(&wanted));
    for _ in 0..3 {
        assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Failed(_)));
        let (report, _) = life.outbox.latest(spec.id).unwrap();
        assert_eq!((report.state, report.detail.as_deref()), (ObservedState::Running, Some(NOT_FROZEN)));
        assert_eq!(report.not_taken, Some(NotTaken::NotFrozen));
        assert!(life.volumes(spec.id).iter().all(|volume| volume.2 == VolumeState::Preparing));
    }
    assert_eq!(host.hypervisor.snapshots(), 0);
    life.want(wish(&InstanceSpec { freeze: false, ..next(&wanted) }));
    life.settle(spec.id).await;
    assert_eq!(host.hypervisor.snapshots(), 1);
    let (report, _) = life.outbox.latest(spec.id).unwrap();
    assert_eq!((report.detail, report.not_taken), (None, None));
    assert!(life.volumes(spec.id).iter().all(|volume| volume.2 == VolumeState::Ready));
}

/// Whoever dies between freezing and thawing, or refuses to thaw: the next one does it, before all else.
#[tokio::test]
async fn no_guest_stays_frozen() {
    for dies in ["nobody", "the hypervisor", "the hypervisor, then the agent", "the guest's answer"] {
        let host = Host::new();
        let (mut life, spec) = running_with_two(&host).await;
        match dies {
            "nobody" => host.hypervisor.fail_next(Call::Snapshot, 1),
            "the guest's answer" => {
                host.hypervisor.fail_next(Call::Snapshot, 1);
                host.hypervisor.fail_next(Call::Thaw, 2);
            }
            _ => host.hypervisor.break_when_frozen(),
        }
        life.want(wish(&frozen_snapshot(&spec)));
        let outcome = life.reconciler.pass(spec.id).await;
        if dies == "nobody" {
            assert!(matches!(outcome, Outcome::Failed(_)) && !host.hypervisor.is_frozen(spec.id));
        } else {
            assert!(host.hypervisor.is_frozen(spec.id), "{dies}: {outcome:?}");
        }
        if dies == "the guest's answer" {
            let wait = life.reconciler.pass(spec.id).await;
            assert!(matches!(wait, Outcome::Wait(_)), "{wait:?}");
            let (report, _) = life.outbox.latest(spec.id).unwrap();
            assert!(report.detail.unwrap().contains("may be unable to write"));
            assert_eq!(host.hypervisor.snapshots(), 0, "not twice at once");
        }
        host.hypervisor.set_reachable(true);
        if dies.ends_with("agent") {
            drop(life);
            life = host.start_agent(NEVER);
        }
        life.settle(spec.id).await;
        assert!(!host.hypervisor.is_frozen(spec.id), "{dies}");
        assert_eq!(host.hypervisor.snapshots(), 1, "{dies}");
        assert!(!life.boots.get(spec.id).unwrap().freezing, "{dies}");
        assert!(life.volumes(spec.id).iter().all(|volume| volume.2 == VolumeState::Ready), "{dies}");
    }
}

#[tokio::test]
async fn a_guest_is_thawed_before_it_is_asked_to_stop() {
    let host = Host::new();
    let (life, spec) = running_with_two(&host).await;
    host.hypervisor.break_when_frozen();
    let wanted = frozen_snapshot(&spec);
    life.want(wish(&wanted));
    life.reconciler.pass(spec.id).await;
    host.hypervisor.set_reachable(true);
    host.hypervisor.set_guests_obey_power_button(false);
    life.want(wish(&stopped(&wanted, wanted.stop)));
    life.reconciler.pass(spec.id).await;
    assert!(!host.hypervisor.is_frozen(spec.id) && host.hypervisor.presses(spec.id) == 1);
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

#[tokio::test]
async fn a_disk_that_was_deleted_and_is_wanted_again_is_not_made_empty() {
    let host = Host::new();
    let (mut life, spec) = running_with_two(&host).await;
    life.want(deleted(&spec));
    life.settle(spec.id).await;
    assert_eq!(life.state(spec.id), ObservedState::Absent);
    let gone = life.desired.get(spec.id).unwrap().generation();
    assert!(life.desired.forget_deleted(spec.id, gone).unwrap());
    // A control plane with an older database wants it as it was.
    let made = host.storage.layers_made();
    life.want(wish(&spec));
    while !matches!(life.reconciler.pass(spec.id).await, Outcome::Failed(_)) {}
    assert_eq!(life.state(spec.id), ObservedState::Failed);
    assert_eq!(life.outbox.latest(spec.id).unwrap().0.detail.as_deref(), Some(DELETED_DISK));
    assert_eq!(host.storage.layers_made(), made);
    // And then its owner deletes it.
    life.want(deleted(&spec));
    life.settle(spec.id).await;
    assert_eq!(life.state(spec.id), ObservedState::Absent);
}

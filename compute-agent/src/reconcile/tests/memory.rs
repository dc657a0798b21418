//! Memory of guests: kept of one instant or not at all, and gone on from once.

use camino::Utf8PathBuf;
use protocol::agent::{InstanceSpec, MemoryFile, NotTaken, ObservedState, SaveMemory, VolumeState};
use protocol::{LayerId, MemoryMib};
use uuid::Uuid;

use super::disks::running_with_two;
use super::{Host, Life, NEVER, Outcome};
use crate::host_storage::HostStorage;
use crate::hypervisor::simulated::Call;
use crate::hypervisor::{Beside, DomainState, Hypervisor, NewLayer};
use crate::samples::{GRACEFUL, booted_again, instance_id, next, running, stopped, wish};

fn id() -> LayerId {
    LayerId::from_uuid(Uuid::now_v7())
}

fn file() -> MemoryFile {
    MemoryFile { id: id(), pool: None }
}

/// All disks get a layer, and the memory is kept.
fn snapshot(spec: &InstanceSpec, file: &MemoryFile) -> InstanceSpec {
    let mut spec = next(spec);
    spec.disks.iter_mut().for_each(|disk| disk.volume.layers.push(id()));
    let above = spec.disks.iter().filter_map(|disk| disk.volume.top()).collect();
    InstanceSpec { save_memory: Some(SaveMemory { file: file.clone(), above }), ..spec }
}

fn saved(life: &Life, spec: &InstanceSpec) -> (Option<LayerId>, Option<NotTaken>, bool) {
    let (report, _) = life.outbox.latest(spec.id).unwrap();
    let ready = report.volumes.iter().all(|volume| volume.state == VolumeState::Ready);
    (report.saved_memory, report.not_taken, ready)
}

#[tokio::test]
async fn it_is_kept_with_the_layers_or_they_are_not_added() {
    let host = Host::new();
    let (mut life, spec) = running_with_two(&host).await;
    let memory = file();
    let wanted = snapshot(&spec, &memory);
    host.storage.set_full(true);
    life.want(wish(&wanted));
    assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Failed(_)));
    assert_eq!(saved(&life, &spec), (None, Some(NotTaken::NoRoom), false));
    host.storage.set_full(false);
    host.hypervisor.fail_next(Call::Snapshot, 1);
    assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Failed(_)));
    assert_eq!(saved(&life, &spec), (None, Some(NotTaken::MemoryNotSaved), false));
    assert_eq!((host.hypervisor.snapshots(), host.storage.memories()), (0, vec![]));
    life.settle(spec.id).await;
    assert_eq!(saved(&life, &spec), (Some(memory.id), None, true));
    assert_eq!((host.hypervisor.snapshots(), host.storage.memories()), (1, vec![memory.id]));
    // It is of that instant, whatever comes later.
    let mut later = next(&wanted);
    later.disks[1].volume.layers.push(id());
    life.want(wish(&later));
    life.settle(spec.id).await;
    assert_eq!(saved(&life, &spec), (Some(memory.id), None, true));
}

#[tokio::test]
async fn a_disk_that_lags_behind_gets_its_other_layers_first() {
    let host = Host::new();
    let (mut life, spec) = running_with_two(&host).await;
    let (memory, mut lagging) = (file(), next(&spec));
    lagging.disks[0].volume.layers.push(id());
    life.want(wish(&snapshot(&lagging, &memory)));
    life.settle(spec.id).await;
    assert_eq!(saved(&life, &spec), (Some(memory.id), None, true));
    assert_eq!(host.hypervisor.snapshots(), 2);
}

#[tokio::test]
async fn that_of_another_instant_than_the_layers_is_never_kept() {
    let host = Host::new();
    let (mut life, spec) = running_with_two(&host).await;
    let wanted = snapshot(&spec, &file());
    // The agent died when the guest had its layers, before the memory had its name.
    let mut layers = Vec::new();
    for disk in &wanted.disks {
        let [below, layer] = disk.volume.layers[..] else { panic!("two layers") };
        host.storage.add_layer(&disk.volume, layer, below).await.unwrap();
        layers.push(NewLayer {
            volume: disk.volume.id,
            shared: false,
            layer: host.storage.layer(None, layer).await.unwrap(),
        });
    }
    host.hypervisor.snapshot(spec.id, &layers, &Beside::Nothing).await.unwrap();
    life.want(wish(&wanted));
    life.settle(spec.id).await;
    assert_eq!(saved(&life, &spec), (None, None, true));
    let mut later = next(&wanted);
    later.disks.iter_mut().for_each(|disk| disk.volume.layers.push(id()));
    life.want(wish(&later));
    life.settle(spec.id).await;
    assert_eq!((saved(&life, &spec), host.storage.memories()), ((None, None, true), vec![]));
}

/// A stopped instance that shall go on from a memory which is there, and where that is.
async fn to_resume(host: &Host) -> (Life, InstanceSpec, Utf8PathBuf) {
    let mut life = host.start_agent(NEVER);
    let spec = running(instance_id());
    life.want(wish(&spec));
    life.settle(spec.id).await;
    let off = stopped(&spec, GRACEFUL);
    life.want(wish(&off));
    life.settle(spec.id).await;
    let memory = file();
    let new = host.storage.new_memory(None, MemoryMib(64)).await.unwrap();
    new.publish(memory.id).await.unwrap();
    let path = host.storage.memory(&memory).await.unwrap().unwrap();
    (life, InstanceSpec { load_memory: Some(memory), ..booted_again(&off) }, path)
}

#[tokio::test]
async fn a_guest_goes_on_from_it_once_wherever_the_agent_dies() {
    let mut kills = 0;
    loop {
        let mut host = Host::new();
        let (life, spec, path) = to_resume(&host).await;
        drop(life);
        let mut life = host.start_agent(kills);
        life.want(wish(&spec));
        let finished = life.until_quiet(spec.id).await == Outcome::Settled;
        drop(life);
        let mut life = host.start_agent(NEVER);
        life.settle(spec.id).await;
        let end = host.end(&life, spec.id).await;
        assert_eq!(end.domain, Some((spec.boot, DomainState::Running)), "killed at {kills}");
        let once = [(spec.id, spec.boot, path)];
        assert_eq!(host.hypervisor.restored(), once, "killed at {kills}");
        // Its disks have gone on since: the machine goes down with it, and it boots.
        drop(life);
        host.reboot_machine();
        let mut life = host.start_agent(NEVER);
        life.settle(spec.id).await;
        let end = host.end(&life, spec.id).await;
        assert_eq!(end.domain, Some((spec.boot, DomainState::Running)), "killed at {kills}");
        assert_eq!(host.hypervisor.restored(), once, "killed at {kills}");
        if finished {
            break;
        }
        kills += 1;
    }
    assert!(kills > 10, "killed at {kills} places");
}

#[tokio::test]
async fn what_cannot_be_loaded_is_told_and_boots_when_it_is_started_anew() {
    for missing in [true, false] {
        let host = Host::new();
        let (mut life, mut spec, _) = to_resume(&host).await;
        if missing {
            spec.load_memory = Some(file());
        }
        host.hypervisor.fail_next(Call::Restore, 3);
        life.want(wish(&spec));
        for _ in 0..3 {
            assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Failed(_)));
        }
        let (report, _) = life.outbox.latest(spec.id).unwrap();
        assert_eq!(report.state, ObservedState::Failed);
        assert!(report.detail.unwrap().contains("`memory` set to false"));
        assert_eq!(host.hypervisor.starts(spec.id, spec.boot), 0);
        let off = stopped(&InstanceSpec { load_memory: None, ..spec.clone() }, GRACEFUL);
        life.want(wish(&off));
        life.settle(spec.id).await;
        assert!(matches!(life.state(spec.id), ObservedState::Stopped { .. }));
        life.want(wish(&booted_again(&off)));
        life.settle(spec.id).await;
        assert_eq!((life.state(spec.id), host.hypervisor.restored()), (ObservedState::Running, vec![]));
    }
}

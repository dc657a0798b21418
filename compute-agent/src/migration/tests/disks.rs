//! A guest that goes with its disks: what is waited for, and for how long.

use std::io::{Read, Write};

use protocol::SizeGib;
use protocol::agent::IoLimits;

use super::*;
use crate::hypervisor::DomainDisk;
use crate::hypervisor::simulated::Call;

const SOON: Duration = Duration::from_millis(500);

fn with_disks(id: InstanceId, disks: usize) -> (DomainSpec, Vec<VolumeId>) {
    let volumes: Vec<_> = (0..disks).map(|_| VolumeId::from(Uuid::now_v7())).collect();
    let disk = |volume: &VolumeId| DomainDisk {
        volume: *volume,
        size_gib: SizeGib(1),
        limits: IoLimits::default(),
        shared: false,
        base: None,
        layers: vec![format!("/nonexistent/{volume}").into()],
    };
    (DomainSpec { disks: volumes.iter().map(disk).collect(), ..domain(id) }, volumes)
}

/// A guest with two disks that runs at the one side and is expected at the other.
struct Guest {
    id: InstanceId,
    migration: MigrationId,
    volumes: Vec<VolumeId>,
    to: (HostId, SocketAddr),
}

impl Guest {
    async fn expected(source: &Side, destination: &Side) -> Self {
        let (id, migration) = (instance_id(), MigrationId::from(Uuid::now_v7()));
        let (spec, volumes) = with_disks(id, 2);
        source.hypervisor.create(&spec).await.unwrap();
        destination.hypervisor.create_waiting(&spec).await.unwrap();
        destination.relays.expect(id, migration, source.host, volumes.clone()).await.unwrap();
        let address = destination.relays.expected_at(id, migration).unwrap();
        Self { id, migration, volumes, to: (destination.host, address) }
    }

    async fn mirror(&self, source: &Side) {
        let ways = source.relays.reach_disks(self.id, self.migration, self.to, &self.volumes).await.unwrap();
        source.hypervisor.mirror(self.id, ways).await.unwrap();
    }
}

#[tokio::test]
async fn none_of_several_disks_is_turned_away_while_another_says_what_it_is() {
    for _ in 0..8 {
        let (source, destination) = (side(), side());
        let (id, migration) = (instance_id(), MigrationId::from(Uuid::now_v7()));
        let (spec, volumes) = with_disks(id, 16);
        destination.hypervisor.create_waiting(&spec).await.unwrap();
        destination.relays.expect(id, migration, source.host, volumes.clone()).await.unwrap();
        let address = destination.relays.expected_at(id, migration).unwrap();
        let ways = source.relays.reach_disks(id, migration, (destination.host, address), &volumes).await;
        assert_eq!(ways.unwrap().len(), 16);
    }
}

#[tokio::test]
async fn a_guest_is_expected_for_as_long_as_its_disks_take() {
    let (mut source, mut destination) = (side(), side());
    (source.relays.limits.answers, destination.relays.limits.begins) = (SOON, 4 * SOON);
    let guest = Guest::expected(&source, &destination).await;
    guest.mirror(&source).await;
    until(&source.hypervisor, guest.id, Transfer::Mirrored).await;
    tokio::time::sleep(5 * SOON).await;
    let way = source.relays.reach_after_disks(guest.id, guest.migration, guest.to).await.unwrap();
    // One that is asked nothing need not answer.
    tokio::time::sleep(3 * SOON).await;
    source.hypervisor.send(guest.id, way, 300).await.unwrap();
    until(&source.hypervisor, guest.id, Transfer::Switching).await;
    source.hypervisor.switch_over(guest.id).await.unwrap();
    until(&source.hypervisor, guest.id, Transfer::Sent).await;
    until(&destination.hypervisor, guest.id, Transfer::Idle).await;
}

/// Their ways end with what is sent of them, which may be a moment before its own is there.
#[tokio::test]
async fn a_guest_that_comes_just_after_its_disks_is_taken_in() {
    let (source, mut destination) = (side(), side());
    destination.relays.limits.late = HANDSHAKE;
    let guest = Guest::expected(&source, &destination).await;
    let ways = source.relays.reach_disks(guest.id, guest.migration, guest.to, &guest.volumes).await.unwrap();
    // All that there is of the disks, and their last writes.
    let written = tokio::task::spawn_blocking(move || {
        for (_, mut way) in ways {
            for _ in 0..2 {
                way.write_all(&[7]).unwrap();
                way.read_exact(&mut [0]).unwrap();
            }
        }
    });
    written.await.unwrap();
    tokio::time::sleep(SOON).await;
    let way = source.relays.reach_after_disks(guest.id, guest.migration, guest.to).await.unwrap();
    source.hypervisor.send(guest.id, way, 300).await.unwrap();
    until(&source.hypervisor, guest.id, Transfer::Sent).await;
    until(&destination.hypervisor, guest.id, Transfer::Idle).await;
}

#[tokio::test]
async fn a_guest_is_expected_no_longer_when_its_disks_do_not_come_any_more() {
    let (source, mut destination) = (side(), side());
    destination.relays.limits.late = SOON;
    let guest = Guest::expected(&source, &destination).await;
    guest.mirror(&source).await;
    until(&source.hypervisor, guest.id, Transfer::Mirrored).await;
    assert_eq!(destination.relays.expected_at(guest.id, guest.migration), Some(guest.to.1));
    // Its agent dies.
    source.relays.forget(guest.id);
    let given_up = async {
        while destination.relays.expected_at(guest.id, guest.migration).is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(HANDSHAKE, given_up).await.expect("it is expected all the same");
}

/// Its agent and its kernel live, so that nothing else ends that.
#[tokio::test]
async fn a_host_that_does_nothing_with_a_disk_any_more_holds_a_guest_up_for_a_while_only() {
    let (mut source, destination) = (side(), side());
    source.relays.limits.answers = SOON;
    destination.hypervisor.fail_next(Call::HoldDisk, u32::MAX);
    let guest = Guest::expected(&source, &destination).await;
    let ways = source.relays.reach_disks(guest.id, guest.migration, guest.to, &guest.volumes).await.unwrap();
    let mut way = &ways[0].1;
    way.write_all(&[7]).unwrap();
    way.set_nonblocking(true).unwrap();
    // As long as the guest waits for nothing it may take its time.
    tokio::time::sleep(3 * SOON).await;
    assert_eq!(way.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let _way = source.relays.reach_after_disks(guest.id, guest.migration, guest.to).await.unwrap();
    let ended = async {
        while way.read(&mut [0]).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(HANDSHAKE, ended).await.expect("the guest waits for ever");
}

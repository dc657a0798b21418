//! Guests whose disks stop them, and what gets them going again.

use std::time::Duration;

use protocol::agent::{EndReason, InstanceSpec, ObservedState, PauseReason};

use super::{Host, Life, NEVER, Outcome};
use crate::clock::Clock;
use crate::hypervisor::{DomainState, Hypervisor};
use crate::samples::{
    GRACEFUL, booted_again, disk, instance_id, next, paused, resumed, running, stopped, wish,
};

async fn running_instance(host: &Host) -> (Life, InstanceSpec) {
    let mut life = host.start_agent(NEVER);
    let spec = running(instance_id());
    life.want(wish(&spec));
    life.settle(spec.id).await;
    (life, spec)
}

impl Host {
    async fn stands_still(&self) -> bool {
        matches!(self.hypervisor.domains().await.unwrap()[0].state, DomainState::Paused(_))
    }
}

#[tokio::test]
async fn a_guest_without_room_waits_for_it_and_goes_on() {
    let host = Host::new();
    let (mut life, spec) = running_instance(&host).await;
    host.storage.set_full(true);
    host.hypervisor.pause(spec.id, PauseReason::PoolFull);
    for _ in 0..20 {
        let Outcome::Wait(until) = life.reconciler.pass(spec.id).await else { panic!("it does not wait") };
        host.clock.advance_to(until);
    }
    assert_eq!(host.hypervisor.resumes(), 0, "nothing is tried without room");
    let (report, _) = life.outbox.latest(spec.id).unwrap();
    assert_eq!((report.state, report.paused), (ObservedState::Running, Some(PauseReason::PoolFull)));
    assert!(report.detail.unwrap().contains("no disk space left"));

    host.storage.set_full(false);
    life.settle(spec.id).await;
    assert!(!host.stands_still().await);
    let (report, _) = life.outbox.latest(spec.id).unwrap();
    assert_eq!((report.paused, report.detail), (None, None));
}

#[tokio::test]
async fn a_disk_that_fails_is_tried_ever_more_slowly_and_at_once_after_a_calm() {
    let host = Host::new();
    let (mut life, spec) = running_instance(&host).await;
    let attempt = async |life: &mut Life| {
        let began = host.clock.now();
        host.hypervisor.pause(spec.id, PauseReason::IoError);
        while host.stands_still().await {
            if let Outcome::Wait(until) = life.reconciler.pass(spec.id).await {
                host.clock.advance_to(until);
            }
        }
        (host.clock.now() - began).whole_seconds()
    };
    let mut pauses = Vec::new();
    for _ in 0..5 {
        pauses.push(attempt(&mut life).await);
    }
    assert_eq!(pauses, [2, 2, 4, 8, 16]);
    host.clock.advance_to(host.clock.now() + Duration::from_secs(300));
    life.settle(spec.id).await;
    assert_eq!(attempt(&mut life).await, 2);
}

/// The hypervisor sticks to what went wrong first.
#[tokio::test]
async fn what_is_lacking_is_told_by_the_room_that_there_is() {
    let host = Host::new();
    let (mut life, spec) = running_instance(&host).await;
    let mut told = async |is_full: bool, said| {
        host.storage.set_full(is_full);
        host.hypervisor.pause(spec.id, said);
        life.reconciler.pass(spec.id).await;
        let paused = life.outbox.latest(spec.id).unwrap().0.paused;
        host.storage.set_full(false);
        life.settle(spec.id).await;
        paused
    };
    assert_eq!(told(true, PauseReason::IoError).await, Some(PauseReason::PoolFull));
    assert_eq!(told(false, PauseReason::PoolFull).await, Some(PauseReason::IoError), "there was room before");
}

#[tokio::test]
async fn one_that_somebody_suspended_is_left_alone_and_gets_no_disks() {
    let host = Host::new();
    let (mut life, spec) = running_instance(&host).await;
    host.hypervisor.pause(spec.id, PauseReason::Suspended);
    let mut more = next(&spec);
    more.disks.push(disk(uuid::Uuid::now_v7()));
    life.want(wish(&more));
    life.settle(spec.id).await;
    assert!(host.stands_still().await);
    assert_eq!(host.hypervisor.domains().await.unwrap()[0].volumes.len(), 1);
    assert_eq!(life.outbox.latest(spec.id).unwrap().0.paused, Some(PauseReason::Suspended));
}

#[tokio::test]
async fn one_without_room_hears_of_the_power_button_when_there_is_some() {
    for comes_in_time in [true, false] {
        let host = Host::new();
        let (mut life, spec) = running_instance(&host).await;
        host.storage.set_full(true);
        host.hypervisor.pause(spec.id, PauseReason::PoolFull);
        life.want(wish(&stopped(&spec, GRACEFUL)));
        life.reconciler.pass(spec.id).await;
        assert!(host.stands_still().await);
        host.storage.set_full(!comes_in_time);
        life.settle(spec.id).await;
        assert_eq!(life.state(spec.id), ObservedState::Stopped { reason: EndReason::Requested });
        assert_eq!(host.hypervisor.resumes(), u32::from(comes_in_time));
    }
}

#[tokio::test]
async fn one_that_its_owner_paused_stays_so_whoever_comes_and_goes_on_when_asked_to() {
    let mut host = Host::new();
    let (mut life, spec) = running_instance(&host).await;
    life.want(wish(&paused(&spec)));
    life.settle(spec.id).await;
    assert!(host.stands_still().await);
    let (report, _) = life.outbox.latest(spec.id).unwrap();
    assert_eq!((report.state, report.paused), (ObservedState::Running, Some(PauseReason::Requested)));
    assert_eq!(report.detail, None);
    drop(life);

    // Neither another agent nor somebody with virsh changes that.
    let mut life = host.start_agent(NEVER);
    life.settle(spec.id).await;
    host.hypervisor.resume(spec.id).await.unwrap();
    life.settle(spec.id).await;
    assert!(host.stands_still().await);

    let on = resumed(&paused(&spec));
    life.want(wish(&on));
    life.settle(spec.id).await;
    assert!(!host.stands_still().await);
    assert_eq!(host.hypervisor.starts(spec.id, spec.boot), 1, "it is the same boot");
    assert_eq!(life.outbox.latest(spec.id).unwrap().0.paused, None);
    // From now on whoever suspends it does that for a reason of their own.
    host.hypervisor.pause(spec.id, PauseReason::Suspended);
    life.settle(spec.id).await;
    assert!(host.stands_still().await);
    host.hypervisor.resume(spec.id).await.unwrap();

    // What was in memory goes with the machine, and nothing starts it again.
    life.want(wish(&paused(&on)));
    life.settle(spec.id).await;
    drop(life);
    host.reboot_machine();
    let mut life = host.start_agent(NEVER);
    life.settle(spec.id).await;
    assert_eq!(life.state(spec.id), ObservedState::Stopped { reason: EndReason::Unobserved });
    life.want(wish(&booted_again(&paused(&on))));
    life.settle(spec.id).await;
    assert_eq!(life.state(spec.id), ObservedState::Running);
}

#[tokio::test]
async fn one_without_room_that_is_paused_waits_for_its_owner_and_not_for_room() {
    let host = Host::new();
    let (mut life, spec) = running_instance(&host).await;
    host.storage.set_full(true);
    host.hypervisor.pause(spec.id, PauseReason::PoolFull);
    life.want(wish(&paused(&spec)));
    life.settle(spec.id).await;
    assert_eq!(life.outbox.latest(spec.id).unwrap().0.paused, Some(PauseReason::Requested));
    host.storage.set_full(false);
    life.settle(spec.id).await;
    assert!(host.stands_still().await);
    life.want(wish(&resumed(&paused(&spec))));
    life.settle(spec.id).await;
    assert!(!host.stands_still().await);
}

//! What happens to instances that nobody asked for.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use protocol::agent::{EndReason, HypervisorHealth, InstanceSpec, ObservedState, Power, StopMode};

use super::{Host, Life, NEVER, Outcome};
use crate::clock::Clock;
use crate::hypervisor::Hypervisor;
use crate::hypervisor::simulated::Call;
use crate::reconcile::boots::Phase;
use crate::samples::{GRACEFUL, booted_again, deleted, instance_id, next, running, stopped, wish};

/// From a boot written down as starting: the seed takes three checkpoints, the domain is made before the fifth.
const MADE_UNWRITTEN: u64 = 4;

async fn running_instance(life: &mut Life) -> InstanceSpec {
    let spec = running(instance_id());
    life.want(wish(&spec));
    life.settle(spec.id).await;
    assert_eq!(life.state(spec.id), ObservedState::Running);
    spec
}

#[tokio::test]
async fn a_boot_that_ended_is_not_started_again_and_says_why() {
    let host = Host::new();
    let mut life = host.start_agent(NEVER);
    for (end, reason) in [
        (EndReason::GuestShutdown, EndReason::GuestShutdown),
        (EndReason::Crashed, EndReason::Crashed),
        (EndReason::Unobserved, EndReason::Unobserved),
    ] {
        let spec = running_instance(&mut life).await;
        assert!(match end {
            EndReason::GuestShutdown => host.hypervisor.guest_shutdown(spec.id),
            EndReason::Crashed => host.hypervisor.crash(spec.id),
            _ => host.hypervisor.vanish(spec.id),
        });
        life.settle(spec.id).await;
        assert_eq!(life.state(spec.id), ObservedState::Stopped { reason });
        // Another generation of the same boot, and another agent, change nothing.
        life.want(wish(&next(&spec)));
        life.settle(spec.id).await;
        host.start_agent(NEVER).settle(spec.id).await;
        assert_eq!(host.hypervisor.starts(spec.id, 1), 1);
        life.want(wish(&booted_again(&next(&spec))));
        life.settle(spec.id).await;
        assert_eq!(life.state(spec.id), ObservedState::Running);
    }
}

#[tokio::test]
async fn a_start_that_nobody_wrote_down_counts_when_its_end_was_heard() {
    let host = Host::new();
    let spec = running(instance_id());
    // The agent dies when the domain has been made and that is not written down.
    host.start_agent(NEVER).want(wish(&spec));
    while host.hypervisor.starts(spec.id, 1) == 0 {
        host.start_agent(MADE_UNWRITTEN).until_quiet(spec.id).await;
    }
    let mut life = host.start_agent(NEVER);
    assert_eq!(life.boots.get(spec.id).unwrap().phase, Phase::Starting);
    host.hypervisor.guest_shutdown(spec.id);
    life.settle(spec.id).await;
    assert_eq!(life.state(spec.id), ObservedState::Stopped { reason: EndReason::GuestShutdown });
    assert_eq!(host.hypervisor.starts(spec.id, 1), 1);
}

#[tokio::test]
async fn a_reboot_of_the_machine_starts_what_ran_and_leaves_what_had_ended() {
    let mut host = Host::new();
    let mut life = host.start_agent(NEVER);
    let ran = running_instance(&mut life).await;
    let ended = running_instance(&mut life).await;
    host.hypervisor.guest_shutdown(ended.id);
    life.settle(ended.id).await;
    drop(life);

    host.reboot_machine();
    let mut life = host.start_agent(NEVER);
    life.settle(ran.id).await;
    life.settle(ended.id).await;
    assert_eq!(host.hypervisor.starts(ran.id, 1), 2);
    assert_eq!(host.hypervisor.starts(ended.id, 1), 1);
    assert_eq!(life.state(ended.id), ObservedState::Stopped { reason: EndReason::GuestShutdown });
}

#[tokio::test]
async fn a_later_stop_may_shorten_the_wait_and_force_ends_it() {
    let host = Host::new();
    let mut life = host.start_agent(NEVER);
    host.hypervisor.set_guests_obey_power_button(false);
    let spec = running_instance(&mut life).await;
    let begun = host.clock.now();
    let patient = stopped(&spec, StopMode::Graceful { timeout_seconds: 600 });
    life.want(wish(&patient));
    assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    let hurried = stopped(&patient, StopMode::Graceful { timeout_seconds: 20 });
    life.want(wish(&hurried));
    assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    let deadline = life.boots.get(spec.id).unwrap().stop_deadline.unwrap();
    assert_eq!(deadline, begun + Duration::from_secs(20));
    life.want(wish(&stopped(&hurried, StopMode::Force)));
    assert_eq!(life.reconciler.pass(spec.id).await, Outcome::Settled);
    assert_eq!(host.clock.now(), begun, "nothing was waited for");
}

#[tokio::test]
async fn an_unreachable_hypervisor_proves_nothing() {
    let host = Host::new();
    let mut life = host.start_agent(NEVER);
    let spec = running_instance(&mut life).await;
    host.hypervisor.set_reachable(false);
    life.want(wish(&stopped(&spec, GRACEFUL)));
    assert_eq!(life.reconciler.pass(spec.id).await, Outcome::Blind);
    assert_eq!(life.state(spec.id), ObservedState::Running, "the last word stands");
    host.hypervisor.set_reachable(true);
    life.settle(spec.id).await;
    assert_eq!(life.state(spec.id), ObservedState::Stopped { reason: EndReason::Requested });
}

/// What cannot be read is neither gone nor without disks.
#[tokio::test]
async fn a_domain_that_cannot_be_read_is_left_alone() {
    let host = Host::new();
    let mut life = host.start_agent(NEVER);
    let (spec, other) = (running_instance(&mut life).await, running(instance_id()));
    let said = host.hypervisor.make_unreadable(spec.id).unwrap();
    let (layers, told) = (host.storage.layers(), life.outbox.latest(spec.id).unwrap().0);
    let without_disks = InstanceSpec { disks: Vec::new(), ..next(&spec) };
    let off = stopped(&without_disks, StopMode::Force);
    for wish in [wish(&without_disks), wish(&off), deleted(&off)] {
        life.want(wish);
        for _ in 0..3 {
            assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Failed(_)));
        }
        assert_eq!(life.outbox.latest(spec.id).unwrap().0, told, "the last word stands");
    }
    assert_eq!((host.storage.layers(), host.hypervisor.domains().await.unwrap().len()), (layers, 1));
    let HypervisorHealth::Degraded { reason } = life.reconciler.view.health() else {
        panic!("it is not said")
    };
    assert!(reason.contains(&spec.id.to_string()), "{reason}");
    // The others go on.
    life.want(wish(&other));
    life.settle(other.id).await;
    assert_eq!(life.state(other.id), ObservedState::Running);

    host.hypervisor.make_readable(said);
    life.settle(spec.id).await;
    assert_eq!(life.state(spec.id), ObservedState::Absent);
    assert_eq!(life.reconciler.view.health(), HypervisorHealth::Ok);
}

#[tokio::test]
async fn a_failure_is_told_without_secrets_and_gone_when_it_is_over() {
    let host = Host::new();
    let mut life = host.start_agent(NEVER);
    let spec = running(instance_id());
    life.want(wish(&spec));
    host.hypervisor.fail_next(Call::Create, 1);
    host.storage.fail_next(1);
    for detail in ["The host's storage failed.", "The host could not start the instance."] {
        assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Failed(_)));
        let report = life.outbox.latest(spec.id).unwrap().0;
        assert_eq!((report.state, report.detail.as_deref()), (ObservedState::Failed, Some(detail)));
    }
    life.settle(spec.id).await;
    let report = life.outbox.latest(spec.id).unwrap().0;
    assert_eq!((report.state, report.detail), (ObservedState::Running, None));
}

#[tokio::test]
async fn an_agent_that_may_not_act_does_nothing() {
    let host = Host::new();
    let mut life = host.start_agent(NEVER);
    let spec = running(instance_id());
    life.want(wish(&spec));
    life.reconciler.set_acting(false);
    assert_eq!(life.until_quiet(spec.id).await, Outcome::Paused);
    assert_eq!(host.hypervisor.starts(spec.id, 1), 0);
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Happening {
    WantRunningAgain,
    WantStopped { force: bool },
    Relabel,
    Delete,
    GuestShutsDown,
    QemuCrashes,
    DomainVanishes,
    MachineReboots,
    AgentDies { at: u64 },
    HypervisorRefuses(u32),
    StorageRefuses(u32),
    GuestsObey(bool),
    HypervisorGoesAway,
    HypervisorComesBack,
    OnePass,
    Quiet,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        Just(Happening::WantRunningAgain),
        any::<bool>().prop_map(|force| Happening::WantStopped { force }),
        Just(Happening::Relabel),
        Just(Happening::GuestShutsDown),
        Just(Happening::QemuCrashes),
        Just(Happening::DomainVanishes),
        Just(Happening::MachineReboots),
        (0_u64..12).prop_map(|at| Happening::AgentDies { at }),
        (0_u32..3).prop_map(Happening::HypervisorRefuses),
        (0_u32..3).prop_map(Happening::StorageRefuses),
        any::<bool>().prop_map(Happening::GuestsObey),
        Just(Happening::HypervisorGoesAway),
        Just(Happening::HypervisorComesBack),
        Just(Happening::OnePass),
        Just(Happening::Quiet),
        Just(Happening::Delete),
    ]
}

/// Lives through it all; at the end, what is wanted is what there is.
async fn live(happenings: Vec<Happening>) -> Result<(), TestCaseError> {
    let mut host = Host::new();
    let mut life = host.start_agent(NEVER);
    let mut spec = running(instance_id());
    let id = spec.id;
    let mut is_deleted = false;
    // A domain that ends before anybody wrote down its start may be taken for one that never was.
    let mut starts_allowed = 1;
    life.want(wish(&spec));
    for happening in happenings {
        let is_unwritten = life.boots.get(id).is_some_and(|record| record.phase == Phase::Starting);
        let ends = matches!(
            happening,
            Happening::GuestShutsDown | Happening::QemuCrashes | Happening::DomainVanishes
        );
        starts_allowed += u32::from(is_unwritten && ends);
        match happening {
            Happening::WantRunningAgain => spec = booted_again(&spec),
            Happening::WantStopped { force } => {
                spec = stopped(&spec, if force { StopMode::Force } else { GRACEFUL });
            }
            Happening::Relabel => spec = next(&spec),
            Happening::Delete => is_deleted = true,
            Happening::GuestShutsDown => drop(host.hypervisor.guest_shutdown(id)),
            Happening::QemuCrashes => drop(host.hypervisor.crash(id)),
            Happening::DomainVanishes => drop(host.hypervisor.vanish(id)),
            Happening::MachineReboots => {
                host.reboot_machine();
                starts_allowed += 1;
                life = host.start_agent(NEVER);
            }
            Happening::AgentDies { at } => {
                life = host.start_agent(at);
                life.reconciler.pass(id).await;
                life = host.start_agent(NEVER);
            }
            Happening::HypervisorRefuses(times) => host.hypervisor.fail_next(Call::Create, times),
            Happening::StorageRefuses(times) => host.storage.fail_next(times),
            Happening::GuestsObey(obey) => host.hypervisor.set_guests_obey_power_button(obey),
            Happening::HypervisorGoesAway => host.hypervisor.set_reachable(false),
            Happening::HypervisorComesBack => host.hypervisor.set_reachable(true),
            Happening::OnePass => drop(life.reconciler.pass(id).await),
            Happening::Quiet => {
                host.hypervisor.set_reachable(true);
                life.settle(id).await;
            }
        }
        life.want(if is_deleted { deleted(&spec) } else { wish(&spec) });
    }
    host.hypervisor.set_reachable(true);
    life.settle(id).await;
    let end = host.end(&life, id).await;
    life.settle(id).await;
    prop_assert_eq!(&host.end(&life, id).await, &end, "settled, and a second look changes nothing");

    let domains: HashMap<_, _> =
        host.hypervisor.domains().await.unwrap().into_iter().map(|domain| (domain.id, domain.boot)).collect();
    match (end.state.unwrap(), domains.get(&id)) {
        (ObservedState::Absent, None) => prop_assert!(is_deleted && !end.files.any && end.record.is_none()),
        (ObservedState::Running, Some(boot)) => {
            prop_assert!(!is_deleted && spec.power == Power::Running && *boot == spec.boot);
        }
        (ObservedState::Stopped { reason }, None) => {
            let by_itself =
                matches!(reason, EndReason::GuestShutdown | EndReason::Crashed | EndReason::Unobserved);
            prop_assert!(!is_deleted && (spec.power == Power::Stopped || by_itself), "{:?}", reason);
        }
        (state, domain) => prop_assert!(false, "{:?} with domain {:?}", state, domain),
    }
    for boot in 1..=spec.boot {
        prop_assert!(host.hypervisor.starts(id, boot) <= starts_allowed, "boot {} ran twice", boot);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_host_comes_to_what_is_wanted(happenings in prop::collection::vec(happening(), 0..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live(happenings))?;
    }
}

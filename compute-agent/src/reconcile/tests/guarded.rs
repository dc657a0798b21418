//! Instances that others take over when this host dies.

use protocol::agent::{EndReason, InstanceSpec, OnHostFailure};

use super::*;
use crate::guard::clock::BootClock;
use crate::guard::tests::FakeGuard;
use crate::samples::{GRACEFUL, booted_again, deleted, instance_id, next, running, stopped, wish};

/// A host with a guard and an agent.
struct Guarded {
    host: Host,
    guard: FakeGuard,
    life: Life,
}

pub(super) fn restarted_elsewhere() -> InstanceSpec {
    let mut spec = running(instance_id());
    spec.disks[0].volume.pool = Some("fast".parse().unwrap());
    spec.on_host_failure = OnHostFailure::Restart;
    spec
}

impl Guarded {
    fn new(kill_at: u64) -> Self {
        let host = Host::new();
        let guard = FakeGuard::new(&host.folder("."), host.machine_boot);
        let life = host.start_agent(kill_at);
        life.reconciler.confirmed();
        Self { host, guard, life }
    }

    fn heard(&self) {
        self.life.reconciler.parts.guards.heard(BootClock::now(self.host.clock.as_ref()));
    }

    fn pass_time(&self, seconds: u64) {
        self.host.clock.advance(std::time::Duration::from_secs(seconds));
    }

    /// The guard works, and has for long.
    fn hold(&mut self) {
        for _ in 0..5 {
            self.guard.renew(BootClock::now(self.host.clock.as_ref()));
            self.pass_time(5);
        }
        self.look();
        self.heard();
    }

    fn look(&mut self) {
        let now = BootClock::now(self.host.clock.as_ref());
        self.guard.renew(now);
        self.guard.look(now);
    }

    /// Passes, with the guard at work and without time going on.
    async fn passes(&mut self, id: InstanceId) -> Outcome {
        let mut outcome = Outcome::Unknown;
        for _ in 0..20 {
            while let Ok(event) = self.life.events.try_recv() {
                if let Event::Ended { id, why } = event {
                    self.life.reconciler.ended(id, why);
                }
            }
            outcome = self.life.reconciler.pass(id).await;
            if matches!(outcome, Outcome::Settled | Outcome::Interrupted | Outcome::Unknown) {
                break;
            }
            self.look();
        }
        outcome
    }

    fn hold_unheard(&mut self) {
        for _ in 0..5 {
            self.look();
            self.pass_time(5);
        }
        self.look();
    }

    async fn domain_disks(&self) -> usize {
        self.host.hypervisor.domains().await.unwrap()[0].volumes.len()
    }

    async fn domains(&self) -> usize {
        self.host.hypervisor.domains().await.unwrap().len()
    }

    fn detail(&self, id: InstanceId) -> String {
        self.life.outbox.latest(id).unwrap().0.detail.unwrap_or_default()
    }
}

#[tokio::test]
async fn it_starts_under_the_guard_alone_and_is_guarded_until_it_is_gone() {
    let mut it = Guarded::new(NEVER);
    let spec = restarted_elsewhere();
    it.life.want(wish(&spec));
    it.heard();
    assert!(matches!(it.life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    assert!(it.detail(spec.id).contains("guard"), "{}", it.detail(spec.id));
    assert_eq!((it.domains().await, it.host.storage.layers().len()), (0, 0));

    // The guard has just gained the lease: what is wanted was heard before that.
    it.look();
    assert!(matches!(it.life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    assert!(it.detail(spec.id).contains("once more"), "{}", it.detail(spec.id));
    it.heard();
    assert!(matches!(it.passes(spec.id).await, Outcome::Wait(_)));
    assert_eq!(it.domains().await, 0);

    it.hold();
    // The lease is kept at another path.
    let at = it.guard.move_pool("/srv/other");
    assert!(matches!(it.life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    assert!(it.detail(spec.id).contains("lease"), "{}", it.detail(spec.id));
    it.guard.move_pool(&at);
    assert_eq!(it.passes(spec.id).await, Outcome::Settled);
    assert_eq!(it.domains().await, 1);
    let entry = it.guard.entry(spec.id).unwrap();
    assert_eq!((entry.boot, entry.pools.len()), (spec.boot, 1));

    // The guard is away: what runs goes on, and is guarded as before.
    it.pass_time(120);
    assert_eq!(it.life.reconciler.pass(spec.id).await, Outcome::Settled);
    assert_eq!(it.guard.entry(spec.id), Some(entry));
    let stop = stopped(&spec, GRACEFUL);
    it.life.want(wish(&stop));
    it.life.settle(spec.id).await;
    assert_eq!((it.domains().await, it.guard.entry(spec.id)), (0, None));
    // And nothing starts.
    it.life.want(wish(&booted_again(&stop)));
    assert!(matches!(it.life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    it.life.want(deleted(&booted_again(&stop)));
    it.life.settle(spec.id).await;
    assert_eq!(it.life.state(spec.id), ObservedState::Absent);
}

#[tokio::test]
async fn what_the_guard_kills_is_fenced_also_when_no_agent_saw_it() {
    for agent_lives in [true, false] {
        let mut it = Guarded::new(NEVER);
        let spec = restarted_elsewhere();
        it.hold();
        it.life.want(wish(&spec));
        assert_eq!(it.passes(spec.id).await, Outcome::Settled);
        if !agent_lives {
            it.life = it.host.start_agent(NEVER);
            it.life.reconciler.confirmed();
        }
        it.guard.fence(spec.id, spec.boot);
        it.host.hypervisor.destroy(spec.id).await.unwrap();
        if !agent_lives {
            it.life = it.host.start_agent(NEVER);
            it.life.reconciler.confirmed();
        }
        it.hold();
        assert_eq!(it.passes(spec.id).await, Outcome::Settled);
        assert_eq!(it.life.state(spec.id), ObservedState::Stopped { reason: EndReason::Fenced });
        assert_eq!((it.guard.entry(spec.id), it.guard.has_record(spec.id)), (None, false));

        // The control plane starts it anew, and an end of that is another one.
        let again = booted_again(&spec);
        it.life.want(wish(&again));
        assert_eq!(it.passes(spec.id).await, Outcome::Settled);
        assert_eq!(it.guard.entry(spec.id).unwrap().boot, again.boot);
        it.host.hypervisor.destroy(spec.id).await.unwrap();
        assert_eq!(it.passes(spec.id).await, Outcome::Settled);
        assert_eq!(it.life.state(spec.id), ObservedState::Stopped { reason: EndReason::Crashed });
    }
}

#[tokio::test]
async fn one_that_runs_is_told_to_be_guarded_only_once_it_is() {
    let mut it = Guarded::new(NEVER);
    let mut spec = restarted_elsewhere();
    spec.on_host_failure = OnHostFailure::Wait;
    it.life.want(wish(&spec));
    it.life.settle(spec.id).await;
    assert_eq!(it.guard.entry(spec.id), None);
    let guarded = InstanceSpec { on_host_failure: OnHostFailure::Restart, ..next(&spec) };
    it.life.want(wish(&guarded));
    assert!(matches!(it.life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    let told = |life: &Life| life.outbox.latest(spec.id).unwrap().0.generation;
    assert_eq!(told(&it.life), spec.generation);
    it.hold();
    assert_eq!(it.passes(spec.id).await, Outcome::Settled);
    assert_eq!(told(&it.life), guarded.generation);
    assert!(it.guard.entry(spec.id).is_some());

    it.life.want(wish(&InstanceSpec { on_host_failure: OnHostFailure::Wait, ..next(&guarded) }));
    assert_eq!(it.passes(spec.id).await, Outcome::Settled);
    assert_eq!(it.guard.entry(spec.id), None);
    assert_eq!(it.domains().await, 1);
}

/// Wherever the agent is cut off, no domain is there that is not written down, and the next agent comes to the same end.
#[tokio::test]
async fn no_guest_runs_that_is_not_written_down_wherever_the_agent_dies() {
    for kill_at in 0.. {
        let mut it = Guarded::new(kill_at);
        let spec = restarted_elsewhere();
        it.hold();
        it.life.want(wish(&spec));
        let outcome = it.passes(spec.id).await;
        let is_written_down = it.guard.entry(spec.id).is_some_and(|entry| entry.boot == spec.boot);
        assert!(it.domains().await == 0 || is_written_down, "killed at {kill_at}");
        it.life = it.host.start_agent(NEVER);
        it.life.reconciler.confirmed();
        it.heard();
        assert_eq!(it.passes(spec.id).await, Outcome::Settled, "killed at {kill_at}");
        assert_eq!(it.domains().await, 1);
        assert_eq!(it.guard.entry(spec.id).unwrap().boot, spec.boot);
        if outcome == Outcome::Settled {
            return;
        }
    }
}

#[tokio::test]
async fn a_lease_that_lapsed_lets_nothing_start_that_was_wanted_before() {
    let mut it = Guarded::new(NEVER);
    let spec = restarted_elsewhere();
    it.hold();
    it.life.want(wish(&spec));
    // The pool is away for long; meanwhile the instance may have become another host's.
    it.pass_time(100);
    it.hold_unheard();
    assert!(matches!(it.passes(spec.id).await, Outcome::Wait(_)));
    assert_eq!(it.domains().await, 0);
    it.heard();
    assert_eq!(it.passes(spec.id).await, Outcome::Settled);
    assert_eq!(it.domains().await, 1);
}

#[tokio::test]
async fn a_disk_in_another_pool_is_plugged_in_once_the_guard_knows_of_it() {
    let mut it = Guarded::new(NEVER);
    let spec = restarted_elsewhere();
    it.hold();
    it.life.want(wish(&spec));
    assert_eq!(it.passes(spec.id).await, Outcome::Settled);
    let mut more = next(&spec);
    more.disks.push(crate::samples::disk(Uuid::now_v7()));
    let slow: protocol::Name = "slow".parse().unwrap();
    more.disks[1].volume.pool = Some(slow.clone());
    it.life.want(wish(&more));
    assert!(matches!(it.passes(spec.id).await, Outcome::Wait(_)));
    assert_eq!(it.domain_disks().await, 1);

    it.guard.renew_in(slow.clone(), BootClock::now(it.host.clock.as_ref()));
    it.hold();
    it.guard.renew_in(slow.clone(), BootClock::now(it.host.clock.as_ref()));
    assert_eq!(it.passes(spec.id).await, Outcome::Settled);
    assert_eq!(it.domain_disks().await, 2);
    assert!(it.guard.entry(spec.id).unwrap().pools.contains_key(&slow));

    // While its guest holds on to a disk, the pool counts.
    it.host.hypervisor.set_guests_release_devices(false);
    it.life.want(wish(&InstanceSpec { disks: spec.disks.clone(), ..next(&more) }));
    it.passes(spec.id).await;
    assert_eq!((it.domain_disks().await, it.guard.entry(spec.id).unwrap().pools.len()), (2, 2));
    it.host.hypervisor.set_guests_release_devices(true);
    it.pass_time(20);
    it.look();
    assert_eq!(it.passes(spec.id).await, Outcome::Settled);
    assert_eq!((it.domain_disks().await, it.guard.entry(spec.id).unwrap().pools.len()), (1, 1));
}

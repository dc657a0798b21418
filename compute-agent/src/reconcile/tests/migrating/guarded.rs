//! Guests that others take over when their host fails: there is never a domain of one that the guard does not know of, and none
//! goes on that another host may have started.

use protocol::agent::EndReason;

use super::super::guarded::restarted_elsewhere;
use super::*;
use crate::reconcile::migrating::{Outgoing, Stage};

/// The guards have been at work for long, and the guest runs on one of the hosts.
async fn start() -> Two {
    let hosts = [Host::new(), Host::new()];
    let guards = [HOME, AWAY].map(|index| {
        let host = &hosts[index];
        let mut guard = FakeGuard::new(&host.folder("."), host.machine_boot);
        for _ in 0..5 {
            guard.renew(up(host));
            host.clock.advance(Duration::from_secs(5));
        }
        Some(guard)
    });
    Two::start_on(hosts, guards, restarted_elsewhere()).await
}

/// The boots of which something is written down at each host.
fn entries(two: &Two) -> [Option<i64>; 2] {
    [HOME, AWAY].map(|index| Some(two.guards[index].as_ref()?.entry(two.spec.id)?.boot))
}

/// Plays until the destination says this; the source hears nothing before.
async fn until_told(
    two: &mut Two,
    lives: &[Life; 2],
    is_it: impl Fn(&MigrationState) -> bool,
) -> MigrationState {
    for _ in 0..100 {
        two.turn(lives, &[]).await;
        let said = lives[AWAY].outbox.migration(two.spec.id).map(|said| said.state);
        if let Some(said) = said.filter(&is_it) {
            return said;
        }
    }
    panic!("it never says so");
}

fn is_ready(state: &MigrationState) -> bool {
    matches!(state, MigrationState::Ready { .. })
}

fn is_refused(state: &MigrationState) -> bool {
    matches!(state, MigrationState::Refused { .. })
}

/// The guard of the destination ends the domain there, since it has lost the lease.
async fn fence(two: &mut Two, life: &mut Life) -> FakeGuard {
    let guard = two.guards[AWAY].take().unwrap();
    two.hosts[AWAY].clock.advance(Duration::from_secs(41));
    guard.fence(two.spec.id, two.spec.boot);
    two.hosts[AWAY].hypervisor.destroy(two.spec.id).await.unwrap();
    while let Ok(event) = life.events.try_recv() {
        if let Event::Ended { id, why } = event {
            life.reconciler.ended(id, why);
        }
    }
    guard
}

#[tokio::test]
async fn a_guarded_guest_goes_and_is_guarded_on_either_side_as_long_as_it_is_there() {
    let mut two = start().await;
    assert_eq!(entries(&two), [Some(1), None]);
    assert!(!two.play([NEVER, NEVER]).await);
    assert_eq!(two.owner, AWAY);
    two.check("nobody was killed").await;
    assert_eq!(entries(&two), [None, Some(1)]);
}

#[tokio::test]
async fn a_guard_that_was_told_to_end_lets_its_guests_leave() {
    let mut two = start().await;
    two.guards[HOME].as_mut().unwrap().end();
    two.play([NEVER, NEVER]).await;
    assert_eq!(two.owner, AWAY);
    two.check("it waits for that").await;
    assert_eq!(entries(&two), [None, Some(1)]);
}

#[tokio::test]
async fn whoever_is_killed_wherever_one_guest_runs_and_is_guarded() {
    for side in [HOME, AWAY] {
        let mut went = 0;
        for step in 0.. {
            let mut two = start().await;
            let mut kill_at = [NEVER; 2];
            kill_at[side] = step;
            let was_killed = two.play(kill_at).await;
            let what = format!("side {side} at step {step}");
            two.check(&what).await;
            let guarded = entries(&two);
            assert_eq!((guarded[two.owner], guarded[1 - two.owner]), (Some(1), None), "{what}");
            went += usize::from(two.owner == AWAY);
            if !was_killed {
                break;
            }
        }
        assert!(went > 1, "of side {side}, it never went");
    }
}

#[tokio::test]
async fn one_that_is_called_off_is_guarded_nowhere_else() {
    let mut two = start().await;
    two.cancelled = true;
    two.play([NEVER, NEVER]).await;
    assert_eq!(two.owner, HOME);
    two.check("cancelled").await;
    assert_eq!(entries(&two), [Some(1), None]);
}

#[tokio::test]
async fn nothing_is_made_where_the_guard_lets_nothing_start_and_that_is_said() {
    for (why, words) in
        [("dead", "guard of the other host"), ("elsewhere", "renew its lease"), ("unheard", "has not heard")]
    {
        let mut two = start().await;
        let mut guard = two.guards[AWAY].take().unwrap();
        let away = two.agent(AWAY, NEVER);
        away.want(two.told[AWAY].clone().unwrap());
        let begun = away.clock.now();
        let said = loop {
            let now = up(&two.hosts[AWAY]);
            if why != "dead" {
                guard.renew(now);
                guard.look(now);
            }
            if why == "elsewhere" {
                guard.move_pool("/srv/other");
                away.reconciler.parts.guards.heard(now);
            }
            let outcome = away.reconciler.pass(two.spec.id).await;
            assert_eq!(two.hosts[AWAY].hypervisor.domains().await.unwrap(), [], "{why}");
            assert_eq!((guard.entry(two.spec.id), away.boots.get(two.spec.id)), (None, None), "{why}");
            if let Some(said) = away.outbox.migration(two.spec.id) {
                break said;
            }
            let Outcome::Wait(until) = outcome else { panic!("{outcome:?}") };
            away.clock.advance_to(until);
        };
        let MigrationState::Refused { detail } = &said.state else { panic!("{said:?}") };
        assert!(detail.contains(words), "{detail}");
        assert!((60..65).contains(&(away.clock.now() - begun).whole_seconds()), "{why}");
        two.hear(AWAY, &said.state);
        drop(away);
        two.guards[AWAY] = Some(guard);
        two.play([NEVER, NEVER]).await;
        assert_eq!(two.owner, HOME);
        two.check(why).await;
        assert_eq!(entries(&two), [Some(1), None]);
    }
}

#[tokio::test]
async fn what_waits_for_a_guest_and_is_fenced_ends_the_migration_and_nothing_else() {
    let mut two = start().await;
    let mut lives = [HOME, AWAY].map(|index| two.agent(index, NEVER));
    until_told(&mut two, &lives, is_ready).await;
    let guard = fence(&mut two, &mut lives[AWAY]).await;
    let said = until_told(&mut two, &lives, is_refused).await;
    let MigrationState::Refused { detail } = &said else { panic!("{said:?}") };
    assert!(detail.contains("lost its lease"), "{detail}");
    assert_eq!(
        lives[AWAY].outbox.latest(two.spec.id),
        None,
        "it says nothing of a guest that is not its own"
    );
    // Should it be its own after all, that is how it has ended.
    assert!(guard.has_record(two.spec.id) && guard.entry(two.spec.id).is_some());
    two.hear(AWAY, &said);
    drop(lives);
    two.guards[AWAY] = Some(guard);
    two.play([NEVER, NEVER]).await;
    assert_eq!(two.owner, HOME);
    two.check("it stays").await;
    assert_eq!(entries(&two), [Some(1), None]);
}

/// The source has handed the guest over, and the destination has not heard that yet.
async fn handed_over(two: &mut Two) -> [Life; 2] {
    let lives = [HOME, AWAY].map(|index| two.agent(index, NEVER));
    for _ in 0..400 {
        for index in [AWAY, HOME] {
            two.act(index, &lives[index], true).await;
        }
        if two.owner == AWAY {
            return lives;
        }
        // As of a turn.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it is never handed over: {:?}", two.told);
}

#[tokio::test]
async fn one_that_was_fenced_before_it_went_on_is_said_to_be_though_nothing_may_start() {
    let mut two = start().await;
    let mut lives = handed_over(&mut two).await;
    fence(&mut two, &mut lives[AWAY]).await;
    lives[AWAY].want(two.told[AWAY].clone().unwrap());
    // Without a lease.
    lives[AWAY].settle(two.spec.id).await;
    assert_eq!(lives[AWAY].state(two.spec.id), ObservedState::Stopped { reason: EndReason::Fenced });
    assert_eq!(two.running().await, [0_usize; 0]);
}

/// Its machine has lost its power with the guest, and without a guard none starts there.
#[tokio::test]
async fn a_source_that_has_no_guest_any_more_gives_up_what_is_called_off() {
    let mut two = start().await;
    let lives = [HOME, AWAY].map(|index| two.agent(index, NEVER));
    let ready = until_told(&mut two, &lives, is_ready).await;
    two.hear(AWAY, &ready);
    two.act(HOME, &lives[HOME], false).await;
    let begun = lives[HOME].boots.get(two.spec.id).unwrap().outgoing.unwrap();
    assert_eq!(begun, Outgoing { id: two.migration, stage: Stage::Begun });
    drop(lives);
    two.hosts[HOME].reboot_machine();
    let home = two.agent(HOME, NEVER);
    for (cancelled, is_over) in [(false, false), (true, true)] {
        home.want(two.send(cancelled));
        home.reconciler.pass(two.spec.id).await;
        let said = home.outbox.migration(two.spec.id).map(|said| said.state);
        assert_eq!(said.is_some(), is_over);
        assert!(said.is_none_or(|said| matches!(said, MigrationState::Ended { .. })));
    }
    assert_eq!(two.running().await, [0_usize; 0]);
}

/// Its source has failed, and it was started elsewhere since, and has come here.
#[tokio::test]
async fn what_was_handed_over_never_goes_on_in_a_boot_that_is_over() {
    let mut two = start().await;
    let lives = handed_over(&mut two).await;
    two.spec.boot += 1;
    two.spec.generation = Generation(two.spec.generation.0 + 1);
    lives[AWAY].want(two.wish(None));
    two.settle(AWAY, &lives[AWAY]).await;
    let hypervisor = &two.hosts[AWAY].hypervisor;
    assert_eq!((hypervisor.starts(two.spec.id, 2), hypervisor.resumes()), (1, 0));
    assert_eq!(two.running().await, [AWAY]);
    assert_eq!(entries(&two)[AWAY], Some(2));
}

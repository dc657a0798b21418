//! Whatever writes, machines and witnesses do: who runs holds the lease, and who sees it lapsed is right.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use protocol::agent::TAKEOVER_SECONDS;

use super::super::clock::Moment;
use super::super::terms::{Lease, Leases, offence};
use super::super::{Entry, Held, Times};
use super::fake::pool;

/// A write, in milliseconds after the one before had ended.
#[derive(Debug, Clone)]
struct Write {
    pause: u64,
    takes: u64,
    /// When it can be read, after its beginning, whatever comes of it.
    lands_after: Option<u64>,
    completes: bool,
}

/// A write with the instants at which all of that happens.
#[derive(Debug, Clone, Copy)]
struct Happened {
    counter: u64,
    begun: u64,
    ended: u64,
    landed: Option<u64>,
    completes: bool,
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let pause = prop_oneof![8 => Just(5_000), 1 => 1_000..90_000_u64];
    let takes = prop_oneof![8 => 1..500_u64, 1 => 500..120_000_u64];
    let write = (pause, takes, any::<bool>(), 0..100_u64, prop::bool::weighted(0.8));
    let write = write.prop_map(|(pause, takes, lands, share, completes)| {
        let lands_after = (lands || completes).then_some(takes * share / 100);
        Write { pause, takes, lands_after, completes }
    });
    prop::collection::vec(write, 1..60)
}

fn happen(writes: &[Write]) -> Vec<Happened> {
    let mut now = 1_000_000;
    let happened = |(counter, write): (u64, &Write)| {
        let begun = now + write.pause;
        let ended = begun + write.takes;
        now = ended;
        let landed = write.lands_after.map(|after| begun + after);
        Happened { counter, begun, ended, landed, completes: write.completes }
    };
    (1..).zip(writes).map(happened).collect()
}

fn lease_at(history: &[Happened], now: u64) -> Lease {
    let mut lease = Lease::default();
    for write in history.iter().filter(|write| write.completes && write.ended <= now) {
        lease.completed(write.counter, Moment(write.begun), Moment(write.ended), lease_lasts());
    }
    lease
}

fn lease_lasts() -> Duration {
    Times::default().lease
}

fn entry(term: u64) -> Entry {
    let held = Held { root: "/srv/fast".into(), term };
    Entry { boot: 1, pools: BTreeMap::from([(pool(), held)]), written: Moment(0) }
}

fn may_run(entry: &Entry, lease: Lease, now: u64) -> bool {
    offence(entry, &Leases::from([(pool(), lease)]), Moment(now), lease_lasts()).is_none()
}

proptest! {
    /// A guest may run exactly while the lease was held without a gap since it was allowed to.
    #[test]
    fn who_runs_has_held_the_lease_all_the_time(writes in writes(), allowed in 0..60_usize, later in 0..400_000_u64) {
        let history = happen(&writes);
        let Some(allowed) = history.get(allowed % history.len()).map(|write| write.ended + 1) else { return Ok(()) };
        let then = lease_at(&history, allowed);
        prop_assume!(may_run(&entry(then.term), then, allowed));
        let now = allowed + later;
        let lasts = u64::try_from(lease_lasts().as_millis()).unwrap();
        let mut renewed = then.renewed.unwrap().0;
        let mut held = true;
        for write in history.iter().filter(|write| write.completes && write.ended > allowed && write.ended <= now) {
            held &= write.ended - renewed < lasts;
            renewed = renewed.max(write.begun);
        }
        held &= now - renewed < lasts;
        prop_assert_eq!(may_run(&entry(then.term), lease_at(&history, now), now), held);
    }

    /// When a witness has seen a lease unchanged for as long as a takeover takes, nothing that was allowed to run before runs
    /// at its end, and the guard has had a third of the time to see to that.
    #[test]
    fn what_a_witness_proves_is_so(
        writes in writes(),
        first in 0..500_000_u64,
        reading in 0..3_000_u64,
        more in 0..100_000_u64,
        allowed in 0..60_usize,
    ) {
        let history = happen(&writes);
        let first = 1_000_000 + first;
        let read = |at: u64| history.iter().filter(|write| write.landed.is_some_and(|landed| landed <= at)).map(|write| write.counter).max();
        // Read at some time before `first`, which is when the reading had ended, and again after `last`.
        let last = first + u64::from(TAKEOVER_SECONDS) * 1000 + more;
        let seen = read(first.saturating_sub(reading));
        prop_assume!(seen == read(last + reading));
        let guard_is_over = last - 20_000;
        for write in history.iter().take(allowed + 1).filter(|write| write.ended <= guard_is_over) {
            let then = lease_at(&history, write.ended);
            prop_assert!(!may_run(&entry(then.term), lease_at(&history, guard_is_over), guard_is_over));
        }
    }
}

#[test]
fn a_machine_that_stood_still_lets_nobody_run_on() {
    let mut lease = Lease::default();
    lease.completed(1, Moment(1_000), Moment(1_010), lease_lasts());
    assert_eq!(lease.term, 1);
    lease.completed(2, Moment(6_000), Moment(6_010), lease_lasts());
    assert!(may_run(&entry(1), lease, 45_999));
    assert!(!may_run(&entry(1), lease, 46_000));
    // It wakes up and writes before anybody has decided.
    lease.completed(3, Moment(100_000), Moment(100_010), lease_lasts());
    assert!(!may_run(&entry(1), lease, 100_011));
    assert!(may_run(&entry(3), lease, 100_011));
}

#[test]
fn without_a_lease_nothing_runs() {
    assert!(offence(&entry(0), &Leases::new(), Moment(0), lease_lasts()).is_some());
    let two = Held { root: "/srv/slow".into(), term: 1 };
    let mut lease = Lease::default();
    lease.completed(1, Moment(0), Moment(1), lease_lasts());
    let mut entry = entry(1);
    assert!(may_run(&entry, lease, 2));
    entry.pools.insert("slow".parse().unwrap(), two);
    assert!(!may_run(&entry, lease, 2), "each pool counts");
}

//! Histories that may be, and histories that the checker has to refuse.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use camino::Utf8PathBuf;
use protocol::{InstanceId, Name};
use uuid::Uuid;

use super::check::{Finding, MOMENT, Verdict, check};
use super::gate::Gate;
use super::history::{History, Record, What};
use super::pools::{PoolWay, Way};

const SECOND: u64 = 1_000_000;

fn name(host: &str) -> Name {
    host.parse().unwrap()
}

fn vm() -> InstanceId {
    InstanceId::from_uuid(Uuid::from_u128(1))
}

/// Of the one instance, its boots guarded unless they are below zero.
fn began(boot: i64) -> What {
    What::Began { instance: vm(), boot: boot.abs(), guarded: boot > 0, waits: false }
}

/// For a guest that comes from elsewhere.
fn waits(boot: i64) -> What {
    What::Began { instance: vm(), boot: boot.abs(), guarded: boot > 0, waits: true }
}

fn still(boot: i64) -> What {
    What::GuestStandsStill { instance: vm(), boot }
}

fn goes_on(boot: i64) -> What {
    What::GuestGoesOn { instance: vm(), boot }
}

fn ended(boot: i64) -> What {
    What::Ended { instance: vm(), boot }
}

/// Each with its second. Whoever runs at the end runs for ever.
fn verdict(history: &[(u64, &str, What)]) -> Verdict {
    check(&records(history), u64::MAX)
}

fn records(history: &[(u64, &str, What)]) -> Vec<Record> {
    let record = |(at, host, what): &(u64, &str, What)| Record {
        at: at * SECOND,
        host: name(host),
        what: what.clone(),
    };
    history.iter().map(record).collect()
}

fn findings(history: &[(u64, &str, What)]) -> Vec<Finding> {
    verdict(history).findings
}

fn two_at_once(from: u64, seconds: u64) -> Vec<Finding> {
    let (hosts, microseconds) = ([name("a"), name("b")], seconds * SECOND);
    vec![Finding::TwoAtOnce { instance: vm(), hosts, from: from * SECOND, microseconds }]
}

#[test]
fn a_guest_may_go_from_host_to_host_one_after_the_other() {
    let moved = verdict(&[(1, "a", began(1)), (50, "a", ended(1)), (50, "b", began(2))]);
    assert_eq!(moved, Verdict { moved: 1, ..Verdict::default() });
    assert_eq!(verdict(&[]), Verdict::default());
    // Others are others.
    let other = |boot| What::Began {
        instance: InstanceId::from_uuid(Uuid::nil()),
        boot,
        guarded: true,
        waits: false,
    };
    assert_eq!(findings(&[(1, "a", began(1)), (2, "b", other(1))]), []);
}

#[test]
fn two_at_once_are_found_however_short_and_whichever_ends_first() {
    let found = findings(&[(1, "a", began(1)), (5, "b", began(2)), (6, "a", ended(1)), (9, "b", ended(2))]);
    assert_eq!(found, two_at_once(5, 1));
    let within = findings(&[(1, "a", began(1)), (5, "b", began(2)), (8, "b", ended(2)), (9, "a", ended(1))]);
    assert_eq!(within, two_at_once(5, 3));
    // Nobody has ended.
    let found = findings(&[(1, "a", began(1)), (5, "b", began(2))]);
    assert!(matches!(found[..], [Finding::TwoAtOnce { from: 5_000_000, .. }]), "{found:?}");
    // Once more, much later, on a host that it was on before.
    let again = [
        (1, "a", began(1)),
        (2, "a", ended(1)),
        (2, "b", began(2)),
        (30, "a", began(3)),
        (31, "b", ended(2)),
    ];
    let found = findings(&again);
    assert!(matches!(found[..], [Finding::TwoAtOnce { from: 30_000_000, .. }]), "{found:?}");
}

#[test]
fn a_guest_that_was_handed_over_begins_anew_with_the_host_that_lost_its_power() {
    let lost = |at, more: &[(u64, &'static str, What)]| {
        let begins = [
            (1, "a", began(-1)),
            (5, "b", waits(-1)),
            (6, "a", still(1)),
            (7, "b", ended(1)),
            (8, "b", What::PowerLost),
        ];
        verdict(&[&begins[..], &[(at, "b", began(-1))], more].concat())
    };
    assert_eq!(lost(40, &[]), Verdict { migrated: 1, ..Verdict::default() });
    // It never goes on where it came from.
    let twice = |host, at| Finding::BootTwice { instance: vm(), boot: 1, host: name(host), at: at * SECOND };
    assert_eq!(lost(40, &[(41, "b", ended(1)), (42, "a", goes_on(1))]).findings, [twice("a", 42)]);
    // Once, and with power that was lost since.
    let again = [(41, "b", ended(1)), (42, "b", began(-1))];
    assert_eq!(lost(40, &again).findings, [twice("b", 42)]);
    let ended_alone =
        [(1, "a", began(1)), (5, "b", waits(1)), (6, "a", still(1)), (7, "b", ended(1)), (40, "b", began(1))];
    assert_eq!(findings(&ended_alone), [twice("b", 40)]);
    // Meanwhile it was to go on from there, and another host waits in vain.
    let onwards = [
        (1, "a", began(-1)),
        (5, "b", waits(-1)),
        (6, "a", still(1)),
        (7, "b", ended(1)),
        (7, "b", What::PowerLost),
        (8, "a", ended(1)),
        (9, "c", waits(-1)),
        (40, "b", began(-1)),
        (41, "c", ended(1)),
    ];
    assert_eq!(verdict(&onwards), Verdict { migrated: 1, ..Verdict::default() });
    let wrong = [(42, "b", ended(1)), (43, "c", What::PowerLost), (44, "c", began(-1))];
    let moved = Finding::MovedUnguarded { instance: vm(), host: name("c"), at: 44 * SECOND };
    assert_eq!(findings(&[&onwards[..], &wrong].concat()), [twice("c", 44), moved]);
    // It was called off: the guest went on where it was, or had never stood still.
    let called_off = |more: &[(u64, &'static str, What)]| {
        let begins = [(1, "a", began(1)), (5, "b", waits(1))];
        let ends = [
            (8, "b", ended(1)),
            (9, "a", ended(1)),
            (9, "a", What::PowerLost),
            (9, "b", What::PowerLost),
            (40, "b", began(1)),
        ];
        findings(&[&begins[..], more, &ends].concat())
    };
    assert_eq!(called_off(&[(6, "a", still(1)), (7, "a", goes_on(1))]), [twice("b", 40)]);
    assert_eq!(called_off(&[]), [twice("b", 40)]);
    assert_eq!(called_off(&[(6, "a", still(1))]), []);
    // It stood still when that host had given it up.
    let given_up = [
        (1, "a", began(1)),
        (5, "b", waits(1)),
        (6, "b", ended(1)),
        (7, "a", still(1)),
        (8, "a", ended(1)),
        (9, "b", What::PowerLost),
        (40, "b", began(1)),
    ];
    assert_eq!(findings(&given_up), [twice("b", 40)]);
    // Another host than the last that waited for it.
    let elsewhere = [
        (1, "a", began(1)),
        (2, "c", waits(1)),
        (3, "c", ended(1)),
        (4, "c", What::PowerLost),
        (5, "b", waits(1)),
        (6, "a", still(1)),
        (7, "a", ended(1)),
        (8, "c", began(1)),
    ];
    assert_eq!(findings(&elsewhere), [twice("c", 8)]);
}

#[test]
fn who_stands_still_does_not_write_and_has_a_moment_afterwards_and_no_more() {
    let until = |killed: u64| {
        vec![
            (1, "a", began(1)),
            (10, "a", What::StandsStill),
            (80, "b", began(2)),
            (100, "a", What::GoesOn),
            (killed, "a", ended(1)),
        ]
    };
    let judged = verdict(&until(101));
    assert_eq!((judged.findings, judged.longest_moment), (vec![], SECOND));
    let longest = MOMENT / SECOND;
    assert_eq!(findings(&until(100 + longest)), []);
    assert_eq!(findings(&until(101 + longest)), two_at_once(100, 1 + longest));
    // It never noticed.
    assert_eq!(findings(&until(0)[..4]).len(), 1);
    // The other one began before it stood still: that is no moment.
    let before = [(1, "a", began(1)), (5, "b", began(2)), (6, "a", What::StandsStill)];
    assert_eq!(findings(&before), two_at_once(5, 1));
    // It stood still, went on, and ran long before the other one began.
    let awake = [
        (1, "a", began(1)),
        (10, "a", What::StandsStill),
        (20, "a", What::GoesOn),
        (90, "b", began(2)),
        (91, "a", ended(1)),
    ];
    assert_eq!(findings(&awake), two_at_once(90, 1));
    // One that begins on a host that stands still writes when that goes on.
    let begun_still =
        [(1, "a", What::StandsStill), (2, "a", began(1)), (3, "b", began(2)), (9, "b", ended(2))];
    assert_eq!(findings(&begun_still), []);
}

#[test]
fn who_has_just_gone_on_still_has_its_moment() {
    let (still, on) = (What::StandsStill, What::GoesOn);
    let history = records(&[(1, "a", began(1)), (5, "a", still), (70, "b", began(2)), (90, "a", on)]);
    let now = check(&history, 90 * SECOND + MOMENT / 2);
    assert_eq!(now, Verdict { moved: 1, longest_moment: MOMENT / 2, ..Verdict::default() });
    let late = check(&history, 91 * SECOND + MOMENT).findings;
    assert!(matches!(late[..], [Finding::TwoAtOnce { from: 90_000_000, .. }]), "{late:?}");
}

#[test]
fn a_boot_begins_once_but_on_a_host_that_has_lost_its_power() {
    let lost = [(1, "a", began(1)), (5, "a", ended(1)), (5, "a", What::PowerLost), (60, "a", began(1))];
    assert_eq!(findings(&lost), []);
    let twice = |host: &str, at: u64| {
        vec![Finding::BootTwice { instance: vm(), boot: 1, host: name(host), at: at * SECOND }]
    };
    assert_eq!(findings(&[(1, "a", began(1)), (5, "a", ended(1)), (60, "a", began(1))]), twice("a", 60));
    let elsewhere = [(1, "a", began(1)), (5, "a", ended(1)), (5, "a", What::PowerLost), (60, "b", began(1))];
    assert_eq!(findings(&elsewhere), twice("b", 60));
    let once_more = [&lost[..], &[(70, "a", ended(1)), (71, "a", began(1))]].concat();
    assert_eq!(findings(&once_more), twice("a", 71));
}

#[test]
fn only_guarded_guests_go_elsewhere() {
    let moved =
        |first, second| findings(&[(1, "a", began(first)), (50, "a", ended(1)), (60, "b", began(second))]);
    assert_eq!(moved(1, 2), []);
    let unguarded = [Finding::MovedUnguarded { instance: vm(), host: name("b"), at: 60 * SECOND }];
    for (first, second) in [(-1, -2), (-1, 2), (1, -2)] {
        assert_eq!(moved(first, second), unguarded);
    }
    assert_eq!(findings(&[(1, "a", began(-1)), (50, "a", ended(1)), (60, "a", began(-2))]), []);
}

#[test]
fn a_guest_takes_its_boot_along_and_goes_on_at_one_host_alone() {
    let there = [(1, "a", began(1)), (2, "b", waits(1)), (9, "a", still(1)), (10, "b", goes_on(1))];
    let one_way = verdict(&[&there[..], &[(11, "a", ended(1))]].concat());
    assert_eq!(one_way, Verdict { migrated: 1, ..Verdict::default() });
    let back = [(20, "a", waits(1)), (21, "b", still(1)), (22, "a", goes_on(1)), (23, "b", ended(1))];
    let there_and_back = verdict(&[&there[..], &[(11, "a", ended(1))], &back].concat());
    assert_eq!(there_and_back, Verdict { migrated: 2, ..Verdict::default() });
    // It was called off: whoever waited ends.
    assert_eq!(
        verdict(&[&there[..3], &[(10, "a", goes_on(1)), (11, "b", ended(1))]].concat()),
        Verdict::default()
    );

    let twice = |host: &str, at: u64| Finding::BootTwice {
        instance: vm(),
        boot: 1,
        host: name(host),
        at: at * SECOND,
    };
    let goes_on_behind = [&there[..], &[(12, "a", goes_on(1)), (13, "a", ended(1))]].concat();
    assert!(findings(&goes_on_behind).contains(&twice("a", 12)), "it has left");
    let both = [(1, "a", began(1)), (2, "b", waits(1)), (5, "b", goes_on(1)), (8, "a", ended(1))];
    assert_eq!(findings(&both), two_at_once(5, 3));
    // Its host was lost, and another boot has begun elsewhere and ended.
    let lost = [(1, "a", began(1)), (2, "b", waits(1)), (3, "a", ended(1)), (3, "a", What::PowerLost)];
    let late = [(60, "c", began(2)), (70, "c", ended(2)), (80, "b", goes_on(1))];
    assert_eq!(findings(&[&lost[..], &late].concat()), [twice("b", 80)]);
    // Nobody ever came.
    assert_eq!(findings(&[(2, "b", waits(1)), (3, "b", goes_on(1))]), [twice("b", 3)]);
    // While its host stands still it does not go on.
    let host_still = [(8, "b", What::StandsStill), (50, "b", What::GoesOn)];
    let held =
        [&there[..2], &host_still[..1], &there[3..], &[(49, "a", ended(1))], &host_still[1..]].concat();
    assert_eq!(findings(&held), []);
}

#[test]
fn a_guest_that_is_guarded_goes_where_it_is_guarded() {
    let gone = |first: i64, second: i64| {
        findings(&[
            (1, "a", began(first)),
            (2, "b", waits(second)),
            (9, "a", still(1)),
            (10, "b", goes_on(1)),
        ])
    };
    for (first, second) in [(1, 1), (-1, -1), (-1, 1)] {
        assert_eq!(gone(first, second), []);
    }
    assert_eq!(gone(1, -1), [Finding::MovedUnguarded { instance: vm(), host: name("b"), at: 10 * SECOND }]);
}

#[test]
fn what_is_not_accounted_for_is_found() {
    let unaccounted =
        |boot, at: u64| vec![Finding::Unaccounted { instance: vm(), boot, host: name("a"), at: at * SECOND }];
    assert_eq!(findings(&[(1, "a", ended(1))]), unaccounted(1, 1));
    assert_eq!(findings(&[(1, "a", began(1)), (2, "a", ended(2))]), unaccounted(2, 2));
    assert_eq!(findings(&[(1, "a", began(1)), (2, "a", ended(1)), (3, "a", ended(1))]), unaccounted(1, 3));
    assert_eq!(findings(&[(1, "a", began(1)), (2, "a", began(2))]), unaccounted(2, 2));
    assert_eq!(findings(&[(1, "a", still(1))]), unaccounted(1, 1));
    assert_eq!(findings(&[(1, "a", began(1)), (2, "a", goes_on(2))]), unaccounted(2, 2));
    let outlived = vec![Finding::OutlivedPower { instance: vm(), host: name("a"), at: 2 * SECOND }];
    assert_eq!(findings(&[(1, "a", began(1)), (2, "a", What::PowerLost)]), outlived);
    let back = [(5, "a", began(1)), (4, "a", ended(1))];
    assert_eq!(findings(&back), [Finding::TimeGoesBack { at: 4 * SECOND }]);
}

#[test]
fn a_history_is_appended_to_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = Utf8PathBuf::from_path_buf(dir.path().join("history")).unwrap();
    let history = Arc::new(History::open(&file).unwrap());
    let fault = What::Fault { seed: 7, fault: "Line begins".to_owned() };
    let all = [fault, began(1), What::StandsStill, What::GoesOn, ended(1), What::PowerLost];
    for what in &all {
        history.add(&name("a"), what.clone());
    }
    let told = history.records();
    assert!(told.is_sorted_by_key(|record| record.at));
    assert_eq!(told.iter().map(|record| record.what.clone()).collect::<Vec<_>>(), all);
    history.forget(&[vm()].into());
    assert_eq!(history.records().len(), 4, "what its host went through is kept");
    assert_eq!(History::open(&file).unwrap().records(), told);
    std::fs::write(&file, "{\"at\":").unwrap();
    assert!(History::open(&file).is_err());
}

#[test]
fn who_stands_still_at_a_gate_goes_on_when_it_opens() {
    let gate = Arc::new(Gate::new());
    assert!(!gate.pass());
    gate.set_closed(true);
    let (passes, passed) = (Arc::clone(&gate), mpsc::channel());
    thread::spawn(move || passed.0.send(passes.pass()));
    assert!(passed.1.recv_timeout(Duration::from_millis(100)).is_err());
    gate.set_closed(false);
    assert!(passed.1.recv_timeout(Duration::from_secs(10)).unwrap());
}

#[test]
fn a_pool_that_hangs_keeps_who_asks_until_it_is_back_and_one_that_is_gone_fails() {
    let way = Arc::new(PoolWay::default());
    way.take().unwrap();
    way.set(Way::Gone);
    assert!(way.take().is_err());
    way.set(Way::Hangs);
    let (takes, taken) = (Arc::clone(&way), mpsc::channel());
    thread::spawn(move || taken.0.send(takes.take().is_ok()));
    assert!(taken.1.recv_timeout(Duration::from_millis(100)).is_err());
    way.set(Way::Open);
    assert!(taken.1.recv_timeout(Duration::from_secs(10)).unwrap());
}

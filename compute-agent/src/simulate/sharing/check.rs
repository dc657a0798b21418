//! Whether a history is one that may be: no instance writes on two hosts at once. Pure.

use std::collections::BTreeMap;

use protocol::{InstanceId, Name};
use serde::Serialize;

use super::history::{Record, What};

/// How long a guest may go on after its host has stood still, without a watchdog: the guard has to notice. See decision 24.
pub(super) const MOMENT: u64 = 2_000_000;

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub(in crate::simulate) enum Finding {
    /// Guests of one instance could write on two hosts, for so many microseconds from then on.
    TwoAtOnce {
        instance: InstanceId,
        hosts: [Name; 2],
        from: u64,
        microseconds: u64,
    },
    /// A boot began twice, and not on one host that had lost its power in between, with the guest or with what waited for it; or
    /// a guest that had gone to another host went on where it came from, or came there when a later boot had begun.
    BootTwice {
        instance: InstanceId,
        boot: i64,
        host: Name,
        at: u64,
    },
    /// A guest was started on another host and not guarded on both, or was guarded and went where it is not.
    MovedUnguarded {
        instance: InstanceId,
        host: Name,
        at: u64,
    },
    /// A beginning while it ran there, or an end of what did not run, or of another boot.
    Unaccounted {
        instance: InstanceId,
        boot: i64,
        host: Name,
        at: u64,
    },
    /// A host lost its power and a guest of it did not end.
    OutlivedPower {
        instance: InstanceId,
        host: Name,
        at: u64,
    },
    TimeGoesBack {
        at: u64,
    },
}

/// What a history comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct Verdict {
    pub(super) findings: Vec<Finding>,
    /// Guests that began on another host than the one before.
    pub(super) moved: usize,
    /// Guests that went to another host while they ran.
    pub(super) migrated: usize,
    /// The longest time that a guest went on beside another after its host had stood still, in microseconds.
    pub(super) longest_moment: u64,
}

/// A time in which a guest can write.
#[derive(Debug, Clone)]
struct Writing {
    host: Name,
    from: u64,
    to: u64,
    /// It began when the host went on after it had stood still.
    is_woken: bool,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    boot: i64,
    is_guarded: bool,
    /// Not one that waits, or stands still for itself.
    runs: bool,
    /// Since when it can write; not while the host stands still.
    since: Option<u64>,
    is_woken: bool,
    /// It has gone on elsewhere.
    has_left: bool,
}

/// For a guest that comes from elsewhere.
struct Wait {
    host: Name,
    /// How often the host had lost its power when it began to wait.
    powers_lost: u32,
    /// The guest has stood still since, as one does that is handed over.
    is_handed_over: bool,
}

#[derive(Default)]
struct Host {
    stands_still: bool,
    powers_lost: u32,
    guests: BTreeMap<InstanceId, Running>,
}

#[derive(Default)]
struct Checker {
    hosts: BTreeMap<Name, Host>,
    writings: BTreeMap<InstanceId, Vec<Writing>>,
    /// Where each boot has run last, and how often that host had lost its power.
    boots: BTreeMap<(InstanceId, i64), (Name, u32)>,
    /// The hosts that have waited for each boot since it went on anywhere, the last one at the end.
    waits: BTreeMap<(InstanceId, i64), Vec<Wait>>,
    /// Where the newest guest of each has run last, and whether it was guarded.
    last: BTreeMap<InstanceId, (Name, bool)>,
    verdict: Verdict,
}

/// See the module. Guests that still run have run until `now`, and what becomes of them is judged another time: a host that has
/// just gone on may end them in a moment.
pub(super) fn check(records: &[Record], now: u64) -> Verdict {
    let mut checker = Checker::default();
    let mut before = 0;
    for record in records {
        if record.at < before {
            checker.verdict.findings.push(Finding::TimeGoesBack { at: record.at });
        }
        before = before.max(record.at);
        checker.take(record);
    }
    checker.end(now)
}

impl Checker {
    fn take(&mut self, record: &Record) {
        let (at, name) = (record.at, &record.host);
        match record.what {
            What::Began { instance, boot, guarded, waits } => {
                let since = (!waits && !self.host(name).stands_still).then_some(at);
                let guest = Running {
                    boot,
                    is_guarded: guarded,
                    runs: !waits,
                    since,
                    is_woken: false,
                    has_left: false,
                };
                self.began(name, at, instance, guest);
            }
            What::GuestStandsStill { instance, boot } => self.guest_stands_still(name, at, instance, boot),
            What::GuestGoesOn { instance, boot } => self.guest_goes_on(name, at, instance, boot),
            What::Ended { instance, boot } => self.ended(name, at, instance, boot),
            What::StandsStill => {
                self.host(name).stands_still = true;
                self.stop_writing(name, at);
            }
            What::GoesOn => {
                let host = self.host(name);
                host.stands_still = false;
                for guest in host.guests.values_mut().filter(|guest| guest.runs && guest.since.is_none()) {
                    (guest.since, guest.is_woken) = (Some(at), true);
                }
            }
            What::PowerLost => {
                self.stop_writing(name, at);
                let host = self.host(name);
                (host.stands_still, host.powers_lost) = (false, host.powers_lost + 1);
                for instance in std::mem::take(&mut host.guests).into_keys() {
                    let finding = Finding::OutlivedPower { instance, host: name.clone(), at };
                    self.verdict.findings.push(finding);
                }
            }
            What::Fault { .. } => {}
        }
    }

    fn began(&mut self, name: &Name, at: u64, instance: InstanceId, guest: Running) {
        let Running { boot, is_guarded: guarded, runs, .. } = guest;
        let host = self.host(name);
        let (before, powers_lost) = (host.guests.insert(instance, guest), host.powers_lost);
        if let Some(before) = before {
            self.write(name, instance, before, at);
            self.verdict.findings.push(Finding::Unaccounted { instance, boot, host: name.clone(), at });
        }
        if !runs {
            let waits = self.waits.entry((instance, boot)).or_default();
            waits.push(Wait { host: name.clone(), powers_lost, is_handed_over: false });
            return;
        }
        let known = self.boots.insert((instance, boot), (name.clone(), powers_lost));
        let was_handed_over = self.waits.get_mut(&(instance, boot)).is_some_and(|waits| {
            let is_this = |it: &Wait| it.is_handed_over && it.host == *name && it.powers_lost < powers_lost;
            let found = waits.iter().position(is_this);
            found.map(|at| waits.remove(at)).is_some()
        });
        if was_handed_over {
            // It was handed over to a host that lost its power before it went on there, and begins anew with that host.
            return self.arrived(name, at, instance, boot, guarded);
        }
        if known.is_some_and(|(host, lost)| host != *name || lost == powers_lost) {
            self.verdict.findings.push(Finding::BootTwice { instance, boot, host: name.clone(), at });
        }
        let last = self.last.insert(instance, (name.clone(), guarded));
        if let Some((_, was_guarded)) = last.filter(|(host, _)| host != name) {
            self.verdict.moved += 1;
            if !(was_guarded && guarded) {
                self.verdict.findings.push(Finding::MovedUnguarded { instance, host: name.clone(), at });
            }
        }
    }

    fn ended(&mut self, name: &Name, at: u64, instance: InstanceId, boot: i64) {
        match self.host(name).guests.remove(&instance) {
            Some(guest) if guest.boot == boot => {
                self.write(name, instance, guest, at);
                // Who does not wait any more is handed nothing over.
                if let Some(waits) = self.waits.get_mut(&(instance, boot)).filter(|_| !guest.runs) {
                    waits.retain(|wait| wait.is_handed_over || wait.host != *name);
                }
            }
            found => {
                if let Some(guest) = found {
                    self.write(name, instance, guest, at);
                }
                self.verdict.findings.push(Finding::Unaccounted { instance, boot, host: name.clone(), at });
            }
        }
    }

    fn guest_stands_still(&mut self, name: &Name, at: u64, instance: InstanceId, boot: i64) {
        let Some(guest) = self.guest(name, at, instance, boot) else { return };
        guest.runs = false;
        let still = *guest;
        guest.since = None;
        let waits = self.waits.get_mut(&(instance, boot));
        if let Some(wait) = waits.and_then(|waits| waits.last_mut()).filter(|wait| wait.host != *name) {
            wait.is_handed_over = true;
        }
        self.write(name, instance, still, at);
    }

    fn guest_goes_on(&mut self, name: &Name, at: u64, instance: InstanceId, boot: i64) {
        let (stands_still, powers_lost) = (self.host(name).stands_still, self.host(name).powers_lost);
        let Some(guest) = self.guest(name, at, instance, boot) else { return };
        (guest.runs, guest.since, guest.is_woken) = (true, (!stands_still).then_some(at), false);
        let Running { has_left, is_guarded, .. } = *guest;
        self.waits.remove(&(instance, boot));
        let known = self.boots.insert((instance, boot), (name.clone(), powers_lost));
        let is_late = self.boots.keys().any(|(other, later)| *other == instance && *later > boot);
        if has_left || is_late || known.is_none() {
            self.verdict.findings.push(Finding::BootTwice { instance, boot, host: name.clone(), at });
        }
        if known.is_some_and(|(host, _)| host != *name) {
            self.arrived(name, at, instance, boot, is_guarded);
        }
    }

    fn arrived(&mut self, name: &Name, at: u64, instance: InstanceId, boot: i64, guarded: bool) {
        self.verdict.migrated += 1;
        for (_, host) in self.hosts.iter_mut().filter(|(host, _)| *host != name) {
            if let Some(guest) = host.guests.get_mut(&instance).filter(|guest| guest.boot == boot) {
                guest.has_left = true;
            }
        }
        let last = self.last.insert(instance, (name.clone(), guarded));
        if last.is_some_and(|(_, was_guarded)| was_guarded && !guarded) {
            self.verdict.findings.push(Finding::MovedUnguarded { instance, host: name.clone(), at });
        }
    }

    /// That guest, which has to be there.
    fn guest(&mut self, name: &Name, at: u64, instance: InstanceId, boot: i64) -> Option<&mut Running> {
        let is_there = self.host(name).guests.get(&instance).is_some_and(|guest| guest.boot == boot);
        if !is_there {
            self.verdict.findings.push(Finding::Unaccounted { instance, boot, host: name.clone(), at });
            return None;
        }
        self.host(name).guests.get_mut(&instance)
    }

    fn stop_writing(&mut self, name: &Name, at: u64) {
        let host = self.host(name);
        let stopped: Vec<_> = host.guests.iter().map(|(id, guest)| (*id, *guest)).collect();
        host.guests.values_mut().for_each(|guest| guest.since = None);
        for (id, guest) in stopped {
            self.write(name, id, guest, at);
        }
    }

    fn write(&mut self, host: &Name, instance: InstanceId, guest: Running, to: u64) {
        if let Some(from) = guest.since {
            let writing = Writing { host: host.clone(), from, to, is_woken: guest.is_woken };
            self.writings.entry(instance).or_default().push(writing);
        }
    }

    fn host(&mut self, name: &Name) -> &mut Host {
        self.hosts.entry(name.clone()).or_default()
    }

    fn end(mut self, now: u64) -> Verdict {
        for name in self.hosts.keys().cloned().collect::<Vec<_>>() {
            self.stop_writing(&name, now);
        }
        for (instance, writings) in &self.writings {
            for (number, one) in writings.iter().enumerate() {
                for other in writings[number + 1..].iter().filter(|other| other.host != one.host) {
                    judge(&mut self.verdict, *instance, one, other);
                }
            }
        }
        self.verdict
    }
}

fn judge(verdict: &mut Verdict, instance: InstanceId, one: &Writing, other: &Writing) {
    let (from, to) = (one.from.max(other.from), one.to.min(other.to));
    if from >= to {
        return;
    }
    let moment = [one, other].into_iter().filter(|writing| writing.is_woken).map(|it| to - it.from).min();
    match moment.filter(|moment| *moment <= MOMENT) {
        Some(moment) => verdict.longest_moment = verdict.longest_moment.max(moment),
        None => {
            let mut hosts = [one.host.clone(), other.host.clone()];
            hosts.sort_unstable();
            let microseconds = to - from;
            verdict.findings.push(Finding::TwoAtOnce { instance, hosts, from, microseconds });
        }
    }
}

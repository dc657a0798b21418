//! What goes wrong in a group of hosts, drawn from a seed. Pure: the same seed, the same ordeal.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The last strike begins before that.
const BEGINNINGS: Duration = Duration::from_secs(45);
/// No strike lasts longer: others have taken over long before.
const LONGEST: Duration = Duration::from_secs(115);
const MOST_STRIKES: usize = 4;
/// How long a watchdog waits.
const BITES: Duration = Duration::from_secs(15);
/// How long a machine takes that a watchdog has reset.
const RESET: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// Nothing reaches the control plane.
    Line,
    /// The pool's files are not there.
    PoolGone,
    /// Whatever is done with the pool's files takes as long as this lasts.
    PoolHangs,
    /// Both [`Fault::Line`] and [`Fault::PoolGone`]: the host is alone.
    Alone,
    AgentPaused,
    AgentKilled,
    GuardPaused,
    GuardKilled,
    /// The whole host with its guests.
    HostPaused,
    /// Its power is lost.
    HostKilled,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::Line,
        Self::PoolGone,
        Self::PoolHangs,
        Self::Alone,
        Self::AgentPaused,
        Self::AgentKilled,
        Self::GuardPaused,
        Self::GuardKilled,
        Self::HostPaused,
        Self::HostKilled,
    ];

    /// Around the host, where the others are in it. There is one of a kind at a time: a guard and an agent that are both
    /// dead are what only a watchdog helps against.
    fn is_around(self) -> bool {
        matches!(self, Self::Line | Self::PoolGone | Self::PoolHangs | Self::Alone)
    }

    /// Nobody feeds the watchdog meanwhile.
    fn starves(self) -> bool {
        matches!(self, Self::GuardPaused | Self::GuardKilled | Self::HostPaused)
    }
}

/// A fault of a host, from a time after the beginning on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strike {
    pub(super) at: Duration,
    /// Which one of the group.
    pub(super) host: usize,
    pub(super) fault: Fault,
    pub(super) lasts: Duration,
}

impl Strike {
    fn ends(&self) -> Duration {
        self.at + self.lasts
    }

    fn is_beside(&self, other: &Self) -> bool {
        let apart = self.ends() <= other.at || other.ends() <= self.at;
        apart || self.host != other.host || self.fault.is_around() != other.fault.is_around()
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, host, fault, lasts } = self;
        write!(f, "{fault:?} of host {host} at {:.1} s for {:.1} s", at.as_secs_f64(), lasts.as_secs_f64())
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ordeal {
    pub(super) seed: u64,
    /// Whether the hosts have one.
    pub(super) watchdog: bool,
    pub(super) strikes: Vec<Strike>,
}

/// A fault begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) at: Duration,
    pub(super) host: usize,
    pub(super) fault: Fault,
    pub(super) begins: bool,
}

impl Ordeal {
    pub(super) fn of(seed: u64, hosts: usize) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let watchdog = dice.random_bool(0.4);
        let mut strikes: Vec<Strike> = Vec::new();
        for _ in 0..dice.random_range(1..=MOST_STRIKES) {
            let strike = Strike {
                at: milliseconds(&mut dice, Duration::ZERO, BEGINNINGS),
                host: dice.random_range(0..hosts),
                fault: Fault::ALL[dice.random_range(0..Fault::ALL.len())],
                lasts: lasting(&mut dice),
            };
            if strikes.iter().all(|other| strike.is_beside(other)) {
                strikes.push(strike);
            }
        }
        strikes.sort_by_key(|strike| strike.at);
        Self { seed, watchdog, strikes }
    }

    /// In their order. A watchdog that is not fed resets the machine.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for strike in &self.strikes {
            let Strike { at, host, fault, .. } = *strike;
            let mut step = |at, fault, begins| steps.push(Step { at, host, fault, begins });
            step(at, fault, true);
            if self.watchdog && fault.starves() && strike.lasts > BITES {
                let bitten = at + BITES;
                let back = if fault == Fault::HostPaused { strike.ends() } else { bitten + RESET };
                step(bitten, Fault::HostKilled, true);
                step(back, Fault::HostKilled, false);
            } else {
                step(strike.ends(), fault, false);
            }
        }
        steps.sort_by_key(|step| step.at);
        steps
    }
}

impl fmt::Display for Ordeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = if self.watchdog { "with" } else { "without" };
        write!(f, "seed {} {with} watchdogs", self.seed)?;
        self.strikes.iter().try_for_each(|strike| write!(f, "; {strike}"))
    }
}

/// Short, about as long as a lease, or longer than it takes until others take over.
fn lasting(dice: &mut StdRng) -> Duration {
    let seconds = Duration::from_secs;
    match dice.random_range(0..10) {
        0..3 => milliseconds(dice, seconds(1), seconds(20)),
        3..6 => milliseconds(dice, seconds(20), seconds(75)),
        _ => milliseconds(dice, seconds(75), LONGEST),
    }
}

fn milliseconds(dice: &mut StdRng, from: Duration, to: Duration) -> Duration {
    let whole = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(dice.random_range(whole(from)..whole(to)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_is_the_same_ordeal_and_many_seeds_have_every_fault() {
        let all: Vec<_> = (0..1000).map(|seed| Ordeal::of(seed, 3)).collect();
        for ordeal in &all {
            assert_eq!(Ordeal::of(ordeal.seed, 3), *ordeal);
            let strikes = &ordeal.strikes;
            assert!(!strikes.is_empty() && strikes.len() <= MOST_STRIKES);
            for (number, one) in strikes.iter().enumerate() {
                assert!(one.host < 3 && one.at < BEGINNINGS && one.lasts < LONGEST);
                assert!(strikes[number + 1..].iter().all(|other| one.is_beside(other)), "{ordeal}");
            }
        }
        let faults: BTreeSet<_> = all.iter().flat_map(|it| &it.strikes).map(|strike| strike.fault).collect();
        assert_eq!(faults, Fault::ALL.into());
        let different: BTreeSet<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(different.len(), 1000);
    }

    #[test]
    fn a_machine_that_does_not_feed_its_watchdog_is_reset() {
        let strike = |fault, lasts| Strike {
            at: Duration::from_secs(5),
            host: 1,
            fault,
            lasts: Duration::from_secs(lasts),
        };
        let steps = |watchdog, fault, lasts| {
            let ordeal = Ordeal { seed: 1, watchdog, strikes: vec![strike(fault, lasts)] };
            let steps = ordeal.steps();
            steps.iter().map(|step| (step.at.as_secs(), step.fault, step.begins)).collect::<Vec<_>>()
        };
        let paused = Fault::HostPaused;
        assert_eq!(steps(false, paused, 60), [(5, paused, true), (65, paused, false)]);
        assert_eq!(steps(true, paused, 10), [(5, paused, true), (15, paused, false)]);
        let killed = Fault::HostKilled;
        assert_eq!(steps(true, paused, 60), [(5, paused, true), (20, killed, true), (65, killed, false)]);
        let dead = Fault::GuardKilled;
        assert_eq!(steps(true, dead, 60), [(5, dead, true), (20, killed, true), (30, killed, false)]);
        assert_eq!(steps(true, Fault::AgentKilled, 60).len(), 2);
    }
}

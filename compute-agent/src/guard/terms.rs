//! Who may run at an instant. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::Name;
use serde::{Deserialize, Serialize};

use super::clock::Moment;
use super::entries::Entry;

/// What is known of this host's lease in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lease {
    /// What was last written.
    pub counter: u64,
    /// When the newest write began that has completed.
    pub renewed: Option<Moment>,
    /// The counter with which the lease was gained; another one after each lapse.
    pub term: u64,
    /// When it was gained.
    pub since: Option<Moment>,
}

/// The lease of each pool.
pub type Leases = BTreeMap<Name, Lease>;

impl Lease {
    /// A write of `counter` has completed.
    pub fn completed(&mut self, counter: u64, begun: Moment, ended: Moment, lease: Duration) {
        if self.is_lapsed(ended, lease) {
            self.term = counter;
            self.since = Some(ended);
        }
        self.counter = self.counter.max(counter);
        self.renewed = Some(self.renewed.map_or(begun, |renewed| renewed.max(begun)));
    }

    pub fn is_lapsed(&self, now: Moment, lease: Duration) -> bool {
        self.renewed.is_none_or(|renewed| now.since(renewed) >= lease)
    }
}

/// Why a guest must not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offence {
    /// No write has completed for too long.
    Lapsed,
    /// The lease lapsed since the guest was allowed to start.
    EarlierTerm,
}

/// The pool because of which this guest must not run now, if there is one.
pub fn offence<'a>(
    entry: &'a Entry,
    leases: &Leases,
    now: Moment,
    lease: Duration,
) -> Option<(&'a Name, Offence)> {
    entry.pools.iter().find_map(|(pool, held)| {
        let known = leases.get(pool).copied().unwrap_or_default();
        if known.is_lapsed(now, lease) {
            Some((pool, Offence::Lapsed))
        } else if known.term != held.term {
            Some((pool, Offence::EarlierTerm))
        } else {
            None
        }
    })
}

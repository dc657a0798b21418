//! Which differences count: those that two looks in a row have seen.

use std::collections::BTreeSet;

use protocol::agent::{DriftSubject, HostDifference};

use super::Looked;

/// What the last look has seen, and what counted then.
#[derive(Debug, Default)]
pub(super) struct Looks {
    last: Option<BTreeSet<HostDifference>>,
    counted: BTreeSet<HostDifference>,
}

impl Looks {
    /// What counts now, in order; `None` after the first look, which knows of no other.
    ///
    /// Of an instance that something is being done to, nothing new counts. What counted before still does, until a look finds
    /// it at rest: an agent that tries in vain again and again must not make it young each time.
    pub(super) fn next(&mut self, looked: Looked) -> Option<Vec<HostDifference>> {
        let is_busy = |one: &HostDifference| match one.about {
            DriftSubject::Instance(id) => looked.busy.contains(&id),
            _ => false,
        };
        let mut seen: BTreeSet<_> = looked.found.into_iter().filter(|one| !is_busy(one)).collect();
        seen.extend(std::mem::take(&mut self.counted).into_iter().filter(is_busy));
        let before = self.last.replace(seen.clone())?;
        self.counted = seen.into_iter().filter(|one| before.contains(one)).collect();
        Some(self.counted.iter().cloned().collect())
    }
}

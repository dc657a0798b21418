//! What nft refuses: pieces of the document whose rules spoil the transaction of the whole host.
//!
//! They are found by leaving out halves of what is suspected, with `nft --check`, and are left out until they change, or
//! for some minutes. A port that is left out passes nothing, as does every port of a group that is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::agent::{HostNetwork, Port, SecurityGroup};
use protocol::{PortId, SecurityGroupId};

use super::PacketsError;

/// After which nft is asked again.
const FORGET: Duration = Duration::from_secs(300);
/// For one search. What has not been tried by then is left out, and tried by the next one.
const SEARCH: Duration = Duration::from_secs(60);
const UNTRIED: &str = "nft refuses something, and there was no time to find out what";

/// What rules are not made for, and why.
#[derive(Debug, Clone, Default)]
pub(super) struct LeftOut {
    pub(super) groups: BTreeMap<SecurityGroupId, String>,
    pub(super) ports: BTreeMap<PortId, String>,
}

/// What can be left out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Group(SecurityGroup),
    Port(Port),
}

#[derive(Debug)]
struct Refusal {
    piece: Piece,
    detail: String,
    since: Instant,
}

/// Refusals of earlier transactions.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Vec<Refusal>>>);

impl LeftOut {
    fn add(&mut self, piece: &Piece, detail: &str) {
        match piece {
            Piece::Group(group) => self.groups.insert(group.id, detail.to_owned()),
            Piece::Port(port) => self.ports.insert(port.id, detail.to_owned()),
        };
    }

    fn without(&self, pieces: &[Piece]) -> Self {
        let mut rest = self.clone();
        for piece in pieces {
            match piece {
                Piece::Group(group) => rest.groups.remove(&group.id),
                Piece::Port(port) => rest.ports.remove(&port.id),
            };
        }
        rest
    }
}

impl Memory {
    /// What was refused and is in the document as it was then.
    pub(super) fn recall(&self, want: &HostNetwork) -> LeftOut {
        let mut left_out = LeftOut::default();
        let mut refusals = self.lock();
        refusals.retain(|refusal| refusal.since.elapsed() < FORGET);
        for refusal in refusals.iter() {
            let is_there = match &refusal.piece {
                Piece::Group(group) => want.security_groups.contains(group),
                Piece::Port(port) => want.networks.iter().any(|network| network.ports.contains(port)),
            };
            if is_there {
                left_out.add(&refusal.piece, &refusal.detail);
            }
        }
        left_out
    }

    pub(super) fn remember(&self, (piece, detail): (Piece, String)) {
        self.lock().push(Refusal { piece, detail, since: Instant::now() });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A search for what has to be left out. At first all is; [`Search::trial`] says what to check next.
#[derive(Debug)]
pub(super) struct Search {
    /// Groups, then ports.
    pieces: Vec<Piece>,
    /// Ranges of pieces that have not been tried alone; the last one is next.
    suspected: Vec<Range<usize>>,
    left_out: LeftOut,
    start: Instant,
}

impl Search {
    pub(super) fn new(want: &HostNetwork, known: &LeftOut) -> Self {
        let groups = want.security_groups.iter().filter(|group| !known.groups.contains_key(&group.id));
        let ports = want.networks.iter().flat_map(|network| &network.ports);
        let ports = ports.filter(|port| !known.ports.contains_key(&port.id));
        let mut pieces: Vec<_> = groups.cloned().map(Piece::Group).collect();
        let first_port = pieces.len();
        pieces.extend(ports.cloned().map(Piece::Port));
        let mut left_out = known.clone();
        for piece in &pieces {
            left_out.add(piece, UNTRIED);
        }
        // Groups first: rules of ports lead to them.
        let mut suspected = vec![first_port..pieces.len(), 0..first_port];
        suspected.retain(|range| !range.is_empty());
        Self { pieces, suspected, left_out, start: Instant::now() }
    }

    /// What has to be left out, as far as is known.
    pub(super) fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// What to leave out next, to see whether that is enough; `None` at the end.
    pub(super) fn trial(&self) -> Option<LeftOut> {
        let suspects = self.suspected.last().filter(|_| self.start.elapsed() < SEARCH)?;
        Some(self.left_out.without(&self.pieces[suspects.clone()]))
    }

    /// Takes what nft said to the trial. Returns what was found to be refused, and why.
    pub(super) fn learn(&mut self, refusal: Option<String>) -> Option<(Piece, String)> {
        let suspects = self.suspected.pop()?;
        match (refusal, suspects.len()) {
            (None, _) => self.left_out = self.left_out.without(&self.pieces[suspects]),
            (Some(detail), 1) => {
                let piece = &self.pieces[suspects.start];
                self.left_out.add(piece, &detail);
                return Some((piece.clone(), detail));
            }
            (Some(_), len) => {
                let middle = suspects.start + len / 2;
                self.suspected.extend([middle..suspects.end, suspects.start..middle]);
            }
        }
        None
    }
}

/// What nft complains of, if it refuses; any other error stands for itself.
pub(super) fn reason(checked: Result<(), PacketsError>) -> Result<Option<String>, PacketsError> {
    match checked {
        Ok(()) => Ok(None),
        Err(PacketsError::Refused { detail, .. }) => Ok(Some(format!("nft refuses its rules: {detail}"))),
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(groups: u128) -> HostNetwork {
        let group = |number| SecurityGroup { id: uuid::Uuid::from_u128(number).into(), rules: Vec::new() };
        HostNetwork { security_groups: (0..groups).map(group).collect(), ..HostNetwork::default() }
    }

    #[test]
    fn few_trials_find_what_is_refused_and_nothing_else() {
        let want = document(300);
        let bad = [7, 8, 290].map(|number| want.security_groups[number].id);
        let mut search = Search::new(&want, &LeftOut::default());
        assert_eq!(search.left_out().groups.len(), 300);
        let mut found = Vec::new();
        let mut trials = 0;
        while let Some(trial) = search.trial() {
            let is_refused = bad.iter().any(|id| !trial.groups.contains_key(id));
            found.extend(search.learn(is_refused.then(|| "no".to_owned())).map(|(piece, _)| piece));
            trials += 1;
        }
        assert!(trials < 50, "{trials}");
        assert_eq!(search.left_out().groups.keys().copied().collect::<Vec<_>>(), bad);
        assert_eq!(found, [7, 8, 290].map(|number| Piece::Group(want.security_groups[number].clone())));
    }

    #[test]
    fn a_refusal_is_remembered_until_its_piece_changes() {
        let mut want = document(2);
        let memory = Memory::default();
        memory.remember((Piece::Group(want.security_groups[1].clone()), "no".to_owned()));
        assert_eq!(memory.recall(&want).groups.len(), 1);
        want.security_groups[1].rules.push(protocol::agent::SecurityGroupRule {
            direction: protocol::agent::Direction::Egress,
            protocol: protocol::agent::RuleProtocol::Any,
            remote: protocol::agent::Remote::Cidr { cidr: "::/0".parse().unwrap() },
        });
        assert_eq!(memory.recall(&want).groups.len(), 0);
    }
}

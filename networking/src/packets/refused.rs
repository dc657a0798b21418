//! What nft refuses: pieces of the document whose rules spoil the transaction of the whole host.
//!
//! They are found by leaving out halves of what is suspected, with `nft --check`, and are left out until they change, or
//! for some minutes. A port that is left out passes nothing, as does every port of a group that is.

use std::collections::BTreeMap;
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
enum Piece {
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

    /// Finds what has to be left out beside `known`, so that `check` passes. `refusal` is its error if that cannot be had.
    pub(super) async fn search(
        &self,
        want: &HostNetwork,
        known: &LeftOut,
        refusal: PacketsError,
        check: impl AsyncFn(&LeftOut) -> Result<(), PacketsError>,
    ) -> Result<LeftOut, PacketsError> {
        let start = Instant::now();
        let (groups, ports) = pieces(want, known);
        let mut left_out = known.clone();
        for piece in groups.iter().chain(&ports) {
            left_out.add(piece, UNTRIED);
        }
        if is_refused(check(&left_out).await)?.is_some() {
            return Err(refusal);
        }
        // Groups first: rules of ports lead to them.
        let mut suspected = vec![ports.as_slice(), groups.as_slice()];
        while let Some(suspects) = suspected.pop().filter(|_| start.elapsed() < SEARCH) {
            let trial = left_out.without(suspects);
            match (is_refused(check(&trial).await)?, suspects) {
                (None, _) => left_out = trial,
                (Some(detail), [piece]) => {
                    left_out.add(piece, &detail);
                    self.lock().push(Refusal { piece: piece.clone(), detail, since: Instant::now() });
                }
                (Some(_), _) => {
                    let (first, second) = suspects.split_at(suspects.len() / 2);
                    suspected.extend([second, first]);
                }
            }
        }
        Ok(left_out)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What nft complains of, if it refuses; any other error ends the search.
fn is_refused(checked: Result<(), PacketsError>) -> Result<Option<String>, PacketsError> {
    match checked {
        Ok(()) => Ok(None),
        Err(PacketsError::Refused { detail, .. }) => Ok(Some(format!("nft refuses its rules: {detail}"))),
        Err(other) => Err(other),
    }
}

/// Groups, and ports, that have not been left out.
fn pieces(want: &HostNetwork, known: &LeftOut) -> (Vec<Piece>, Vec<Piece>) {
    let groups = want.security_groups.iter().filter(|group| !known.groups.contains_key(&group.id));
    let ports = want.networks.iter().flat_map(|network| &network.ports);
    let ports = ports.filter(|port| !known.ports.contains_key(&port.id));
    (groups.cloned().map(Piece::Group).collect(), ports.cloned().map(Piece::Port).collect())
}

//! Guests that come and go, in a simulation: one byte is the guest, and one back says that it has come.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use protocol::InstanceId;
use protocol::agent::PauseReason;

use super::{Call, Card, Simulated, seen};
use crate::hypervisor::{Domain, DomainSpec, DomainState, EndCause, Event, HypervisorError, Transfer};

const TOTAL: u64 = 1 << 20;
const GUEST: u8 = 7;

impl Simulated {
    pub(super) fn begin_waiting(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        let id = spec.id;
        let mut state = self.reached()?;
        if state.domains.contains_key(&id) {
            return Err(HypervisorError::Exists(id));
        }
        state.fail_if_asked(Call::Create)?;
        let domain = Domain {
            id,
            generation: spec.generation,
            boot: spec.boot,
            state: DomainState::Paused(PauseReason::Suspended),
            cards: spec.nics.iter().map(Card::of).collect(),
            volumes: spec.disks.iter().map(seen).collect(),
        };
        state.domains.insert(id, domain);
        state.transfers.insert(id, Transfer::Waiting);
        Ok(())
    }

    pub(super) fn take(&self, id: InstanceId, way: UnixStream) -> Result<(), HypervisorError> {
        let state = self.reached()?;
        if state.transfers.get(&id) != Some(&Transfer::Waiting) {
            return Err(HypervisorError::NotFound(id));
        }
        drop(state);
        let this = self.clone();
        std::thread::spawn(move || match receive(way) {
            Ok(mut way) => {
                this.lock().transfers.insert(id, Transfer::Idle);
                let _ = way.write_all(&[GUEST]);
            }
            Err(_) => drop(this.end(id, EndCause::Crashed)),
        });
        Ok(())
    }

    pub(super) fn give(&self, id: InstanceId, way: UnixStream) -> Result<(), HypervisorError> {
        let mut state = self.reached()?;
        if !state.domains.contains_key(&id) {
            return Err(HypervisorError::NotFound(id));
        }
        state.transfers.insert(id, Transfer::Sending { done_bytes: 0, total_bytes: TOTAL });
        drop(state);
        let this = self.clone();
        std::thread::spawn(move || {
            let sent = send(way).is_ok();
            let mut state = this.lock();
            let still = matches!(state.transfers.get(&id), Some(Transfer::Sending { .. }));
            let outcome = if sent && still { Transfer::Sent } else { Transfer::Idle };
            state.transfers.insert(id, outcome);
            if let (Transfer::Sent, Some(domain)) = (outcome, state.domains.get_mut(&id)) {
                domain.state = DomainState::Paused(PauseReason::Suspended);
            }
            drop(state);
            this.emit(Event::Changed { id });
        });
        Ok(())
    }
}

fn receive(mut way: UnixStream) -> io::Result<UnixStream> {
    let mut guest = [0];
    way.read_exact(&mut guest)?;
    Ok(way)
}

fn send(mut way: UnixStream) -> io::Result<()> {
    way.write_all(&[GUEST])?;
    let mut arrived = [0];
    way.read_exact(&mut arrived)
}

//! Guests that come and go, in a simulation: one byte is the guest, and one back says that it has come.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use protocol::InstanceId;
use protocol::agent::PauseReason;

use super::{Call, Card, Simulated, State, seen};
use crate::hypervisor::{Domain, DomainSpec, DomainState, EndCause, Event, HypervisorError, Transfer};

pub(super) const TOTAL: u64 = 1 << 20;
pub(super) const GUEST: u8 = 7;

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
                let mut state = this.lock();
                // It may have ended meanwhile, with its host's power or alone: then nobody takes anything over.
                let waits = state.transfers.get(&id) == Some(&Transfer::Waiting);
                if !(waits && state.domains.contains_key(&id)) {
                    return;
                }
                if state.fail_if_asked(Call::Arrive).is_err() {
                    drop(state);
                    // It says nothing until the other side has gone.
                    let _ = way.read(&mut [0]);
                    this.end(id, EndCause::Crashed);
                    return;
                }
                // It would find the disks as they were before its last writes.
                let is_torn = state.open_disks.get(&id).is_some_and(|unfinished| *unfinished > 0);
                assert!(!is_torn, "simulated: a guest has come before its disks");
                state.transfers.insert(id, Transfer::Idle);
                drop(state);
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
        if state.mirrors.contains_key(&id) {
            state.transfers.insert(id, Transfer::Switching);
            if let Some(domain) = state.domains.get_mut(&id) {
                domain.state = DomainState::Paused(PauseReason::Suspended);
            }
            state.switching.insert(id, way);
            return Ok(());
        }
        state.transfers.insert(id, Transfer::Sending { done_bytes: 0, total_bytes: TOTAL });
        drop(state);
        self.send_all(id, way);
        Ok(())
    }

    pub(super) fn send_all(&self, id: InstanceId, way: UnixStream) {
        let this = self.clone();
        std::thread::spawn(move || {
            let way = this.switch_over(id, way);
            let sent = way.and_then(|mut way| way.read_exact(&mut [0])).is_ok();
            let mut state = this.lock();
            if state.is_sending(id) {
                state.transfers.insert(id, if sent { Transfer::Sent } else { Transfer::Idle });
                if !sent {
                    state.go_on(id);
                }
            }
            drop(state);
            this.emit(Event::Changed { id });
        });
    }

    /// The guest stands still for what is left of it.
    fn switch_over(&self, id: InstanceId, mut way: UnixStream) -> io::Result<UnixStream> {
        let mut state = self.lock();
        if let (true, Some(domain)) = (state.is_sending(id), state.domains.get_mut(&id)) {
            domain.state = DomainState::Paused(PauseReason::Suspended);
        }
        drop(state);
        way.write_all(&[GUEST])?;
        Ok(way)
    }
}

impl State {
    fn is_sending(&self, id: InstanceId) -> bool {
        matches!(self.transfers.get(&id), Some(Transfer::Sending { .. }))
    }

    pub(super) fn go_on(&mut self, id: InstanceId) {
        if let Some(domain) = self.domains.get_mut(&id) {
            domain.state = DomainState::Running;
        }
    }

    pub(super) fn cancel_sending(&mut self, id: InstanceId) {
        if self.switching.remove(&id).is_some() || self.is_sending(id) {
            self.transfers.insert(id, Transfer::Idle);
            self.go_on(id);
        }
    }
}

fn receive(mut way: UnixStream) -> io::Result<UnixStream> {
    let mut guest = [0];
    way.read_exact(&mut guest)?;
    Ok(way)
}

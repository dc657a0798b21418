//! Disks of guests that come and go, in a simulation: one byte is what there is of a disk, one is the rest of it, and each is
//! answered by one when it is on the disk there.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::{MsgFlags, recv};
use protocol::{InstanceId, VolumeId};

use super::migrating::{GUEST, TOTAL};
use super::{Call, Simulated, State, refused};
use crate::hypervisor::{Event, HypervisorError, Transfer};

impl Simulated {
    pub(super) fn open(
        &self,
        id: InstanceId,
        disks: usize,
        door: &UnixListener,
    ) -> Result<(), HypervisorError> {
        let mut state = self.reached()?;
        if state.transfers.get(&id) != Some(&Transfer::Waiting) {
            return Err(HypervisorError::NotFound(id));
        }
        state.open_disks.insert(id, disks);
        drop(state);
        for _ in 0..disks {
            let way = door.accept().map_err(|_| refused(Call::WriteDisk, "simulated: nobody comes"))?.0;
            let this = self.clone();
            std::thread::spawn(move || this.be_written_to(id, way));
        }
        Ok(())
    }

    fn be_written_to(&self, id: InstanceId, mut way: UnixStream) -> io::Result<()> {
        way.read_exact(&mut [0])?;
        if self.lock().fail_if_asked(Call::WriteDisk).is_err() {
            return Ok(());
        }
        if self.lock().fail_if_asked(Call::HoldDisk).is_err() {
            // It says nothing until the other side has gone.
            return way.read(&mut [0]).map(drop);
        }
        way.write_all(&[GUEST])?;
        way.read_exact(&mut [0])?;
        if let Some(unfinished) = self.lock().open_disks.get_mut(&id) {
            *unfinished -= 1;
        }
        way.write_all(&[GUEST])
    }

    pub(super) fn begin_mirrors(
        &self,
        id: InstanceId,
        ways: Vec<(VolumeId, UnixStream)>,
    ) -> Result<(), HypervisorError> {
        let mut state = self.reached()?;
        state.fail_if_asked(Call::Mirror)?;
        let domain = state.domains.get(&id).ok_or(HypervisorError::NotFound(id))?;
        if ways.iter().any(|(volume, _)| domain.volume(*volume).is_none()) {
            return Err(refused(Call::Mirror, "simulated: the guest has no such disk"));
        }
        state.transfers.insert(id, Transfer::Mirroring { done_bytes: 0, total_bytes: TOTAL });
        drop(state);
        let this = self.clone();
        std::thread::spawn(move || {
            let mut ways: Vec<_> = ways.into_iter().map(|(_, way)| way).collect();
            let is_there = ways.iter_mut().try_for_each(exchange).is_ok();
            let mut state = this.lock();
            if matches!(state.transfers.get(&id), Some(Transfer::Mirroring { .. })) {
                state.transfers.insert(id, if is_there { Transfer::Mirrored } else { Transfer::Idle });
                if is_there {
                    state.mirrors.insert(id, ways);
                }
            }
            drop(state);
            this.emit(Event::Changed { id });
        });
        Ok(())
    }

    pub(super) async fn finish_mirrors(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let mut ways = {
            let mut state = self.reached()?;
            state.fail_if_asked(Call::FinishMirrors)?;
            state.mirrors.remove(&id).ok_or(HypervisorError::NotFound(id))?
        };
        let finished = tokio::task::spawn_blocking(move || ways.iter_mut().try_for_each(exchange)).await;
        if !matches!(finished, Ok(Ok(()))) {
            return Err(refused(Call::FinishMirrors, "simulated: a mirror has broken off"));
        }
        let mut state = self.lock();
        let way = state.switching.remove(&id).ok_or(HypervisorError::NotFound(id))?;
        state.transfers.insert(id, Transfer::Sending { done_bytes: 0, total_bytes: TOTAL });
        drop(state);
        self.send_all(id, way);
        Ok(())
    }
}

impl State {
    pub(super) fn transfer(&mut self, id: InstanceId) -> Transfer {
        let transfer = self.transfers.get(&id).copied().unwrap_or(Transfer::Idle);
        let is_broken = || self.mirrors.get(&id).into_iter().flatten().any(has_ended);
        if transfer == Transfer::Mirrored && is_broken() {
            self.end_mirrors(id);
            return Transfer::Idle;
        }
        transfer
    }

    pub(super) fn end_mirrors(&mut self, id: InstanceId) {
        self.mirrors.remove(&id);
        if matches!(self.transfers.get(&id), Some(Transfer::Mirroring { .. } | Transfer::Mirrored)) {
            self.transfers.insert(id, Transfer::Idle);
        }
    }
}

fn exchange(way: &mut UnixStream) -> io::Result<()> {
    way.write_all(&[GUEST])?;
    way.read_exact(&mut [0])
}

fn has_ended(way: &UnixStream) -> bool {
    let looked = recv(way.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
    !matches!(looked, Err(nix::errno::Errno::EAGAIN))
}

//! Renewing the lease in one pool. A thread per pool: a file system that hangs holds up its own writer alone.

use std::io;
use std::thread;

use protocol::HostId;
use uuid::Uuid;

use super::Times;
use super::clock::Moment;
use super::lease::Place;
use super::machine::SharedMachine;
use super::state::Shared;

/// Enough for a file of one block.
const STACK: usize = 256 * 1024;

pub(super) struct Writer {
    pub(super) place: Place,
    pub(super) host: HostId,
    pub(super) state: Shared,
    pub(super) machine: SharedMachine,
    pub(super) times: Times,
}

impl Writer {
    pub(super) fn start(self) -> io::Result<()> {
        let name = format!("lease {}", self.place.name);
        thread::Builder::new().name(name).stack_size(STACK).spawn(move || self.run()).map(drop)
    }

    fn run(self) {
        let mut counter = None;
        // The disks of guests are in the pool that was there first.
        let mut identity = None;
        while !self.state.is_over() {
            let begun = self.machine.now();
            let written = self.renew(&mut identity, &mut counter, begun);
            let pause = if written { self.times.write } else { self.times.retry };
            thread::sleep(pause.saturating_sub(self.machine.now().since(begun)));
        }
    }

    fn renew(&self, identity: &mut Option<Uuid>, known: &mut Option<u64>, begun: Moment) -> bool {
        let pool = &self.place.name;
        let reached = self.machine.reach(pool);
        let written = reached.and_then(|()| self.next(*known)).and_then(|counter| {
            let identity = match *identity {
                Some(identity) => identity,
                None => *identity.insert(self.place.identity()?),
            };
            self.place.write(identity, self.host, counter)?;
            Ok(counter)
        });
        let ended = self.machine.now();
        match written {
            Ok(counter) => {
                *known = Some(counter);
                let mut state = self.state.lock();
                let lease = state.leases.entry(pool.clone()).or_default();
                let term = lease.term;
                lease.completed(counter, begun, ended, self.times.lease);
                let gained = lease.term != term;
                let had_failed = state.faults.remove(pool).is_some();
                drop(state);
                if gained {
                    tracing::info!(%pool, counter, "the lease is held");
                } else if had_failed {
                    tracing::info!(%pool, counter, "the lease can be renewed again");
                }
                true
            }
            Err(error) => {
                let fault = error.to_string();
                let before = self.state.lock().faults.insert(pool.clone(), fault.clone());
                if before.as_ref() != Some(&fault) {
                    tracing::warn!(%pool, %error, "the lease cannot be renewed");
                }
                false
            }
        }
    }

    /// Grows over restarts, also where only one of the two is left that know it.
    fn next(&self, known: Option<u64>) -> io::Result<u64> {
        let last = match known {
            Some(known) => known,
            None => {
                let on_disk = self.place.read(self.host)?.map_or(0, |record| record.counter);
                let told = self.state.lock().leases.get(&self.place.name).map_or(0, |lease| lease.counter);
                on_disk.max(told)
            }
        };
        last.checked_add(1).ok_or_else(|| io::Error::other("the counter is at its end"))
    }
}

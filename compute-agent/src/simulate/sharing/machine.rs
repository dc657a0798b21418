//! A simulated machine as a guard, or an agent, sees it.

use std::io;
use std::sync::Arc;

use protocol::{InstanceId, Name};

use super::gate::Gate;
use super::pools::PoolWay;
use crate::guard::clock::{BootClock, KernelClock, Moment};
use crate::guard::machine::{Found, Machine, Process};
use crate::hypervisor::simulated::Simulated;

/// See the module. INVARIANT: all that the threads of a guard do, they do between two looks at the clock, so that holding
/// them up there holds up everything.
#[derive(Debug)]
pub(super) struct View {
    pub(super) gate: Arc<Gate>,
    pub(super) hypervisor: Simulated,
    pub(super) way: Arc<PoolWay>,
    /// Whether guests die that are killed. Without it there is no guard worth its name, and the checker has to see that.
    pub(super) kills: bool,
}

impl BootClock for View {
    /// Who is held up may have looked at the clock just before, or looks at it just after.
    fn now(&self) -> Moment {
        let before = KernelClock.now();
        if self.gate.pass() && rand::random() { before } else { KernelClock.now() }
    }
}

impl Machine for View {
    fn find(&self, is_asked_for: &dyn Fn(InstanceId) -> bool, known: &[i32]) -> io::Result<Found> {
        let mut found = Found::new();
        for (id, pid) in self.hypervisor.processes() {
            if is_asked_for(id) && !known.contains(&pid) {
                let (hypervisor, kills) = (self.hypervisor.clone(), self.kills);
                found.entry(id).or_default().push(Arc::new(Guest { id, pid, hypervisor, kills }));
            }
        }
        Ok(found)
    }

    fn reach(&self, _: &Name) -> io::Result<()> {
        self.way.take()
    }
}

#[derive(Debug)]
struct Guest {
    id: InstanceId,
    pid: i32,
    hypervisor: Simulated,
    kills: bool,
}

impl Process for Guest {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn is_alive(&self) -> bool {
        self.hypervisor.lives(self.id, self.pid)
    }

    fn kill(&self) -> io::Result<()> {
        if self.kills {
            self.hypervisor.kill(self.id, self.pid);
        }
        Ok(())
    }
}

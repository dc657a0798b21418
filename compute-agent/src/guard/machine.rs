//! What a guard has under it: the machine's time, the guests that run on it, and the way to its shared pools.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use protocol::{InstanceId, Name};

use super::clock::{BootClock, KernelClock, Moment};
use super::processes;

/// The guests that were found, each with its processes.
pub(crate) type Found = BTreeMap<InstanceId, Vec<Arc<dyn Process>>>;

/// A process that a guest is, or a part of it.
pub(crate) trait Process: fmt::Debug + Send + Sync {
    fn pid(&self) -> i32;

    /// Whether any thread of it may still run.
    fn is_alive(&self) -> bool;

    fn kill(&self) -> io::Result<()>;
}

/// See the module.
pub(crate) trait Machine: BootClock {
    /// The living guests of instances that `is_asked_for`, without the processes that are `known`.
    fn find(&self, is_asked_for: &dyn Fn(InstanceId) -> bool, known: &[i32]) -> io::Result<Found>;

    /// Asked before each use of files in a shared pool: fails when they are known not to be there, and does not return while
    /// they hang.
    fn reach(&self, pool: &Name) -> io::Result<()>;
}

/// Shared by all threads of a guard.
pub(crate) type SharedMachine = Arc<dyn Machine>;

/// The one that this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ThisMachine;

impl BootClock for ThisMachine {
    fn now(&self) -> Moment {
        KernelClock.now()
    }
}

impl Machine for ThisMachine {
    fn find(&self, is_asked_for: &dyn Fn(InstanceId) -> bool, known: &[i32]) -> io::Result<Found> {
        processes::find(is_asked_for, known)
    }

    /// The file system says it.
    fn reach(&self, _: &Name) -> io::Result<()> {
        Ok(())
    }
}

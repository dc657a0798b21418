//! What lets the guard work on a machine that is short of everything. Each as far as it is permitted.

use std::fs;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, setpriority_process, setrlimit};

/// The highest of `nice(2)`.
const PRIORITY: i32 = -20;
/// Never the victim when memory runs out (`proc_pid_oom_score_adj(5)`).
const NEVER: &str = "-1000";

/// For this thread and all that it starts.
pub(super) fn harden() {
    if let Err(error) = setpriority_process(None, PRIORITY) {
        tracing::warn!(%error, "no higher priority: on an overloaded machine the guard may be late");
    }
    if let Err(error) = fs::write("/proc/self/oom_score_adj", NEVER) {
        tracing::warn!(%error, "the guard may be chosen when memory runs out");
    }
    // With a limit, what is locked later would fail instead of waiting for the disk.
    let unlimited = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    if let Err(error) = unlimited.and_then(|()| mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)) {
        tracing::warn!(%error, "the guard's memory is not locked: without its disk it may stand still");
    }
}

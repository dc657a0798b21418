//! A process that cannot be mistaken for another one.
//!
//! Process ids are used again. A pid together with the time its process started (field 22 of
//! `/proc/PID/stat`, in clock ticks since boot) is unique until the machine reboots, so a pid read from a
//! file can be signalled without the risk of hitting a stranger.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    pub start_ticks: u64,
}

impl ProcessId {
    /// The process that has this pid now; `None` when there is none, or only a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, start_ticks) = parse_stat(&stat)?;
        (!matches!(state, 'Z' | 'X')).then_some(Self { pid, start_ticks })
    }

    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal, if the process still lives.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("send {signal} to process {}", self.pid)),
        }
    }

    /// Waits until the process is gone; false when it is still there after `limit`.
    pub fn wait_gone(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Asks the process to end, and kills it when it has not after `grace`. True when it went by itself.
    pub fn end(self, signal: Signal, grace: Duration) -> Result<bool> {
        self.signal(signal)?;
        if self.wait_gone(grace) {
            return Ok(true);
        }
        self.signal(Signal::SIGKILL)?;
        anyhow::ensure!(self.wait_gone(Duration::from_secs(5)), "process {} survives SIGKILL", self.pid);
        Ok(false)
    }

    /// The command line, words separated by spaces; empty when the process is gone.
    pub fn command_line(self) -> String {
        let words = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ")
    }
}

/// Every process of this machine.
pub(crate) fn all() -> Vec<ProcessId> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| ProcessId::of(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// State and start time of `proc_pid_stat(5)`. The second field is the name in parentheses and may hold
/// anything, so the fields are counted from the last closing one.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b) c) S 1 42 42 0 -1 4194560 1 0 0 0 3 4 0 0 20 0 1 0 987654 1000 10 184467";
        assert_eq!(parse_stat(stat), Some(('S', 987_654)));
    }

    #[test]
    fn a_dead_process_is_not_its_successor() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id().cast_signed()).unwrap();
        assert!(id.is_alive());
        assert!(!ProcessId { start_ticks: id.start_ticks + 1, ..id }.is_alive());
        child.kill().unwrap();
        assert!(id.wait_gone(Duration::from_secs(5)), "a zombie counts as gone");
        child.wait().unwrap();
        id.signal(Signal::SIGKILL).unwrap();
    }
}

//! The server process: found, started, watched, stopped.
//!
//! It outlives us when we are killed, so it may be a child of ours or one that an earlier process left
//! behind. `postmaster.pid` in the data directory tells which process it is and how far it has come.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::account::Account;
use super::binaries::Binaries;
use super::error::{ClusterError, tells_of_a_full_disk};
use super::layout::Layout;

const POLL_STARTING: Duration = Duration::from_millis(10);
const POLL_ADOPTED: Duration = Duration::from_millis(200);
const REPORT_STARTING: Duration = Duration::from_secs(5);

/// A fast shutdown ends every session and writes a checkpoint.
const FAST_SHUTDOWN: Duration = Duration::from_secs(30);
/// An immediate one writes nothing and leaves the rest to recovery at the next start.
const IMMEDIATE_SHUTDOWN: Duration = Duration::from_secs(5);

/// Only a parent learns how its child ended.
const UNKNOWN_STATUS: &str = "an unknown status";

#[derive(Debug)]
pub(super) struct Postmaster {
    pid: Pid,
    /// `None` when an earlier process of ours started it.
    child: Option<Child>,
    data: Utf8PathBuf,
    /// How long the log was when it started.
    log_start: u64,
}

impl Postmaster {
    /// The live server of this data directory, if there is one.
    pub(super) fn find(layout: &Layout) -> Option<Self> {
        let data = layout.data();
        let pid = PidFile::read(&data)?.pid;
        serves(pid, &data).then(|| Self { pid, child: None, data, log_start: layout.log_len() })
    }

    /// Starts a server. It is not ready yet.
    pub(super) fn spawn(
        layout: &Layout,
        account: &Account,
        binaries: &Binaries,
    ) -> Result<Self, ClusterError> {
        layout.trim_log();
        let log_start = layout.log_len();
        let log = layout.open_log()?;
        let output = log.try_clone().map_err(ClusterError::io("share the log in", &layout.root))?;
        let program = binaries.program("postgres");
        let data = layout.data();
        let child = account
            .command(&program)
            .arg("-D")
            .arg(&data)
            .arg("-c")
            .arg(format!("config_file={}", layout.conf().join("postgresql.conf")))
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(log))
            .current_dir(&data)
            .spawn()
            .map_err(ClusterError::io("run", &program))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(|| ClusterError::Exited {
            status: UNKNOWN_STATUS.to_owned(),
            output: layout.log_after(log_start),
        })?;
        let pid = Pid::from_raw(pid);
        Ok(Self { pid, child: Some(child), data, log_start })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Gives up the server, which runs on.
    #[cfg(test)]
    pub(super) fn into_child(self) -> Option<Child> {
        self.child
    }

    pub(super) fn is_adopted(&self) -> bool {
        self.child.is_none()
    }

    /// Waits until it serves. Recovery after a crash takes as long as it takes, so there is no deadline
    /// while the process lives.
    pub(super) async fn ready(&mut self, layout: &Layout) -> Result<(), ClusterError> {
        let mut report_at = Instant::now() + REPORT_STARTING;
        loop {
            if let Some(status) = self.ended()? {
                return Err(self.explain(status, layout));
            }
            if PidFile::read(&self.data).is_some_and(|file| file.pid == self.pid && file.ready) {
                return Ok(());
            }
            if Instant::now() >= report_at {
                tracing::info!(pid = self.pid(), "waiting for PostgreSQL to finish its recovery");
                report_at += REPORT_STARTING;
            }
            sleep(POLL_STARTING).await;
        }
    }

    /// Returns when the process has ended.
    pub(super) async fn exited(&mut self) -> Result<(), ClusterError> {
        if let Some(child) = &mut self.child {
            child.wait().await.map_err(ClusterError::io("wait for the server of", &self.data))?;
            return Ok(());
        }
        while serves(self.pid, &self.data) {
            sleep(POLL_ADOPTED).await;
        }
        Ok(())
    }

    /// Makes it read its configuration again.
    pub(super) fn reload(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// Stops it: orderly if it can, at once if it cannot.
    pub(super) async fn stop(&mut self) -> Result<(), ClusterError> {
        for (signal, patience) in [(Signal::SIGINT, FAST_SHUTDOWN), (Signal::SIGQUIT, IMMEDIATE_SHUTDOWN)] {
            if self.ended()?.is_some() {
                return Ok(());
            }
            self.signal(signal);
            if let Ok(ended) = timeout(patience, self.exited()).await {
                return ended;
            }
            tracing::warn!(pid = self.pid(), %signal, "PostgreSQL did not stop in time");
        }
        Err(ClusterError::WontStop { pid: self.pid() })
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = kill(self.pid, signal) {
            tracing::debug!(pid = self.pid(), %signal, %error, "cannot signal PostgreSQL");
        }
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> Result<Option<String>, ClusterError> {
        match &mut self.child {
            Some(child) => {
                let status =
                    child.try_wait().map_err(ClusterError::io("look at the server of", &self.data))?;
                Ok(status.map(|status| status.to_string()))
            }
            None if serves(self.pid, &self.data) => Ok(None),
            None => Ok(Some(UNKNOWN_STATUS.to_owned())),
        }
    }

    fn explain(&self, status: String, layout: &Layout) -> ClusterError {
        let output = layout.log_after(self.log_start);
        if tells_of_a_full_disk(&output) {
            return ClusterError::DiskFull { directory: self.data.clone() };
        }
        ClusterError::Exited { status, output }
    }
}

/// Whether a process is alive and is the server of this data directory. A process id alone proves
/// nothing: it may have been used again since the file that names it was written.
fn serves(pid: Pid, data: &Utf8Path) -> bool {
    let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
    // The kernel shows no working directory for a process that has ended and was not waited for.
    cwd.is_ok_and(|cwd| cwd == data.as_std_path())
}

/// What we need of `postmaster.pid`: line 1 is the process, line 8 the state.
struct PidFile {
    pid: Pid,
    ready: bool,
}

impl PidFile {
    fn read(data: &Utf8Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(data.join("postmaster.pid")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok().filter(|pid| *pid > 1)?;
        let ready = lines.nth(6).is_some_and(|state| state.trim() == "ready");
        Some(Self { pid: Pid::from_raw(pid), ready })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_tells_the_process_and_its_state() {
        let file = |state: &str| format!("4711\n/data\n1700000000\n5432\n/run\n\n  1234  5\n{state}\n");
        let ready = PidFile::parse(&file("ready   ")).unwrap();
        assert_eq!((ready.pid.as_raw(), ready.ready), (4711, true));
        for state in ["starting", "stopping", "standby ", ""] {
            assert!(!PidFile::parse(&file(state)).unwrap().ready, "{state}");
        }
        assert!(!PidFile::parse("4711\n").unwrap().ready);
        // Signalling these would hit our own group, everybody, or init.
        for bad in ["", "0\n", "-1\n", "1\n", "x\n"] {
            assert!(PidFile::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_process_is_not_the_server_of_a_directory_it_does_not_work_in() {
        assert!(!serves(Pid::this(), Utf8Path::new("/nonexistent")));
    }
}

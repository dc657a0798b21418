//! A process that outlives the command that starts it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::Signal;

use super::record::{Record, Started};
use crate::daemon::tail;
use crate::process::ProcessId;

pub(crate) struct Service {
    pub name: &'static str,
    /// Program and arguments.
    pub command: Vec<String>,
    pub log: Utf8PathBuf,
}

/// What [`Service::ensure`] had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Kept,
    Started,
    Restarted,
}

impl Service {
    /// Starts the service, unless it runs already: the same program file with the same arguments.
    pub(crate) fn ensure(&self, record: &mut Record) -> Result<Outcome> {
        let Some(running) = record.running(self.name).cloned() else {
            return self.start(record).map(|()| Outcome::Started);
        };
        if running.command == self.command && runs_file(running.process, Utf8Path::new(&self.command[0])) {
            return Ok(Outcome::Kept);
        }
        end(self.name, record)?;
        self.start(record).map(|()| Outcome::Restarted)
    }

    fn start(&self, record: &mut Record) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log))?;
        // A session of its own: the end of this terminal is not its end.
        let child = Command::new("setsid")
            .args(&self.command)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        let process = ProcessId::of(child.id().cast_signed()).with_context(|| self.last_words())?;
        record.set_running(self.name, Some(Started { process, command: self.command.clone() }))
    }

    /// For errors: what the service said last.
    pub(crate) fn last_words(&self) -> String {
        format!("{} failed; {} says:\n{}", self.name, self.log, tail(self.name, &self.log, 20))
    }
}

/// Ends a service that we started, in order; true when there was one.
pub(crate) fn end(name: &str, record: &mut Record) -> Result<bool> {
    let Some(running) = record.running(name).cloned() else {
        record.set_running(name, None)?;
        return Ok(false);
    };
    running.process.end(Signal::SIGTERM, Duration::from_secs(20)).with_context(|| format!("end {name}"))?;
    record.set_running(name, None)?;
    Ok(true)
}

/// Whether a process runs the file that is now at `program`; a rebuilt program is another file.
fn runs_file(process: ProcessId, program: &Utf8Path) -> bool {
    let identity = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let running = identity(&format!("/proc/{}/exe", process.pid));
    running.is_some() && running == identity(program.as_str())
}

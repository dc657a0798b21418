//! A long-running process of the lab that tests may kill, pause and start again.

use std::fs::File;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::Signal;
use tokio::process::Child;

use crate::process::ProcessId;

pub struct Daemon {
    pub name: String,
    log: Utf8PathBuf,
    make: Box<dyn Fn() -> Command + Send + Sync>,
    running: Option<(Child, ProcessId)>,
}

impl Daemon {
    /// A daemon that is not started yet. `make` builds its command at each start; what it says on both
    /// outputs is appended to `log`.
    pub(crate) fn new(
        name: impl Into<String>,
        log: Utf8PathBuf,
        make: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), log, make: Box::new(make), running: None }
    }

    pub async fn start(&mut self) -> Result<()> {
        if self.is_running() {
            bail!("{} runs already", self.name);
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log))?;
        let mut command = tokio::process::Command::from((self.make)());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", self.name))?;
        let pid = child.id().context("a new process has no pid")?.cast_signed();
        let id = ProcessId::of(pid).with_context(|| format!("{} ended at once", self.name))?;
        self.running = Some((child, id));
        Ok(())
    }

    pub fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|(_, id)| id.is_alive())
    }

    /// Its process; an error when it is not running.
    pub fn process(&self) -> Result<ProcessId> {
        let running = self.running.as_ref().filter(|(_, id)| id.is_alive());
        running.map(|(_, id)| *id).with_context(|| format!("{} is not running", self.name))
    }

    /// SIGKILL: no chance to say goodbye.
    pub async fn kill(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(10)).await.map(|_| ())
    }

    /// SIGTERM, and an error when it has not ended in order within `limit`.
    pub async fn stop(&mut self, limit: Duration) -> Result<()> {
        self.process()?.signal(Signal::SIGTERM)?;
        let status = self.wait(limit).await?;
        if !status.success() {
            bail!("{} ended with {status} after SIGTERM\n{}", self.name, self.log_tail(20));
        }
        Ok(())
    }

    /// SIGSTOP: alive, but does nothing.
    pub fn pause(&self) -> Result<()> {
        self.process()?.signal(Signal::SIGSTOP)
    }

    pub fn resume(&self) -> Result<()> {
        self.process()?.signal(Signal::SIGCONT)
    }

    async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let Some((child, _)) = self.running.as_mut() else { bail!("{} is not running", self.name) };
        let waited = tokio::time::timeout(limit, child.wait()).await;
        let status = waited.with_context(|| format!("{} is still there after {limit:?}", self.name))??;
        self.running = None;
        Ok(status)
    }

    /// Everything it said so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// The last lines it said, under its name.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.name, &self.log, lines)
    }
}

/// The last lines of a file, under a heading.
pub(crate) fn tail(name: &str, path: &Utf8Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let last = &all[all.len().saturating_sub(lines)..];
    format!("--- {name}: last {} of {} lines\n{}\n", last.len(), all.len(), last.join("\n"))
}

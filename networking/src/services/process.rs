//! One dnsmasq that outlives the agent.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::inside;
use super::render::{CONFIG, Digest};
use crate::namespace;

pub(super) const PROGRAM: &str = "dnsmasq";
/// Written by us: what runs, and what it has read.
const STATE: &str = "running.json";
/// Written by dnsmasq when it is ready for signals.
pub(super) const READY: &str = "dnsmasq.pid";
const COMPLAINTS: &str = "stderr";
/// What is kept of them. It complains of guests too, each time, and they may make it do so for as long as they run.
const COMPLAINTS_BYTES: u64 = 64 << 10;
/// How long it may take to be ready, and to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Where it runs.
pub(super) struct Dnsmasq<'a> {
    pub folder: &'a Path,
    pub namespace: &'a str,
}

/// One that is there, and what it has read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    pid: i32,
    /// In clock ticks since the machine's boot.
    started: u64,
    pub config: Digest,
    pub hosts: Digest,
}

impl Running {
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("dnsmasq could not be started in the network's namespace; is it installed?")]
    Start(#[source] io::Error),
    #[error("dnsmasq did not get ready: {0}")]
    NotReady(String),
}

impl Dnsmasq<'_> {
    /// The one that serves, if it is alive and in the namespace that now has the name.
    pub(super) fn running(&self) -> Option<Running> {
        let running = self.alive()?;
        if self.is_in_place(&running) {
            return Some(running);
        }
        // It serves a namespace that has lost its name.
        match self.end(&running, None) {
            Ok(()) => {}
            Err(error) => tracing::warn!(namespace = self.namespace, %error, "a dnsmasq could not be ended"),
        }
        None
    }

    /// Whether it is in the namespace that now has the name.
    pub(super) fn is_in_place(&self, running: &Running) -> bool {
        let there = inside::identity(&PathBuf::from(format!("/proc/{}/ns/net", running.pid)));
        let wanted = inside::identity(&namespace::path(self.namespace));
        wanted.is_some() && there == wanted
    }

    /// The one that was started, if it is alive, wherever it is.
    pub(super) fn alive(&self) -> Option<Running> {
        let running: Running = serde_json::from_slice(&fs::read(self.folder.join(STATE)).ok()?).ok()?;
        self.is_alive(&running).then_some(running)
    }

    /// INVARIANT: nothing is signalled but the process that was started here.
    fn is_alive(&self, running: &Running) -> bool {
        let has_arguments = fs::read(format!("/proc/{}/cmdline", running.pid)).is_ok_and(|line| {
            let config = self.config_argument();
            line.split(|byte| *byte == 0).any(|argument| argument == config.as_bytes())
        });
        has_arguments && started(running.pid) == Some(running.started)
    }

    /// Starts it and waits until it is ready.
    pub(super) fn start(&self, config: Digest, hosts: Digest) -> Result<Child, StartError> {
        for file in [READY, STATE] {
            match fs::remove_file(self.folder.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StartError::Start(error));
                }
                _ => {}
            }
        }
        // At its end, wherever that is: it is cut off while dnsmasq writes.
        let mut append = OpenOptions::new();
        let complaints = append.append(true).create(true).open(self.folder.join(COMPLAINTS));
        let complaints =
            complaints.and_then(|file| file.set_len(0).map(|()| file)).map_err(StartError::Start)?;
        let mut command = Command::new(PROGRAM);
        command.args(["--keep-in-foreground", &self.config_argument()]);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints);
        let spawned = inside::within(self.namespace, move || command.spawn());
        let mut child = spawned.map_err(StartError::Start)?;
        match self.until_ready(&mut child).and_then(|started| self.remember(&child, started, config, hosts)) {
            Ok(()) => Ok(child),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    fn until_ready(&self, child: &mut Child) -> Result<u64, StartError> {
        let began = Instant::now();
        while !self.folder.join(READY).exists() {
            let ended = !matches!(child.try_wait(), Ok(None));
            if ended || began.elapsed() > PATIENCE {
                let said = fs::read_to_string(self.folder.join(COMPLAINTS)).unwrap_or_default();
                return Err(StartError::NotReady(said.trim().to_owned()));
            }
            sleep(LOOK_AGAIN);
        }
        started(pid_of(child)).ok_or_else(|| StartError::NotReady("it has ended".to_owned()))
    }

    fn remember(&self, child: &Child, started: u64, config: Digest, hosts: Digest) -> Result<(), StartError> {
        self.write(&Running { pid: pid_of(child), started, config, hosts }).map_err(StartError::Start)
    }

    /// Lets it read its hosts again.
    pub(super) fn reload(&self, running: &Running, hosts: Digest) -> io::Result<()> {
        if self.is_alive(running) {
            kill(Pid::from_raw(running.pid), Signal::SIGHUP)?;
        }
        self.write(&Running { hosts, ..running.clone() })
    }

    /// Empties the file of its complaints when that has grown large, so that no guest fills the host's disk with them.
    pub(super) fn trim_complaints(&self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).open(self.folder.join(COMPLAINTS))?;
        if file.metadata()?.len() > COMPLAINTS_BYTES { file.set_len(0) } else { Ok(()) }
    }

    /// Ends it, and waits for that.
    pub(super) fn end(&self, running: &Running, mut child: Option<&mut Child>) -> io::Result<()> {
        let began = Instant::now();
        let mut signal = Signal::SIGTERM;
        let mut signalled = false;
        while self.is_alive(running) {
            if !signalled {
                match kill(Pid::from_raw(running.pid), signal) {
                    Ok(()) | Err(Errno::ESRCH) => signalled = true,
                    Err(error) => return Err(error.into()),
                }
            }
            if let Some(child) = &mut child {
                // What has ended is there until it is reaped.
                let _ = child.try_wait();
            }
            if signal == Signal::SIGTERM && began.elapsed() > PATIENCE {
                (signal, signalled) = (Signal::SIGKILL, false);
            } else if began.elapsed() > 2 * PATIENCE {
                return Err(io::Error::other("a dnsmasq does not end"));
            }
            sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn write(&self, running: &Running) -> io::Result<()> {
        let (new, file) = (self.folder.join("running.json.new"), self.folder.join(STATE));
        fs::write(&new, serde_json::to_vec(running)?)?;
        fs::rename(new, file)
    }

    fn config_argument(&self) -> String {
        format!("--conf-file={}", self.folder.join(CONFIG).display())
    }
}

fn pid_of(child: &Child) -> i32 {
    // A process id of Linux is below 2^22.
    i32::try_from(child.id()).unwrap_or(i32::MAX)
}

/// When a process was started; `None` when it has ended (`proc_pid_stat(5)`: the third field is its state, the 22nd
/// the time).
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

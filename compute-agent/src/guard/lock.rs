//! That there is one guard of a state folder.
//!
//! A guard that was killed while one of its writers hangs in the kernel is dead but for that thread, which keeps the lock:
//! it kills nobody any more, so another guard takes its place. What the thread may yet write is an older counter, which
//! puts a takeover off and brings none about.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use anyhow::{Context, Result, bail};
use camino::Utf8Path;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

const FILE: &str = "lock";
const ATTEMPTS: usize = 5;

/// A process, told from others that had its pid by when it started (`proc_pid_stat(5)`, field 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pub(super) pid: i32,
    start_ticks: u64,
}

impl ProcessId {
    /// The process of this pid, if its first thread lives.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in parentheses that may hold anything.
        let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
        let state = fields.next()?;
        let start_ticks = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start_ticks })
    }

    pub(super) fn own() -> io::Result<Self> {
        Self::of(std::process::id().cast_signed())
            .ok_or_else(|| io::Error::other("/proc shows no such process"))
    }

    /// The thread that asks, for guards that are threads: the kernel knows it as it knows processes.
    pub(super) fn own_thread() -> io::Result<Self> {
        Self::of(nix::unistd::gettid().as_raw()).ok_or_else(|| io::Error::other("/proc shows no such thread"))
    }

    pub(super) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// Held until the process ends.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the kernel looks at it")] Flock<File>);

impl Lock {
    pub(super) fn take(folder: &Utf8Path) -> Result<Self> {
        let path = folder.join(FILE);
        for _ in 0..ATTEMPTS {
            let options = OpenOptions::new().read(true).write(true).create(true).mode(0o600).clone();
            let file = options.open(&path).with_context(|| format!("{path} cannot be opened"))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) if is_in_place(&lock, &path)? => {
                    let own = serde_json::to_vec(&ProcessId::own()?)?;
                    lock.set_len(0)?;
                    lock.rewind()?;
                    lock.write_all(&own)?;
                    return Ok(Self(lock));
                }
                // Another guard has taken the place of a dead one meanwhile.
                Ok(_) => {}
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let mut text = String::new();
                    file.read_to_string(&mut text)?;
                    let holder: Option<ProcessId> = serde_json::from_str(&text).ok();
                    match holder {
                        Some(holder) if !holder.is_alive() => {
                            tracing::warn!(
                                pid = holder.pid,
                                "the guard before is dead, but hangs in the kernel"
                            );
                            if is_in_place(&file, &path)? {
                                fs::remove_file(&path)?;
                            }
                        }
                        Some(holder) => bail!("another guard, process {}, guards this host", holder.pid),
                        None => bail!("another guard guards this host"),
                    }
                }
                Err((_, errno)) => return Err(errno).with_context(|| format!("{path} cannot be locked")),
            }
        }
        bail!("other guards start at the same time");
    }
}

fn is_in_place(file: &File, path: &Utf8Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

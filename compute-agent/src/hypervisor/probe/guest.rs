//! Runs the probe guest once, for a limited time.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use camino::Utf8Path;
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const BOOT_SECTOR: &[u8] = include_bytes!("boot_sector.bin");
/// SeaBIOS does not boot from a virtio disk of a single sector.
const DISK_BYTES: u64 = 1 << 20;
/// What the guest writes to `isa-debug-exit` makes QEMU end with this.
const SUCCESS: i32 = 33;
/// A killed QEMU is gone at once, unless the kernel holds it; then it is left to be reaped later.
const KILL_LIMIT: Duration = Duration::from_secs(2);
/// So much of QEMU's complaint is read.
const COMPLAINT_BYTES: u64 = 16 << 10;
/// So much of it is passed on.
const COMPLAINT_CHARS: usize = 160;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    Kvm,
    Tcg,
}

impl Accelerator {
    /// Machine and processor as in the domains of instances.
    const fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-machine", "q35,accel=kvm", "-cpu", "host,migratable=on"],
            Self::Tcg => ["-machine", "q35,accel=tcg", "-cpu", "max"],
        }
    }
}

/// How the probe guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::hypervisor) enum Outcome {
    /// Guest code ran to its end.
    Ran,
    /// QEMU was still there after the limit, and was killed.
    TimedOut(Duration),
    /// QEMU ended otherwise.
    Failed { status: String, complaint: String },
    /// QEMU could not be started.
    NotStarted(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ran => write!(f, "the guest ran"),
            Self::TimedOut(limit) => write!(f, "the guest did not end within {} s", limit.as_secs_f32()),
            Self::Failed { status, complaint } if complaint.is_empty() => {
                write!(f, "QEMU ended with {status}")
            }
            Self::Failed { status, complaint } => write!(f, "QEMU ended with {status}: {complaint}"),
            Self::NotStarted(why) => write!(f, "QEMU did not start: {why}"),
        }
    }
}

pub(super) async fn run(emulator: &Utf8Path, accelerator: Accelerator, limit: Duration) -> Outcome {
    let started = scratch().and_then(|stderr| {
        let child = command(emulator, accelerator, stderr.try_clone()?)?.spawn()?;
        Ok((child, stderr))
    });
    let (mut child, stderr) = match started {
        Ok(started) => started,
        Err(error) => return Outcome::NotStarted(error.to_string()),
    };
    match timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.code() == Some(SUCCESS) => Outcome::Ran,
        Ok(Ok(status)) => Outcome::Failed { status: describe(status), complaint: complaint(stderr) },
        Ok(Err(error)) => Outcome::NotStarted(error.to_string()),
        Err(_) => {
            end(&mut child).await;
            Outcome::TimedOut(limit)
        }
    }
}

async fn end(child: &mut Child) {
    if timeout(KILL_LIMIT, child.kill()).await.is_err() {
        tracing::warn!(pid = child.id(), "the probe's QEMU is killed but does not end");
    }
}

/// The disk is a memory file on standard input: nothing is left on any file system.
fn command(emulator: &Utf8Path, accelerator: Accelerator, stderr: File) -> io::Result<Command> {
    let mut disk = scratch()?;
    disk.write_all(BOOT_SECTOR)?;
    disk.set_len(DISK_BYTES)?;
    let mut command = Command::new(emulator);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "64"])
        .args(accelerator.arguments())
        .args(["-drive", "file=/proc/self/fd/0,format=raw,if=virtio,readonly=on"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .env_clear()
        .stdin(Stdio::from(disk))
        .stdout(Stdio::null())
        .stderr(Stdio::from(stderr))
        .kill_on_drop(true);
    Ok(command)
}

fn scratch() -> io::Result<File> {
    Ok(File::from(memfd_create(c"cumulo-probe", MFdFlags::MFD_CLOEXEC)?))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The first error line, or the first line when none is called an error.
fn complaint(mut stderr: File) -> String {
    let mut bytes = Vec::new();
    let read =
        stderr.seek(SeekFrom::Start(0)).and_then(|_| stderr.take(COMPLAINT_BYTES).read_to_end(&mut bytes));
    if let Err(error) = read {
        return format!("(its message cannot be read: {error})");
    }
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().find(|line| line.contains("error")).or_else(|| text.lines().next()).unwrap_or("");
    line.chars().filter(|c| !c.is_control()).take(COMPLAINT_CHARS).collect()
}

//! The one moment when QEMU reads bytes that a stranger sent.
//!
//! `qemu-img convert` rewrites an image that [`protocol::image`] has accepted into a file of our own. Should
//! its parser have a hole nevertheless, there is nothing to gain behind it: the process has no privileges, no
//! network, no path to anything but programs and their libraries (its input and output are inherited descriptors), and it
//! ends when its processor time, its memory, its output or the clock run out.
//!
//! It is confined by other programs, from the outside in:
//!
//! ```text
//! walls      no files of the host, no network, no other processes; all in it dies with it (see `walls.rs`)
//! timeout    the clock, should we be killed and not be there to watch it; says which signal ended its child
//! prlimit    processor time, address space, file size, open files, no core dumps
//! setpriv    an unprivileged user, no groups, no capabilities, no new privileges
//! qemu-img   driver and options given, nothing probed, no backing file opened
//! ```
//!
//! Without root there is no other user to become: `unshare` then adds a user namespace, and the process is
//! confined by that, the limits, and the rights of the user who runs us.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::unistd::{Gid, Uid, User};
use protocol::image::{Format, ImageInfo};
use protocol::{GIB, MIB};
use serde_json::json;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::walls::{PATH, Rights, Walls};

/// How much of the converter's complaints is kept for the log.
const MAX_STDERR_BYTES: u64 = 8 * 1024;
/// The exit code of qemu-img when it could not read or write.
const CONVERTER_FAILED: i32 = 1;
/// How much later the inner clock is than ours.
const OURS_FIRST: Duration = Duration::from_secs(10);

/// How conversions are confined.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Who the converter runs as; `None` when we are not root.
    user: Option<(Uid, Gid)>,
    limits: Limits,
}

/// What a conversion may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Processor time, whatever the image.
    pub cpu_base: Duration,
    /// Processor time for each GiB of data.
    pub cpu_per_gib: Duration,
    /// The clock stops it after this many times its processor time: it waits for disks, too.
    pub wall_factor: u32,
    pub address_space_bytes: u64,
    pub open_files: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_base: Duration::from_secs(30),
            cpu_per_gib: Duration::from_secs(30),
            wall_factor: 4,
            address_space_bytes: 2 * GIB,
            open_files: 64,
        }
    }
}

/// A conversion did not end well.
#[derive(Debug, Error)]
pub enum SandboxError {
    #[error("could not run the converter")]
    Run(#[source] io::Error),
    #[error("the converter was stopped after {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("the converter was killed by signal {0}")]
    Killed(i32),
    #[error("the converter failed: {0}")]
    Failed(ExitStatus),
}

impl SandboxError {
    /// Whether the image wanted more than it may have or could not be read. The programs around the
    /// converter have other exit codes when they cannot do their part.
    pub fn blames_image(&self) -> bool {
        match self {
            Self::Run(_) => false,
            Self::TimedOut(_) | Self::Killed(_) => true,
            Self::Failed(status) => status.code() == Some(CONVERTER_FAILED),
        }
    }
}

impl Sandbox {
    /// Conversions run as `nobody` if we are root.
    pub fn new() -> io::Result<Self> {
        Self::with("nobody", Limits::default())
    }

    /// Conversions run as `user` if we are root. That user should run nothing else.
    pub fn with(user: &str, limits: Limits) -> io::Result<Self> {
        if !Uid::effective().is_root() {
            return Ok(Self { user: None, limits });
        }
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("there is no user {user:?}"));
        let user = User::from_name(user)?.ok_or_else(unknown)?;
        Ok(Self { user: Some((user.uid, user.gid)), limits })
    }

    /// The user who has to own the output.
    pub(crate) fn user(&self) -> Option<(Uid, Gid)> {
        self.user
    }

    /// Copies the guest's data of `input` into `output`, an empty qcow2 file of the same virtual size.
    ///
    /// `info` is what the parser found in this very `input`. Dropping the future kills the converter.
    pub(crate) async fn convert(
        &self,
        input: File,
        info: &ImageInfo,
        output: File,
    ) -> Result<(), SandboxError> {
        let budget = Budget::of(&self.limits, info);
        let command = self.command(info.format, &budget);
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .env_clear()
            .env("PATH", PATH)
            // Each thread's own heap would count against the address space.
            .env("MALLOC_ARENA_MAX", "2")
            .current_dir("/")
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(SandboxError::Run)?;
        let stderr = child.stderr.take();
        let ended =
            tokio::time::timeout(budget.wall, async { tokio::join!(child.wait(), complaints(stderr)) });
        let Ok((status, stderr)) = ended.await else {
            child.kill().await.map_err(SandboxError::Run)?;
            return Err(SandboxError::TimedOut(budget.wall));
        };
        judge(status.map_err(SandboxError::Run)?, &stderr)
    }

    fn command(&self, format: Format, budget: &Budget) -> Vec<String> {
        let mut command = Walls::default().command(Rights::ToGiveUp);
        let mut add = |words: &[&str]| command.extend(words.iter().map(|word| (*word).to_owned()));
        let wall = budget.wall.saturating_add(OURS_FIRST);
        add(&["timeout", "--signal=KILL", &wall.as_secs().to_string()]);
        add(&["prlimit", "--core=0", &format!("--cpu={}", budget.cpu.as_secs().max(1))]);
        add(&[&format!("--as={}", self.limits.address_space_bytes)]);
        add(&[&format!("--fsize={}", budget.output_bytes)]);
        add(&[&format!("--nofile={}", self.limits.open_files), "--"]);
        add(&["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]);
        if let Some((uid, gid)) = self.user {
            add(&[&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups"]);
        }
        add(&["--"]);
        add(&["qemu-img", "convert", "-n", "--target-is-zero", "-O", "qcow2"]);
        add(&[&input_node(format), "/proc/self/fd/1"]);
        command
    }
}

/// The input as QEMU's block layer shall open it: this driver, this descriptor, no backing file, for reading.
fn input_node(format: Format) -> String {
    let file = json!({"driver": "file", "filename": "/proc/self/fd/0", "locking": "off"});
    let driver = format.as_str();
    let node = match format {
        // The drivers that would look for a backing file.
        Format::Qcow2 | Format::Vmdk => {
            json!({"driver": driver, "read-only": true, "backing": null, "file": file})
        }
        Format::Raw | Format::Vhdx | Format::Vdi => {
            json!({"driver": driver, "read-only": true, "file": file})
        }
    };
    format!("json:{node}")
}

/// [`Limits`] for one image.
#[derive(Debug, PartialEq, Eq)]
struct Budget {
    cpu: Duration,
    wall: Duration,
    output_bytes: u64,
}

impl Budget {
    fn of(limits: &Limits, info: &ImageInfo) -> Self {
        let gib = u32::try_from(info.data_bytes.div_ceil(GIB)).unwrap_or(u32::MAX);
        let cpu = limits.cpu_base + limits.cpu_per_gib.saturating_mul(gib);
        Self { cpu, wall: cpu.saturating_mul(limits.wall_factor), output_bytes: largest_output(info) }
    }
}

/// The most that the converted image takes, in clusters of 64 KiB.
pub(crate) fn largest_output(info: &ImageInfo) -> u64 {
    // Each piece of data may need an L2 table of its own, until there is one for every 512 MiB of the disk.
    let l2_tables = info.data_bytes.min(info.virtual_size_bytes / 8192);
    // 16 bits for each cluster of 64 KiB, twice over for the room that QEMU takes ahead.
    let refcounts = info.data_bytes / 16384;
    let header_and_l1 = 16 * MIB;
    info.data_bytes + l2_tables + refcounts + header_and_l1
}

/// The first of what the converter says; the rest is read and dropped, so that it never waits for us.
async fn complaints(stderr: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut stderr) = stderr {
        // What cannot be read is lost, and the exit status says enough.
        let _ = (&mut stderr).take(MAX_STDERR_BYTES).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    }
    kept
}

fn judge(status: ExitStatus, stderr: &[u8]) -> Result<(), SandboxError> {
    if status.success() {
        return Ok(());
    }
    // Escaped by Debug: it may quote the image.
    let stderr = String::from_utf8_lossy(stderr);
    tracing::warn!(%status, ?stderr, "an image could not be converted");
    // Of a signal that ended what is behind the walls, `bwrap` tells as a shell does: its number and 128.
    let signal = status.signal().or(status.code().filter(|code| *code > 128).map(|code| code - 128));
    Err(signal.map_or(SandboxError::Failed(status), SandboxError::Killed))
}

//! A machine of the lab: namespaces of its own and private copies of the folders that daemons write to.
//!
//! The namespaces are held by a `sleep infinity`, the holder. They have no names: they are reached
//! through the holder's pid and vanish with the last process in them. So membership in the UTS
//! namespace *is* the list of what runs on a machine, and ending a machine means ending its members.
//! (The agent and libvirt make network and mount namespaces of their own on it, but never one of these.)

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::process::{self, ProcessId};

/// The folders that are a machine's own: inside the machine, and below [`Machine::dir`].
const PRIVATE: [(&str, &str); 5] = [
    ("/run", "run"),
    ("/etc/libvirt", "etc-libvirt"),
    ("/var/lib/libvirt", "lib-libvirt"),
    ("/var/log/libvirt", "log-libvirt"),
    ("/var/lib/cumulo", "cumulo"),
];

/// What libvirt found out about QEMU: 8 s of probing, the same on every machine of every lab.
const CAPABILITIES: &str = "/var/cache/libvirt";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    pub name: String,
    /// Its private folders, seen from outside.
    pub dir: Utf8PathBuf,
    holder: ProcessId,
}

impl Machine {
    /// Makes the namespaces and their mounts. `cache` is shared with other machines.
    pub(crate) fn create(name: &str, dir: &Utf8Path, cache: &Utf8Path) -> Result<Self> {
        for (_, own) in PRIVATE {
            fs::create_dir_all(dir.join(own)).with_context(|| format!("make {dir}/{own}"))?;
        }
        fs::create_dir_all(cache).with_context(|| format!("make {cache}"))?;
        let hosts = dir.join("hosts");
        fs::write(&hosts, format!("127.0.0.1 localhost {name}\n::1 localhost\n"))?;

        let machine = Self { name: name.to_owned(), dir: dir.to_owned(), holder: spawn_holder()? };
        machine.run("hostname", &[name])?;
        machine.mount_sysfs()?;
        machine.run("mount", &["-t", "tmpfs", "-o", "mode=1777", "shm", "/dev/shm"])?;
        machine.run("mount", &["--bind", hosts.as_str(), "/etc/hosts"])?;
        let cache = [(CAPABILITIES, cache.to_owned())];
        let private = PRIVATE.map(|(inside, own)| (inside, dir.join(own)));
        for (inside, outside) in private.iter().chain(&cache) {
            fs::create_dir_all(inside).with_context(|| format!("make {inside} to mount over it"))?;
            machine.run("mount", &["--bind", outside.as_str(), inside])?;
        }
        Ok(machine)
    }

    /// `/sys` shows the network devices of the namespace it was mounted from; cgroups move along.
    fn mount_sysfs(&self) -> Result<()> {
        let aside = self.dir.join("cgroup");
        fs::create_dir_all(&aside)?;
        self.run("mount", &["--rbind", "/sys/fs/cgroup", aside.as_str()])?;
        self.run("mount", &["-t", "sysfs", "sysfs", "/sys"])?;
        self.run("mount", &["--rbind", aside.as_str(), "/sys/fs/cgroup"])?;
        self.run("umount", &["--recursive", aside.as_str()])
    }

    /// A command that will run on this machine. The process it becomes has the pid that spawn returns.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.holder.pid.to_string());
        command.args(["--net", "--mount", "--uts", "--ipc", "--", program]).stdin(Stdio::null());
        command
    }

    /// Runs a command on this machine; an error holds what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        self.output(program, arguments).map(|_| ())
    }

    /// Runs a command on this machine and returns what it wrote to its standard output.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let said = self.command(program).args(arguments).output();
        said_or_failed(said, || format!("{program} {} on {}", arguments.join(" "), self.name))
    }

    /// Where a path of this machine is seen from outside: `/run/x` is `DIR/run/x`. Paths that the machine
    /// shares with its surroundings stay as they are.
    pub fn outside(&self, inside: &str) -> Utf8PathBuf {
        let own = PRIVATE.iter().find_map(|(prefix, own)| {
            let rest = Utf8Path::new(inside).strip_prefix(prefix).ok()?;
            Some(self.dir.join(own).join(rest))
        });
        own.unwrap_or_else(|| inside.into())
    }

    /// For `setns`.
    pub(crate) fn network_namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.pid).into()
    }

    /// The pid to name where a tool wants a namespace.
    pub(crate) fn holder_pid(&self) -> i32 {
        self.holder.pid
    }

    /// Everything that runs on this machine, without the holder. Empty when the holder is gone: only
    /// while it lives can the namespace's number not belong to somebody else.
    pub fn members(&self) -> Vec<ProcessId> {
        let uts = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/uts"));
        let Ok(namespace) = uts(self.holder.pid) else { return Vec::new() };
        if !self.holder.is_alive() {
            return Vec::new();
        }
        let is_member =
            |id: &ProcessId| *id != self.holder && uts(id.pid).is_ok_and(|other| other == namespace);
        process::all().into_iter().filter(is_member).collect()
    }

    /// Kills everything that runs on this machine, then the machine.
    pub(crate) fn end(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        // A member may be forking: look again until nobody is left.
        loop {
            let members = self.members();
            if members.is_empty() {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{} processes on {} survive SIGKILL",
                members.len(),
                self.name
            );
            for member in &members {
                member.signal(Signal::SIGKILL)?;
            }
            for member in members {
                member.wait_gone(Duration::from_secs(2));
            }
        }
        self.holder.end(Signal::SIGKILL, Duration::from_secs(5)).map(|_| ())
    }
}

/// Starts a holder and waits until it has left our namespaces.
fn spawn_holder() -> Result<ProcessId> {
    let mut child = Command::new("unshare")
        .args(["--net", "--mount", "--uts", "--ipc", "--propagation", "private", "--", "sleep", "infinity"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("start unshare")?;
    let pid = child.id().cast_signed();
    let deadline = Instant::now() + Duration::from_secs(10);
    // unshare becomes sleep only after the namespaces are made.
    while fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() != "sleep") {
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("make namespaces: unshare ended with {status}");
        }
        ensure!(Instant::now() < deadline, "make namespaces: unshare does not finish");
        std::thread::sleep(Duration::from_millis(2));
    }
    ProcessId::of(pid).context("the holder of the namespaces ended at once")
}

/// The standard output of a command that succeeded; otherwise what it said, with what was attempted.
pub(crate) fn said_or_failed(
    output: std::io::Result<Output>,
    attempted: impl Fn() -> String,
) -> Result<String> {
    let output = output.with_context(&attempted)?;
    ensure!(
        output.status.success(),
        "{}: {}: {}",
        attempted(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

//! The QEMU processes of guarded guests, and how they are killed for certain and nobody else.
//!
//! They are found without libvirt: by its pid files, which outlive it, and by looking through all processes of this machine
//! (of its UTS namespace, which several in one kernel are told by). A process is the QEMU of an instance when its
//! command line says so: `-name guest=cumulo-<id>,…` and `-uuid <id>`. INVARIANT: a descriptor of the process is opened
//! first, its command line read then, and that it still lives is asked last. So it was no other that had this pid.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use camino::Utf8Path;
use protocol::InstanceId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::machine::{self, Found};
use crate::hypervisor::libvirt::domain_name;

/// Where libvirt leaves a file with the pid of each domain.
const PID_FILES: &str = "/run/libvirt/qemu";

/// A process that cannot be mistaken for another one.
#[derive(Debug)]
struct Process {
    pid: i32,
    descriptor: OwnedFd,
}

impl Process {
    fn open(pid: i32) -> io::Result<Self> {
        let known = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { pid, descriptor: pidfd_open(known, PidfdFlags::empty())? })
    }
}

impl machine::Process for Process {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn is_alive(&self) -> bool {
        let mut asked = [PollFd::new(&self.descriptor, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // What cannot be asked counts as alive: it is killed once more.
        poll(&mut asked, Some(&at_once)).map_or(true, |ended| ended == 0)
    }

    fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.descriptor, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The living QEMUs of instances that `is_asked_for`, those left out that are `known`.
pub(super) fn find(is_asked_for: impl Fn(InstanceId) -> bool, known: &[i32]) -> io::Result<Found> {
    let ours = machine_of("self");
    let mut found: Found = BTreeMap::new();
    let mut take = |pid: i32, is_named: bool| {
        if known.contains(&pid) || found.values().flatten().any(|process| process.pid() == pid) {
            return;
        }
        // They end while we look.
        let Ok(process) = Process::open(pid) else { return };
        let Some(id) = instance_of(pid).filter(|id| is_asked_for(*id)) else { return };
        if (is_named || machine_of(&pid.to_string()) == ours) && machine::Process::is_alive(&process) {
            found.entry(id).or_default().push(Arc::new(process));
        }
    };
    named_by_libvirt(Utf8Path::new(PID_FILES)).into_iter().for_each(|pid| take(pid, true));
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            take(pid, false);
        }
    }
    Ok(found)
}

fn named_by_libvirt(folder: &Utf8Path) -> Vec<i32> {
    let files = folder.read_dir_utf8().into_iter().flatten().flatten();
    let pid_files = files.filter(|file| file.file_name().ends_with(".pid"));
    pid_files.filter_map(|file| fs::read_to_string(file.path()).ok()?.trim().parse().ok()).collect()
}

fn machine_of(pid: &str) -> Option<std::path::PathBuf> {
    fs::read_link(Path::new("/proc").join(pid).join("ns/uts")).ok()
}

/// The instance whose QEMU says it is this one.
fn instance_of(pid: i32) -> Option<InstanceId> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    instance_in(&words)
}

fn instance_in(command_line: &[u8]) -> Option<InstanceId> {
    let words: Vec<_> = command_line.split(|byte| *byte == 0).collect();
    let value = |option: &[u8]| {
        let at = words.iter().position(|word| *word == option)?;
        std::str::from_utf8(words.get(at + 1)?).ok()
    };
    let id: InstanceId = value(b"-uuid")?.parse().ok()?;
    let name = value(b"-name")?.strip_prefix("guest=")?.split(',').next()?;
    (name == domain_name(id)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_is_told_by_name_and_uuid() {
        let id = "0199a2b4-0000-7000-8000-000000000001";
        let other = "0199a2b4-0000-7000-8000-000000000002";
        let line = |words: &[&str]| instance_in(words.join("\0").as_bytes()).map(|id| id.to_string());
        let name = format!("guest=cumulo-{id},debug-threads=on");
        let qemu = ["/usr/bin/qemu-system-x86_64", "-name", &name, "-S", "-uuid", id, "-display", "none"];
        assert_eq!(line(&qemu).as_deref(), Some(id));
        assert_eq!(line(&["qemu", "-name", &name, "-uuid", other]), None);
        assert_eq!(line(&["qemu", "-name", &format!("guest=other-{id}"), "-uuid", id]), None);
        assert_eq!(line(&["qemu", "-uuid", id]), None);
        assert_eq!(line(&["grep", "-uuid", &format!("-name guest=cumulo-{id}")]), None);
        assert_eq!(line(&["qemu", "-name", &name, "-uuid"]), None);
        assert_eq!(instance_in(b""), None);
        assert_eq!(instance_in(b"\0\0-uuid\0\xff\0-name\0"), None);
    }
}

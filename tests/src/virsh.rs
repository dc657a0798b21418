//! Looking at a libvirt from outside, with virsh and by pid: tests must not believe the agent alone.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

use crate::machine::said_or_failed;
use crate::process::ProcessId;

/// One libvirtd, reached by its socket.
#[derive(Debug, Clone)]
pub struct Virsh {
    /// The `run/libvirt` of the machine.
    run: Utf8PathBuf,
}

impl Virsh {
    /// `run` is the folder of libvirt's sockets, `/run/libvirt` on a machine without namespaces.
    pub fn new(run: impl AsRef<Utf8Path>) -> Self {
        Self { run: run.as_ref().to_owned() }
    }

    pub fn uri(&self) -> String {
        format!("qemu:///system?socket={}/libvirt-sock", self.run)
    }

    /// Runs a virsh command and returns its output.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output =
            Command::new("virsh").arg("--connect").arg(self.uri()).arg("--quiet").args(arguments).output();
        said_or_failed(output, || format!("virsh {}", arguments.join(" ")))
    }

    pub fn answers(&self) -> bool {
        self.run(&["version"]).is_ok()
    }

    /// The names of all domains, in any state.
    pub fn domains(&self) -> Result<Vec<String>> {
        let names = self.run(&["list", "--all", "--name"])?;
        Ok(names.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// What each domain is doing, down to its processors: for whoever wonders why a guest says nothing.
    pub fn states(&self) -> String {
        let of = |domain: String| {
            let ask = |arguments: &[&str]| self.run(arguments).unwrap_or_else(|error| format!("{error:#}"));
            let state = ask(&["domstate", &domain, "--reason"]);
            let registers = ask(&["qemu-monitor-command", &domain, "--hmp", "info registers -a"]);
            let counters =
                registers.lines().filter(|line| line.starts_with("RIP") || line.starts_with("CPU#"));
            format!("{domain}: {}\n{}\n", state.trim(), counters.collect::<Vec<_>>().join("\n"))
        };
        self.domains()
            .map_or_else(|error| format!("{error:#}\n"), |domains| domains.into_iter().map(of).collect())
    }

    /// The QEMU process of each domain, from libvirt's own pid files.
    pub fn qemu_processes(&self) -> Result<BTreeMap<String, ProcessId>> {
        let dir = self.run.join("qemu");
        let mut processes = BTreeMap::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("list {dir}"))? {
            let path = Utf8PathBuf::try_from(entry?.path())?;
            // driver.pid is libvirtd's own.
            let (Some("pid"), Some(name)) = (path.extension(), path.file_stem()) else { continue };
            let Ok(Ok(pid)) = fs::read_to_string(&path).map(|text| text.trim().parse::<i32>()) else {
                continue;
            };
            let Some(id) = ProcessId::of(pid).filter(|id| id.command_line().contains("qemu-system")) else {
                continue;
            };
            processes.insert(name.to_owned(), id);
        }
        Ok(processes)
    }
}

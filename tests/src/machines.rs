//! The machines of a lab, as a test holds them.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use crate::binaries;
use crate::keeper::{LABS, Record};
use crate::machine::Machine;

/// Machines without anything on them yet: one for the control plane, some for hosts, the underlay between
/// them. They end, with everything that runs on them, when this is dropped; see [`crate::keeper`].
pub struct Machines {
    child: Child,
    /// Closing it tells the keeper to clean up.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    dir: Utf8PathBuf,
    record: Record,
}

impl Machines {
    /// Starts a keeper and waits until its machines are there.
    pub fn start(hosts: usize) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab makes namespaces and runs libvirt: run it as root"
        );
        let dir = Utf8PathBuf::from(LABS).join(uuid::Uuid::now_v7().simple().to_string());
        let mut child = Command::new(binaries::find("lab")?)
            .args(["keeper", "--dir", dir.as_str(), "--hosts", &hosts.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C at the terminal ends the test; the keeper has work to do then.
            .process_group(0)
            .spawn()
            .context("start the keeper of the lab")?;
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().context("the keeper has no standard output")?);
        let mut said = String::new();
        stdout.read_line(&mut said).context("listen to the keeper")?;
        ensure!(said.trim() == "ready", "the keeper could not make the lab: {}", said.trim());
        let record = Record::read(&dir)?;
        Ok(Self { child, stdin, stdout, dir, record })
    }

    /// The folder that holds everything of the lab.
    pub fn dir(&self) -> &Utf8Path {
        &self.dir
    }

    /// The bridge between the machines.
    pub fn underlay(&self) -> Result<Machine> {
        self.record.underlay()
    }

    pub fn control(&self) -> Result<Machine> {
        self.record.control()
    }

    /// Host `number`, counted from 1.
    pub fn host(&self, number: usize) -> Result<Machine> {
        self.record.host(number)
    }

    /// Has everything ended and removed; an error says what was left.
    pub fn finish(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(stdin) = self.stdin.take() else { return Ok(()) };
        drop(stdin);
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).context("listen to the keeper")?;
        self.child.wait().context("wait for the keeper")?;
        ensure!(said.trim() == "clean", "the keeper could not clean up: {}", said.trim());
        Ok(())
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("lab: {error:#}");
        }
    }
}

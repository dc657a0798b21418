//! The keeper: the process that makes a lab's machines and is sure to end them.
//!
//! A test can panic, be killed by the test runner's timeout, or by the user's Ctrl-C; the code that cleans
//! up must not live in it. So a lab belongs to a small process of its own: `lab keeper`. It makes the
//! machines, says `ready`, and then reads its standard input, a pipe from the test. When that ends, for
//! whatever reason, it kills everything in the lab's namespaces, removes the lab's folder, and says
//! `clean` or what went wrong.
//!
//! Should a keeper itself be killed, `lab clean` does its work later from the record it left.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::process::ProcessId;
use crate::wiring;

/// All labs of this machine. QEMU runs as another user, so every folder above a disk is searchable.
pub const LABS: &str = "/var/tmp/cumulo-lab";

const RECORD: &str = "lab.json";
const UNDERLAY: &str = "underlay";
const CONTROL: &str = "control";

/// What a keeper made; written to the lab's folder as it goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    keeper: ProcessId,
    pub machines: Vec<Machine>,
}

impl Record {
    pub(crate) fn read(dir: &Utf8Path) -> Result<Self> {
        let path = dir.join(RECORD);
        serde_json::from_slice(&fs::read(&path).with_context(|| format!("read {path}"))?)
            .with_context(|| format!("understand {path}"))
    }

    fn write(&self, dir: &Utf8Path) -> Result<()> {
        let (new, path) = (dir.join("lab.json.new"), dir.join(RECORD));
        fs::write(&new, serde_json::to_vec_pretty(self)?).with_context(|| format!("write {new}"))?;
        fs::rename(&new, &path).with_context(|| format!("put {path} in place"))
    }

    fn machine(&self, name: &str) -> Result<Machine> {
        self.machines
            .iter()
            .find(|m| m.name == name)
            .cloned()
            .with_context(|| format!("the lab has no {name}"))
    }

    pub(crate) fn underlay(&self) -> Result<Machine> {
        self.machine(UNDERLAY)
    }

    pub(crate) fn control(&self) -> Result<Machine> {
        self.machine(CONTROL)
    }

    /// Host `number`, counted from 1.
    pub(crate) fn host(&self, number: usize) -> Result<Machine> {
        self.machine(&host_name(number))
    }
}

fn host_name(number: usize) -> String {
    format!("h{number}")
}

/// The keeper process: `lab keeper --dir DIR --hosts N`.
pub fn keep(dir: &Utf8Path, hosts: usize) -> Result<()> {
    let made = make(dir, hosts);
    match &made {
        Ok(()) => say("ready")?,
        Err(error) => say(&format!("{error:#}").replace('\n', " "))?,
    }
    if made.is_ok() {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    }
    match clean(dir) {
        Ok(()) => say("clean"),
        Err(error) => say(&format!("{error:#}")),
    }
}

/// Nobody may be listening any more; cleaning goes on all the same.
fn say(text: &str) -> Result<()> {
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}

fn make(dir: &Utf8Path, hosts: usize) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("make {dir}"))?;
    let keeper = ProcessId::of(std::process::id().cast_signed()).context("find myself in /proc")?;
    let mut record = Record { keeper, machines: Vec::new() };
    let cache = Utf8Path::new(LABS).join("cache");
    let names = [UNDERLAY.to_owned(), CONTROL.to_owned()].into_iter().chain((1..=hosts).map(host_name));
    for name in names {
        record.machines.push(Machine::create(&name, &dir.join(&name), &cache)?);
        record.write(dir)?;
    }
    let mut cables = vec![(&record.machines[1], wiring::CONTROL_ADDRESS.to_owned())];
    cables.extend(record.machines[2..].iter().enumerate().map(|(i, m)| (m, wiring::host_address(i + 1))));
    wiring::connect(&record.machines[0], &cables)
}

/// Ends the machines of a lab and removes its folder.
fn clean(dir: &Utf8Path) -> Result<()> {
    let record = Record::read(dir)?;
    let failures: Vec<String> =
        record.machines.iter().filter_map(|m| m.end().err()).map(|error| format!("{error:#}")).collect();
    if !failures.is_empty() {
        bail!("{}", failures.join("; "));
    }
    fs::remove_dir_all(dir).with_context(|| format!("remove {dir}"))
}

/// Ends what is left of labs whose keeper was killed. Returns their number.
pub fn clean_abandoned() -> Result<usize> {
    let Ok(entries) = fs::read_dir(LABS) else { return Ok(0) };
    let mut cleaned = 0;
    for entry in entries {
        let dir = Utf8PathBuf::try_from(entry?.path()).context("read the name of a lab")?;
        // Folders without a record are the shared cache, or a lab that is just being made.
        let Ok(record) = Record::read(&dir) else { continue };
        if !record.keeper.is_alive() {
            clean(&dir)?;
            cleaned += 1;
        }
    }
    Ok(cleaned)
}

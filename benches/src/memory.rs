//! B10 and B18: resident memory of the services, as the kernel counts it.
//!
//! PSS shares pages that several processes map among them (proc(5), `smaps_rollup`); "own" is what no file
//! backs and so belongs to the process alone.

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::compare::write;

const MIB: f64 = 1024.0;

struct Process {
    name: String,
    pss: f64,
    own: f64,
}

/// B10.
pub(crate) fn agent() -> Result<()> {
    table("b10", &["cumulo-agent", "libvirtd"])
}

/// B18.
pub(crate) fn control_plane() -> Result<()> {
    table("b18", &["cumulo-api", "postgres", "cumulo-agent"])
}

fn table(bench: &str, names: &[&str]) -> Result<()> {
    let all = processes()?;
    println!("{bench}, MiB\n\n{:<16} {:>9} {:>9} {:>9}", "", "processes", "PSS", "own");
    let mut rows = Vec::new();
    for name in names {
        let these: Vec<_> = all.iter().filter(|process| process.name == *name).collect();
        ensure!(!these.is_empty(), "no {name} runs; run `make up` first");
        let sum = |part: fn(&Process) -> f64| these.iter().map(|process| part(process)).sum::<f64>() / MIB;
        let (pss, own) = (sum(|process| process.pss), sum(|process| process.own));
        println!("{name:<16} {:>9} {pss:>9.1} {own:>9.1}", these.len());
        rows.push(json!({"name": name, "processes": these.len(), "pss_mib": pss, "own_mib": own}));
    }
    write(bench, &json!({"bench": bench, "rows": rows}))
}

/// The most memory that the process of this name has had resident, in MiB.
pub(crate) fn peak_mib(name: &str) -> Result<f64> {
    for entry in std::fs::read_dir("/proc").context("read /proc")? {
        let path = entry?.path();
        if let Ok(status) = std::fs::read_to_string(path.join("status"))
            && status.lines().next() == Some(&format!("Name:\t{name}"))
        {
            return Ok(field(&status, "VmHWM:") / MIB);
        }
    }
    bail!("no {name} runs; run `make up` first")
}

/// Every process whose memory can be read, in KiB.
fn processes() -> Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").context("read /proc")? {
        let path = entry?.path();
        // A process may end while it is looked at.
        let (Ok(name), Ok(rollup)) =
            (std::fs::read_to_string(path.join("comm")), std::fs::read_to_string(path.join("smaps_rollup")))
        else {
            continue;
        };
        let (pss, own) = (field(&rollup, "Pss:"), field(&rollup, "Pss_Anon:"));
        all.push(Process { name: name.trim().to_owned(), pss, own });
    }
    Ok(all)
}

fn field(rollup: &str, name: &str) -> f64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

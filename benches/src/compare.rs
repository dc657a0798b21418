//! Two series side by side: as a table for people and as JSON for machines.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What was measured of one side.
pub(crate) struct Series {
    pub name: &'static str,
    pub values: Vec<f64>,
}

impl Series {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, values: Vec::new() }
    }

    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    fn json(&self) -> Value {
        json!({"name": self.name, "median": self.median(), "values": self.values})
    }
}

/// Prints the table and writes `target/bench/<name>.json`.
pub(crate) fn report(name: &str, unit: &str, ours: &Series, peer: &Series) -> Result<()> {
    let load = table(name, unit, &[ours, peer])?;
    let ratio = ours.median() / peer.median();
    println!("\nratio of the medians {ratio:.2}, difference {:+.1} {unit}", ours.median() - peer.median());
    let document = json!({"bench": name, "unit": unit, "load_average": load, "ours": ours.json(),
        "peer": peer.json(), "ratio": ratio});
    write(name, &document)
}

/// The same of series of which none is the peer of another.
pub(crate) fn report_all(name: &str, unit: &str, all: &[&Series]) -> Result<()> {
    let load = table(name, unit, all)?;
    let series: Vec<_> = all.iter().map(|series| series.json()).collect();
    write(name, &json!({"bench": name, "unit": unit, "load_average": load, "series": series}))
}

/// Prints the table; gives the load average.
fn table(name: &str, unit: &str, all: &[&Series]) -> Result<String> {
    let load = load_average()?;
    let load = load.split(' ').next().unwrap_or_default();
    let rounds = all.iter().map(|series| series.values.len()).max().unwrap_or_default();
    println!("\n{name}, {unit}, {rounds} rounds each, load average {load}\n");
    println!("{:<52} {:>10} {:>10} {:>10}", "", "median", "min", "max");
    for series in all {
        let sorted = series.sorted();
        let (min, max) = (sorted.first().unwrap_or(&f64::NAN), sorted.last().unwrap_or(&f64::NAN));
        println!("{:<52} {:>10.1} {min:>10.1} {max:>10.1}", series.name, series.median());
    }
    Ok(load.to_owned())
}

/// As the kernel says it (proc(5), `loadavg`).
pub(crate) fn load_average() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/loadavg").context("read the load average")?.trim_end().to_owned())
}

pub(crate) fn write(name: &str, document: &Value) -> Result<()> {
    std::fs::create_dir_all("target/bench").context("make target/bench")?;
    let path = format!("target/bench/{name}.json");
    std::fs::write(&path, serde_json::to_vec_pretty(document)?).with_context(|| format!("write {path}"))
}

//! What processes take, as the kernel counts it (proc(5)).

use anyhow::{Context, Result};

/// Processor time of these processes, in seconds.
pub(crate) fn cpu_seconds(processes: &[u32]) -> Result<f64> {
    // One may have ended meanwhile.
    let all = processes.iter().filter_map(|pid| cpu_seconds_in(&format!("/proc/{pid}/stat")).ok());
    Ok(all.sum())
}

/// The same of the process or thread of this file.
pub(crate) fn cpu_seconds_in(stat: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(stat).with_context(|| format!("read {stat}"))?;
    // What follows the name, which may hold blanks: the state is field 3, so 14 and 15 are these.
    let fields: Vec<_> = stat.rsplit_once(')').context("a stat")?.1.split_whitespace().collect();
    let ticks = |index: usize| Ok::<_, anyhow::Error>(fields.get(index).context("a field")?.parse::<u64>()?);
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("ticks of a second")?;
    Ok((ticks(11)? + ticks(12)?) as f64 / per_second as f64)
}

/// Memory that no file backs, of the same, in MiB.
pub(crate) fn own_mib(processes: &[u32]) -> Result<f64> {
    let mut kib = 0.0;
    for one in processes {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{one}/status")) else { continue };
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
        kib += line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(kib / 1024.0)
}

/// A process and the children that it has now.
pub(crate) fn family(pid: u32) -> Result<Vec<u32>> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut all = vec![pid];
    for child in children.split_whitespace() {
        all.push(child.parse()?);
    }
    Ok(all)
}

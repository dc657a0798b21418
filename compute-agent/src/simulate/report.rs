//! What a fleet has come to, for people and for tests.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result};
use camino::Utf8Path;
use protocol::{InstanceId, Name};
use serde::Serialize;

use super::host::SimulatedHost;
use super::sharing::Ordeals;

/// Since the hosts joined, over all processes that they were in.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    hosts: usize,
    /// Guests that run, or stand still, at the end.
    guests: usize,
    /// Starts of guests.
    starts: u64,
    /// Starts that were refused, as the faults say.
    refused: u64,
    /// Agents that were started anew, and silences, in this process.
    restarts: u64,
    silences: u64,
    /// Must be empty.
    started_twice: Vec<StartedTwice>,
    /// Of hosts that share pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    ordeals: Option<Ordeals>,
}

#[derive(Debug, Serialize)]
struct StartedTwice {
    host: Name,
    instance: InstanceId,
    boot: i64,
}

impl Report {
    pub(super) fn of(hosts: &[Arc<SimulatedHost>], ordeals: Option<Ordeals>) -> Self {
        let mut report = Self {
            hosts: hosts.len(),
            guests: 0,
            starts: 0,
            refused: 0,
            restarts: 0,
            silences: 0,
            started_twice: Vec::new(),
            ordeals,
        };
        for host in hosts {
            let tally = host.tally();
            report.guests += tally.domains;
            report.starts += tally.starts;
            report.refused += tally.refused;
            let (restarts, silences) = host.struck();
            (report.restarts, report.silences) = (report.restarts + restarts, report.silences + silences);
            let twice = |(instance, boot)| StartedTwice { host: host.name.clone(), instance, boot };
            // A machine that has lost its power starts a boot once more: the check of the history knows which.
            if report.ordeals.is_none() {
                report.started_twice.extend(tally.repeated.into_iter().map(twice));
            }
        }
        report
    }

    pub(super) fn write(&self, file: &Utf8Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(file, text + "\n").with_context(|| format!("the report cannot be written to {file}"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, guests, starts, refused, started_twice, ordeals, .. } = self;
        write!(f, "{hosts} hosts with {guests} guests, {starts} starts, {refused} refused")?;
        match started_twice.len() {
            0 => write!(f, ", no boot started twice")?,
            twice => write!(f, ", {twice} BOOTS STARTED TWICE")?,
        }
        match ordeals {
            Some(ordeals) => write!(f, ", {} ordeals with {} FINDINGS", ordeals.done, ordeals.findings.len()),
            None => Ok(()),
        }
    }
}

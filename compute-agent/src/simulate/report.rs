//! What a fleet has come to, for people and for tests.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result};
use camino::Utf8Path;
use protocol::{InstanceId, Name};
use serde::Serialize;

use super::host::SimulatedHost;

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
    /// Must be empty.
    started_twice: Vec<StartedTwice>,
}

#[derive(Debug, Serialize)]
struct StartedTwice {
    host: Name,
    instance: InstanceId,
    boot: i64,
}

impl Report {
    pub(super) fn of(hosts: &[Arc<SimulatedHost>]) -> Self {
        let mut report =
            Self { hosts: hosts.len(), guests: 0, starts: 0, refused: 0, started_twice: Vec::new() };
        for host in hosts {
            let tally = host.tally();
            report.guests += tally.domains;
            report.starts += tally.starts;
            report.refused += tally.refused;
            let twice = |(instance, boot)| StartedTwice { host: host.name.clone(), instance, boot };
            report.started_twice.extend(tally.repeated.into_iter().map(twice));
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
        let Self { hosts, guests, starts, refused, started_twice } = self;
        write!(f, "{hosts} hosts with {guests} guests, {starts} starts, {refused} refused")?;
        match started_twice.len() {
            0 => write!(f, ", no boot started twice"),
            twice => write!(f, ", {twice} BOOTS STARTED TWICE"),
        }
    }
}

//! A group of hosts that share a pool, which goes through one ordeal after the other.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use camino::Utf8PathBuf;
use protocol::{InstanceId, Name};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::super::host::SimulatedHost;
use super::super::options::Options;
use super::check::{Finding, Verdict, check};
use super::history::{History, What, now};
use super::host::SharingHost;
use super::ordeal::Ordeal;
use super::pools::GroupPool;
use crate::host_storage::SimulatedStorage;

/// Between two looks at what runs.
const LOOK: Duration = Duration::from_millis(200);
/// What runs for so long is at rest.
const AT_REST: Duration = Duration::from_secs(5);
/// After an ordeal all guests run again within that: a lease, a takeover, and the longest pauses between starts.
const RECOVERED: Duration = Duration::from_secs(240);
/// Between the starts of two hosts, so that not all of them ask at once.
const APART: Duration = Duration::from_millis(120);

/// The seeds that are still to come, and what has come of the others.
pub(super) struct Seeds {
    inner: Mutex<(std::ops::Range<u64>, Ordeals)>,
    file: Mutex<File>,
}

/// What a fleet's ordeals have come to.
#[derive(Debug, Clone, Default, Serialize)]
pub(in crate::simulate) struct Ordeals {
    pub(in crate::simulate) done: u64,
    /// Of those, the ones after which not all guests ran again in time.
    unrecovered: Vec<u64>,
    /// Guests that were started on another host.
    moved: usize,
    /// Guests that went to another host while they ran.
    migrated: usize,
    /// See [`Verdict::longest_moment`].
    longest_moment: u64,
    /// What must not be, with the seed.
    pub(in crate::simulate) findings: Vec<(u64, Finding)>,
}

/// A line of `ordeals.jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    group: &'a Name,
    seed: u64,
    ordeal: String,
    /// Whether all guests ran again in time.
    recovered: bool,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

impl Seeds {
    pub(super) fn open(options: &Options) -> Result<Self> {
        let path = options.state_dir.join("ordeals.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = Mutex::new(file.with_context(|| format!("{path} cannot be opened"))?);
        let seeds = options.seed..options.seed.saturating_add(options.ordeals);
        Ok(Self { inner: Mutex::new((seeds, Ordeals::default())), file })
    }

    pub(super) fn told(&self) -> Ordeals {
        self.lock().1.clone()
    }

    fn next(&self) -> Option<u64> {
        self.lock().0.next()
    }

    fn done(&self, line: &Line<'_>) -> Result<()> {
        {
            let told = &mut self.lock().1;
            told.done += 1;
            told.moved += line.verdict.moved;
            told.migrated += line.verdict.migrated;
            told.longest_moment = told.longest_moment.max(line.verdict.longest_moment);
            told.findings.extend(line.verdict.findings.iter().map(|finding| (line.seed, finding.clone())));
            if !line.recovered {
                told.unrecovered.push(line.seed);
            }
        }
        let text = serde_json::to_string(line)? + "\n";
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(text.as_bytes()).context("what has come of an ordeal cannot be written down")
    }

    fn lock(&self) -> MutexGuard<'_, (std::ops::Range<u64>, Ordeals)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub(super) struct Group {
    name: Name,
    number: u32,
    hosts: Vec<SharingHost>,
    history: Arc<History>,
    file: Utf8PathBuf,
    seeds: Arc<Seeds>,
    /// How many run when all is well.
    guests: usize,
}

impl Group {
    pub(super) fn open(
        options: &Options,
        number: u32,
        members: &[Arc<SimulatedHost>],
        seeds: Arc<Seeds>,
    ) -> Result<Self> {
        let name: Name = format!("shared-{number:03}").parse()?;
        let folder = options.state_dir.join("pools");
        std::fs::create_dir_all(&folder).with_context(|| format!("{folder} cannot be made"))?;
        let file = folder.join(format!("{name}.history"));
        let history = Arc::new(History::open(&file).with_context(|| format!("{file} cannot be read"))?);
        let content = folder.join(format!("{name}.json"));
        let content = SimulatedStorage::kept_in(content, options.disk(), options.step_latency)?;
        let pool =
            Arc::new(GroupPool::open(name.clone(), &folder.join(name.as_str()), content, options.disk())?);
        let open = |host: &Arc<SimulatedHost>| {
            let (pool, history) = (Arc::clone(&pool), Arc::clone(&history));
            SharingHost::open(Arc::clone(host), pool, history, !options.toothless_guards)
        };
        let hosts = members.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { name, number, hosts, history, file, seeds, guests: options.guests })
    }

    /// One ordeal after the other, each once all guests run that are to, and after those of the one before have gone.
    pub(super) fn run(&self, stop: &CancellationToken) -> Result<()> {
        for (number, host) in (0..).zip(&self.hosts) {
            let turn = (self.number - 1) * u32::try_from(self.hosts.len()).unwrap_or(1) + number;
            pause(if number == 0 { APART * turn } else { APART }, stop);
            host.power_on()?;
        }
        let ended = self.go_through_all(stop);
        self.hosts.iter().for_each(SharingHost::leave);
        ended
    }

    fn go_through_all(&self, stop: &CancellationToken) -> Result<()> {
        let mut before = BTreeSet::new();
        while let Some(guests) = self.wait_guests(&before, None, stop) {
            self.history.forget(&before);
            let Some(seed) = self.seeds.next() else { break };
            let ordeal = Ordeal::of(seed, self.hosts.len());
            self.go_through(&ordeal, stop)?;
            self.judge(&ordeal, stop)?;
            before = guests;
        }
        stop_or_wait(stop);
        Ok(())
    }

    fn go_through(&self, ordeal: &Ordeal, stop: &CancellationToken) -> Result<()> {
        tracing::info!(group = %self.name, %ordeal, "an ordeal begins");
        let begun = Instant::now();
        for step in ordeal.steps() {
            pause(step.at.saturating_sub(begun.elapsed()), stop);
            if stop.is_cancelled() {
                break;
            }
            let host = &self.hosts[step.host];
            let verb = if step.begins { "begins" } else { "ends" };
            let fault = format!("{:?} {verb}", step.fault);
            self.history.add(host.name(), What::Fault { seed: ordeal.seed, fault });
            if step.begins { host.begin(step.fault)? } else { host.end(step.fault)? }
        }
        Ok(())
    }

    fn judge(&self, ordeal: &Ordeal, stop: &CancellationToken) -> Result<()> {
        // Where two run at once there is nothing to wait for.
        let is_bad = !self.verdict().findings.is_empty();
        let recovered = !is_bad && self.wait_guests(&BTreeSet::new(), Some(RECOVERED), stop).is_some();
        if stop.is_cancelled() && !is_bad {
            return Ok(());
        }
        let verdict = self.verdict();
        let Self { name, file, .. } = self;
        if !verdict.findings.is_empty() {
            let findings = &verdict.findings;
            tracing::error!(group = %name, %ordeal, ?findings, history = %file, "INSTANCES RAN WHERE THEY MUST NOT");
        } else if !recovered {
            tracing::error!(group = %name, %ordeal, history = %file, "not all guests run again");
        }
        let ordeal_text = ordeal.to_string();
        let line = Line { group: name, seed: ordeal.seed, ordeal: ordeal_text, recovered, verdict: &verdict };
        self.seeds.done(&line)
    }

    fn verdict(&self) -> Verdict {
        check(&self.history.records(), now())
    }

    /// The guests, once as many run for a while as are to, and none of those that ran before; nothing when it takes too
    /// long or all stops.
    fn wait_guests(
        &self,
        before: &BTreeSet<InstanceId>,
        limit: Option<Duration>,
        stop: &CancellationToken,
    ) -> Option<BTreeSet<InstanceId>> {
        let (begun, mut since) = (Instant::now(), None);
        while !stop.is_cancelled() && limit.is_none_or(|limit| begun.elapsed() < limit) {
            let running: Vec<_> = self.hosts.iter().flat_map(SharingHost::guests).collect();
            let different: BTreeSet<_> = running.iter().copied().collect();
            let are_they = running.len() == self.guests
                && different.len() == self.guests
                && different.is_disjoint(before);
            since = are_they.then(|| since.unwrap_or_else(Instant::now));
            if since.is_some_and(|since: Instant| since.elapsed() >= AT_REST) {
                return Some(different);
            }
            std::thread::sleep(LOOK);
        }
        None
    }
}

fn pause(time: Duration, stop: &CancellationToken) {
    let until = Instant::now() + time;
    while !stop.is_cancelled() && Instant::now() < until {
        std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
    }
}

fn stop_or_wait(stop: &CancellationToken) {
    while !stop.is_cancelled() {
        std::thread::sleep(LOOK);
    }
}

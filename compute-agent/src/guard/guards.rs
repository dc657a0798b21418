//! The agent's side: which guests are to be guarded, and whether they may start.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camino::Utf8PathBuf;
use protocol::agent::{GuardedPool, LEASE_WRITE_SECONDS, OnHostFailure};
use protocol::{InstanceId, Name};
use tokio::sync::Notify;
use uuid::Uuid;

use super::clock::{Moment, SharedBootClock};
use super::entries::{self, Entry, Held};
use super::status::{self, Status};
use super::terms::{Lease, Leases, offence};
use super::{FOLDER, Times};
use crate::chain;
use crate::desired::Wanted;
use crate::hypervisor::Domain;

/// A guard that has said nothing for so long does not guard.
const SILENT: Duration = Duration::from_secs(5);
/// A lease that was not renewed for so long is no ground to start on.
const STALE: Duration = Duration::from_secs(3 * LEASE_WRITE_SECONDS as u64);
/// How long after the lease was gained the control plane must have been asked: by then, no witness tells any more that it was
/// lapsed.
const SETTLED: Duration = Duration::from_secs(15);
/// How often the control plane is asked anew.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Why nothing may be started, or written into a shared pool, for an instance that others take over when this host dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    NoGuard,
    /// The guard was told to end.
    Ending,
    NoLease,
    /// What is wanted was last heard before the lease was gained: it may be another host's instance by now.
    Unheard,
}

impl Unready {
    /// For the instance's owner.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NoGuard | Self::Ending => {
                "The guard of its host does not run, without which no instance starts that is restarted elsewhere when its \
                 host fails."
            }
            Self::NoLease => "Its host cannot renew its lease in the shared pool of the instance's disks.",
            Self::Unheard => {
                "Its host asks the control plane once more, as its lease in the shared pool had lapsed."
            }
        }
    }

    /// For the owner of a running guest that was to come here.
    pub fn of_destination(self) -> &'static str {
        match self {
            Self::NoGuard | Self::Ending => {
                "The guard of the other host does not run, without which it takes no guest that is restarted elsewhere when its \
                 host fails."
            }
            Self::NoLease => "The other host cannot renew its lease in the shared pool of the guest's disks.",
            Self::Unheard => {
                "The other host has not heard the control plane since its lease in the shared pool had lapsed."
            }
        }
    }
}

/// What is known of the guarding of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guarding {
    /// What is written down.
    pub entry: Option<Entry>,
    /// Whether it has to be guarded.
    pub is_required: bool,
    /// What is to be written down, once that can be said.
    pub wanted: Option<Entry>,
    pub unready: Option<Unready>,
    /// Whether the guard goes by what is written down.
    pub is_watched: bool,
    /// Whether its guest lost its power because the lease was lost.
    pub is_fenced: bool,
}

/// See the module.
pub struct Guards {
    folder: Utf8PathBuf,
    pools: BTreeMap<Name, Utf8PathBuf>,
    machine_boot: Uuid,
    clock: SharedBootClock,
    entries: Mutex<HashMap<InstanceId, Entry>>,
    /// When the newest request began that the control plane has answered with what is wanted.
    heard: Mutex<Option<Moment>>,
    asked: Mutex<Option<Moment>>,
    ask: Notify,
}

impl Guards {
    /// Opens the guard's folder in the agent's, which is made when it is missing.
    pub fn open(
        state_dir: &camino::Utf8Path,
        pools: BTreeMap<Name, Utf8PathBuf>,
        machine_boot: Uuid,
        clock: SharedBootClock,
    ) -> io::Result<Self> {
        let folder = state_dir.join(FOLDER);
        entries::make(&folder)?;
        let found = entries::read(&folder)?;
        let entries = found.into_iter().filter_map(|(id, entry)| Some((id, entry?))).collect();
        let (heard, asked, ask) = (Mutex::default(), Mutex::default(), Notify::new());
        Ok(Self { folder, pools, machine_boot, clock, entries: Mutex::new(entries), heard, asked, ask })
    }

    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// The control plane has said what is wanted, to a request that began then.
    pub fn heard(&self, begun: Moment) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        *heard = (*heard).max(Some(begun));
    }

    /// Returns when the control plane is to be asked at once what is wanted. For one caller.
    pub async fn asks(&self) {
        self.ask.notified().await;
    }

    /// Looks at files of this host, and at no pool. `boot` is the one of the record.
    pub fn look(&self, wanted: &Wanted, boot: Option<i64>, live: Option<&Domain>) -> io::Result<Guarding> {
        let entry = self.entries().get(&wanted.id()).cloned();
        let pools = required(wanted);
        if entry.is_none() && pools.is_empty() {
            return Ok(Guarding::default());
        }
        let fenced = entries::fenced(&self.folder, wanted.id())?;
        let is_fenced = boot.is_some() && fenced.is_some_and(|fenced| Some(fenced.boot) == boot);
        if pools.is_empty() {
            return Ok(Guarding { entry, is_fenced, ..Guarding::default() });
        }
        let status = self.status();
        let unready = self.unready(status.as_ref(), &pools);
        let watched = status.as_ref().and_then(|status| status.guests.get(&wanted.id()));
        Ok(Guarding {
            is_required: true,
            is_watched: watched.is_some() && watched == entry.as_ref().map(|entry| &entry.written),
            wanted: self.wanted(wanted, live, entry.as_ref(), &pools, status.as_ref(), unready),
            entry,
            unready,
            is_fenced,
        })
    }

    fn wanted(
        &self,
        wanted: &Wanted,
        live: Option<&Domain>,
        entry: Option<&Entry>,
        required: &[Name],
        status: Option<&Status>,
        unready: Option<Unready>,
    ) -> Option<Entry> {
        let Wanted::Instance(spec) = wanted else { return None };
        let boot = live.map_or(spec.boot, |domain| domain.boot);
        // What was allowed stays as it was: the guard knows whether that still holds.
        let running = entry.filter(|entry| live.is_some() && entry.boot == boot);
        let mut pools = BTreeMap::new();
        for name in required {
            let held = match running.and_then(|entry| entry.pools.get(name)) {
                Some(held) => held.clone(),
                None if unready.is_some() => return None,
                None => {
                    let term = status?.leases.get(name)?.term;
                    Held { root: self.pools.get(name)?.clone(), term }
                }
            };
            pools.insert(name.clone(), held);
        }
        let is_wanted = |id| wanted.disks().iter().any(|disk| disk.volume.id == id);
        if live.is_some_and(|domain| domain.volumes.iter().any(|volume| !is_wanted(volume.id))) {
            for (name, held) in running.into_iter().flat_map(|entry| &entry.pools) {
                pools.entry(name.clone()).or_insert_with(|| held.clone());
            }
        }
        let same = entry.filter(|entry| entry.boot == boot && entry.pools == pools).cloned();
        Some(same.unwrap_or_else(|| Entry { boot, pools, written: self.clock.now() }))
    }

    fn unready(&self, status: Option<&Status>, pools: &[Name]) -> Option<Unready> {
        let Some(status) = status.filter(|status| self.is_alive(status)) else {
            return Some(Unready::NoGuard);
        };
        if status.ending {
            return Some(Unready::Ending);
        }
        let leases: Option<Vec<_>> = pools.iter().map(|pool| self.fresh(status, pool)).collect();
        let Some(leases) = leases else { return Some(Unready::NoLease) };
        let gained = leases.iter().filter_map(|lease| lease.since).max()?;
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.is_some_and(|heard| heard >= gained + SETTLED) {
            return None;
        }
        if self.clock.now() >= gained + SETTLED {
            self.ask();
        }
        Some(Unready::Unheard)
    }

    fn ask(&self) {
        let now = self.clock.now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none_or(|asked| now.since(asked) >= ASK_AGAIN) {
            *asked = Some(now);
            self.ask.notify_one();
        }
    }

    fn fresh<'a>(&self, status: &'a Status, pool: &Name) -> Option<&'a Lease> {
        let lease = status.leases.get(pool)?;
        let is_there = self.pools.get(pool).is_some_and(|root| status.pools.get(pool) == Some(root));
        (is_there && !lease.is_lapsed(self.clock.now(), STALE)).then_some(lease)
    }

    /// Whether a guard says this that still guards.
    fn is_alive(&self, status: &Status) -> bool {
        status.machine_boot == self.machine_boot
            && self.clock.now().since(status.at) <= SILENT
            && status.process.is_alive()
    }

    fn status(&self) -> Option<Status> {
        status::read(&self.folder).unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "what the guard says cannot be read");
            None
        })
    }

    /// When this returns, the guest is guarded as soon as the guard looks.
    pub fn put(&self, id: InstanceId, entry: &Entry) -> io::Result<()> {
        entries::forget_fenced(&self.folder, id)?;
        entries::put(&self.folder, id, entry)?;
        self.entries().insert(id, entry.clone());
        Ok(())
    }

    /// There is no such guest any more, or it need not be guarded.
    pub fn remove(&self, id: InstanceId) -> io::Result<()> {
        entries::remove(&self.folder, id)?;
        self.entries().remove(&id);
        Ok(())
    }

    /// The instances of which something is written down.
    pub fn ids(&self) -> Vec<InstanceId> {
        self.entries().keys().copied().collect()
    }

    /// The pools whose leases are kept fresh now.
    pub fn guarded_pools(&self) -> Vec<GuardedPool> {
        let Some(status) = self.status().filter(|status| self.is_alive(status) && !status.ending) else {
            return Vec::new();
        };
        let fresh = self.pools.keys().filter_map(|pool| Some((pool, self.fresh(&status, pool)?)));
        fresh.map(|(pool, lease)| GuardedPool { pool: pool.clone(), counter: lease.counter }).collect()
    }

    /// What an operator has to see to, while guests are guarded.
    pub fn faults(&self) -> Vec<String> {
        let pools: std::collections::BTreeSet<_> =
            self.entries().values().flat_map(|entry| entry.pools.keys().cloned()).collect();
        if pools.is_empty() {
            return Vec::new();
        }
        let Some(status) = self.status().filter(|status| self.is_alive(status)) else {
            return vec!["start the guard: guests run that are to run only under it".to_owned()];
        };
        let stale = pools.iter().filter(|pool| self.fresh(&status, pool).is_none());
        stale
            .map(|pool| match status.faults.get(pool) {
                Some(fault) => {
                    format!("look at the shared pool {pool}: its lease cannot be renewed: {fault}")
                }
                None => format!("look at the shared pool {pool}: its lease is not renewed"),
            })
            .collect()
    }

    /// The guests that must not run, and whose guard does not see to that, with the reason.
    pub(super) fn abandoned(&self) -> Vec<(InstanceId, entries::Fenced)> {
        let guarded = self.entries().clone();
        if guarded.is_empty() {
            return Vec::new();
        }
        let status = self.status();
        if status.as_ref().is_some_and(|status| self.is_alive(status)) {
            return Vec::new();
        }
        let known = status.filter(|status| status.machine_boot == self.machine_boot);
        let leases = known.map_or_else(Leases::default, |status| status.leases);
        let now = self.clock.now();
        let doomed = guarded.iter().filter_map(|(id, entry)| {
            let (pool, why) = offence(entry, &leases, now, Times::default().lease)?;
            Some((*id, entries::Fenced::now(entry.boot, pool, why)))
        });
        doomed.collect()
    }

    pub(super) fn folder(&self) -> &camino::Utf8Path {
        &self.folder
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<InstanceId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shared pools for which an instance has to be guarded: those of its disks, if others take it over.
fn required(wanted: &Wanted) -> Vec<Name> {
    match wanted {
        Wanted::Instance(spec) if spec.on_host_failure == OnHostFailure::Restart => {
            let pools = spec.disks.iter().filter_map(|disk| disk.volume.pool.clone());
            let mut pools: Vec<_> = pools.collect();
            pools.sort_unstable();
            pools.dedup();
            pools
        }
        _ => Vec::new(),
    }
}

//! Keeps the host's networks as the last document says.
//!
//! One convergence at a time. Whoever asks gets one that began after it asked, and shares it with those who
//! asked before it began. Between times everything is made to match again, because devices and rules get lost. Once a
//! minute the host is compared with the document without changing anything, and what is found is reported.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::agent::{HostNetwork, NetworkCheck, NetworkFault, NetworkReport, NetworkSubject};
use protocol::{InstanceId, NetworkId, PortId, Revision};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};

use super::faults::fair;
use super::store::NetworkStore;
use super::{Found, HostNetworking, Outcome, Readiness};
use crate::chain;
use crate::clock::SharedClock;
use crate::report::Outbox;

/// How often the host is made to match without a reason.
pub const REPAIR: Duration = Duration::from_secs(10);
/// How old a comparison that found nothing may become.
const CHECK: time::Duration = time::Duration::seconds(60);

/// See the module.
pub struct Keeper {
    store: Arc<NetworkStore>,
    networking: Arc<dyn HostNetworking>,
    outbox: Arc<Outbox>,
    clock: SharedClock,
    check: Mutex<Option<NetworkCheck>>,
    /// What that comparison found; `None` when it could not be made.
    found: Mutex<Option<Vec<Found>>>,
    /// Held while the host is made to match; the number of the first question that came too late for the last one.
    covers: tokio::sync::Mutex<u64>,
    asked: AtomicU64,
    nudge: Notify,
    ports: Mutex<HashMap<PortId, Port>>,
    /// Those that the host was last made to match, and whether cards can be used in them.
    networks: Mutex<HashMap<NetworkId, bool>>,
    changed: Mutex<HashSet<InstanceId>>,
    has_changed: Notify,
}

/// What is known of a port since the host was last made to match.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    instance_id: InstanceId,
    is_faulty: bool,
}

impl Keeper {
    pub fn new(
        store: Arc<NetworkStore>,
        networking: Arc<dyn HostNetworking>,
        outbox: Arc<Outbox>,
        clock: SharedClock,
    ) -> Self {
        Self {
            store,
            networking,
            outbox,
            clock,
            check: Mutex::default(),
            found: Mutex::default(),
            covers: tokio::sync::Mutex::new(0),
            asked: AtomicU64::new(0),
            nudge: Notify::new(),
            ports: Mutex::default(),
            networks: Mutex::default(),
            changed: Mutex::default(),
            has_changed: Notify::new(),
        }
    }

    /// Runs until it is dropped; does nothing while this agent may not act.
    pub async fn run(&self, mut acting: watch::Receiver<bool>, repair: Duration) {
        // A sender that is gone never allows it again.
        while acting.wait_for(|acting| *acting).await.is_ok() {
            self.ensure_and_check().await;
            tokio::select! {
                () = self.nudge.notified() => {}
                () = tokio::time::sleep(repair) => {}
            }
        }
        std::future::pending::<()>().await;
    }

    /// Makes the host match as soon as possible.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Makes the host match the last document, if there is one.
    pub async fn ensure(&self) {
        let question = self.asked.fetch_add(1, Ordering::SeqCst);
        let mut covers = self.covers.lock().await;
        if *covers > question {
            return;
        }
        let covered = self.asked.load(Ordering::SeqCst);
        self.converge(false).await;
        *covers = covered;
    }

    /// The same, and compares the host with the document afterwards, if the last comparison is old or found something.
    async fn ensure_and_check(&self) {
        let mut covers = self.covers.lock().await;
        let covered = self.asked.load(Ordering::SeqCst);
        self.converge(true).await;
        *covers = covered;
    }

    /// Whether the cards of these ports can be used, as far as is known.
    pub fn readiness(&self, ports: impl IntoIterator<Item = PortId>) -> HashMap<PortId, Readiness> {
        let ports: Vec<_> = ports.into_iter().collect();
        let Some(stored) = (!ports.is_empty()).then(|| self.store.get()).flatten() else {
            return ports.into_iter().map(|port| (port, Readiness::Unnamed)).collect();
        };
        let named: HashSet<_> =
            stored.networks.networks.iter().flat_map(|network| &network.ports).map(|port| port.id).collect();
        let known = lock(&self.ports);
        let readiness = |port| match known.get(&port) {
            _ if !named.contains(&port) => Readiness::Unnamed,
            None => Readiness::Pending,
            Some(Port { is_faulty: false, .. }) => Readiness::Ready,
            Some(Port { is_faulty: true, .. }) => Readiness::Faulty,
        };
        ports.into_iter().map(|port| (port, readiness(port))).collect()
    }

    /// Whether cards find their bridges in these networks, as far as is known. That of a guest which is on its way here is
    /// no port of this host yet.
    pub fn networks(&self, wanted: impl IntoIterator<Item = NetworkId>) -> HashMap<NetworkId, Readiness> {
        let stored = self.store.get();
        let is_named = |id: NetworkId| {
            stored.as_ref().is_some_and(|stored| stored.networks.networks.iter().any(|one| one.id == id))
        };
        let known = lock(&self.networks);
        let readiness = |id| match known.get(&id) {
            _ if !is_named(id) => Readiness::Unnamed,
            None => Readiness::Pending,
            Some(true) => Readiness::Ready,
            Some(false) => Readiness::Faulty,
        };
        wanted.into_iter().map(|id| (id, readiness(id))).collect()
    }

    /// What differed when the host was last compared with the document. `None` when that could not be found out, or is too
    /// long ago.
    pub fn differences(&self) -> Option<Vec<Found>> {
        if self.store.get().is_none() {
            return Some(Vec::new());
        }
        let is_fresh = |check: &NetworkCheck| self.clock.now() - check.checked_at < 2 * CHECK;
        let is_known = lock(&self.check).as_ref().is_some_and(is_fresh);
        lock(&self.found).clone().filter(|_| is_known)
    }

    /// Waits for instances whose cards have become ready, faulty or unknown, and names them.
    pub async fn changed(&self) -> HashSet<InstanceId> {
        loop {
            let changed = std::mem::take(&mut *lock(&self.changed));
            if !changed.is_empty() {
                return changed;
            }
            self.has_changed.notified().await;
        }
    }

    async fn converge(&self, checks: bool) {
        let Some(stored) = self.store.get() else { return };
        let outcome = self.networking.converge(&stored.networks).await;
        self.learn(&stored.networks, &outcome);
        self.report(stored.revision, outcome.faults.clone());
        let now = self.clock.now();
        if checks && self.is_check_due(now) {
            self.compare(stored.revision, &stored.networks, now).await;
            self.report(stored.revision, outcome.faults);
        }
    }

    fn report(&self, revision: Revision, faults: Vec<NetworkFault>) {
        let check = lock(&self.check).clone();
        self.outbox.report_network(NetworkReport { revision, faults: fair(faults), check });
    }

    fn is_check_due(&self, now: OffsetDateTime) -> bool {
        let is_good = |check: &NetworkCheck| check.differences == 0 && now - check.checked_at < CHECK;
        !lock(&self.check).as_ref().is_some_and(is_good)
    }

    async fn compare(&self, revision: Revision, wanted: &HostNetwork, checked_at: OffsetDateTime) {
        let looked = self.networking.look(wanted).await;
        let (differences, first) = match &looked {
            Ok(found) => (found.len(), found.first().map(|found| found.detail.clone())),
            Err(error) => (1, Some(chain(error))),
        };
        *lock(&self.found) = looked.ok();
        if let Some(first) = &first {
            tracing::warn!(differences, first, "the networks are not as wanted");
        }
        let differences = u32::try_from(differences).unwrap_or(u32::MAX);
        *lock(&self.check) = Some(NetworkCheck { checked_at, revision, differences, first });
    }

    fn learn(&self, networks: &HostNetwork, outcome: &Outcome) {
        let usable = networks.networks.iter().map(|one| (one.id, !outcome.unusable.contains(&one.id)));
        *lock(&self.networks) = usable.collect();
        let new = ports_of(networks, outcome);
        let old = std::mem::replace(&mut *lock(&self.ports), new.clone());
        let differing = |a: &HashMap<PortId, Port>, b: &HashMap<PortId, Port>| {
            let differs = |(id, port): &(&PortId, &Port)| b.get(id) != Some(port);
            a.iter().filter(differs).map(|(_, port)| port.instance_id).collect::<Vec<_>>()
        };
        let mut changed = lock(&self.changed);
        changed.extend(differing(&new, &old));
        changed.extend(differing(&old, &new));
        if !changed.is_empty() {
            self.has_changed.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port is as good as itself and its network. A group or router that could not be made lets nothing pass that
/// needs it, and keeps no card from being there.
fn ports_of(networks: &HostNetwork, outcome: &Outcome) -> HashMap<PortId, Port> {
    let faulty: HashSet<_> = outcome
        .faults
        .iter()
        .filter_map(|fault| match fault.subject {
            NetworkSubject::Port(id) => Some(id),
            _ => None,
        })
        .collect();
    let ports =
        networks.networks.iter().flat_map(|network| network.ports.iter().map(move |p| (network.id, p)));
    let known = ports.map(|(network, port)| {
        let is_faulty = faulty.contains(&port.id) || outcome.unusable.contains(&network);
        (port.id, Port { instance_id: port.instance_id, is_faulty })
    });
    known.collect()
}

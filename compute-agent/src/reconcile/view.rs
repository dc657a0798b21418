//! One listing of the domains for everybody who asks at the same time.
//!
//! A listing costs the hypervisor a call per domain, and every instance wants one after most steps. A
//! caller gets a listing that began after it asked; whoever asked before it began shares it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::InstanceId;
use protocol::agent::HypervisorHealth;
use tokio::sync::watch;

use crate::hypervisor::{Domain, DomainState, Hypervisor, HypervisorError};

type Listing = Arc<HashMap<InstanceId, Domain>>;

/// See the module.
pub struct DomainView {
    hypervisor: Arc<dyn Hypervisor>,
    asked: AtomicU64,
    /// Held while a listing is made.
    latest: tokio::sync::Mutex<Option<Latest>>,
    /// `None` until there was a listing.
    known: Mutex<Option<Listing>>,
    health: watch::Sender<HypervisorHealth>,
}

struct Latest {
    /// Every question with a smaller number was asked before the listing began.
    covers: u64,
    result: Result<Listing, Arc<HypervisorError>>,
}

impl DomainView {
    pub fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self {
            hypervisor,
            asked: AtomicU64::new(0),
            latest: tokio::sync::Mutex::new(None),
            known: Mutex::default(),
            health: watch::Sender::new(HypervisorHealth::Ok),
        }
    }

    /// The domains, as they were at some moment after this was called.
    pub async fn look(&self) -> Result<Listing, Arc<HypervisorError>> {
        let question = self.asked.fetch_add(1, Ordering::SeqCst);
        let mut latest = self.latest.lock().await;
        if let Some(latest) = latest.as_ref().filter(|latest| latest.covers > question) {
            return latest.result.clone();
        }
        let covers = self.asked.load(Ordering::SeqCst);
        let result = self.list().await;
        *latest = Some(Latest { covers, result: result.clone() });
        result
    }

    async fn list(&self) -> Result<Listing, Arc<HypervisorError>> {
        match self.hypervisor.domains().await {
            Ok(domains) => {
                let listing: Listing =
                    Arc::new(domains.into_iter().map(|domain| (domain.id, domain)).collect());
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&listing));
                let unreadable = listing.values().find(|domain| domain.state == DomainState::Unreadable);
                self.set_health(unreadable.map_or(HypervisorHealth::Ok, |domain| {
                    let reason =
                        format!("the domain of instance {} cannot be read: it is left alone", domain.id);
                    HypervisorHealth::Degraded { reason }
                }));
                Ok(listing)
            }
            Err(error) => {
                self.set_blind(&error);
                Err(Arc::new(error))
            }
        }
    }

    /// Domains of ours, when they were last listed, of which nothing is wanted, and whether they run; `None` as long as nobody
    /// could list them.
    pub fn unknown(&self, wanted: &HashSet<InstanceId>) -> Option<Vec<(InstanceId, bool)>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let unknown = known.iter().filter(|(id, _)| !wanted.contains(id));
        Some(unknown.map(|(id, domain)| (*id, domain.state != DomainState::Off)).collect())
    }

    /// Tells of changes from now on.
    pub fn watch_health(&self) -> watch::Receiver<HypervisorHealth> {
        self.health.subscribe()
    }

    pub fn health(&self) -> HypervisorHealth {
        self.health.borrow().clone()
    }

    /// A call has failed: nothing is known about the domains.
    pub fn set_blind(&self, error: &HypervisorError) {
        self.set_health(HypervisorHealth::Degraded { reason: error.to_string() });
    }

    /// Says what was learnt elsewhere about the connection.
    pub fn set_health(&self, health: HypervisorHealth) {
        let changed = |known: &mut HypervisorHealth| {
            let differs = *known != health;
            if differs {
                tracing::info!(?health, "hypervisor");
                *known = health;
            }
            differs
        };
        self.health.send_if_modified(changed);
    }
}

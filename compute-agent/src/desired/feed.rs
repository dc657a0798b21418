//! Following the desired feed: a session, then one long poll after the other.
//!
//! A network that fails is waited for, and the host goes on with the last desired state. A session that is
//! no longer the newest is another matter: its host was declared dead, or two agents have one identity. So
//! this one stops acting, and takes the session back ever more slowly, lest two fight.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use protocol::agent::{
    DesiredBody, DesiredPage, DesiredQuery, EARLIEST_PROTOCOL_VERSION, Epoch, Inventory,
    MAX_SERIAL_LOG_BYTES, MAX_WAIT_SECONDS, OpenSession, PROTOCOL_VERSION, SessionOpened,
};
use protocol::{InstanceId, Revision, TransferId};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::DesiredStore;
use super::images::Images;
use super::removals::Removals;
use crate::backoff::Backoff;
use crate::consoles::Consoles;
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::durable::off_thread;
use crate::guard::Guards;
use crate::guard::clock::Moment;
use crate::host_storage::HostStorage;
use crate::hypervisor::{Hypervisor, HypervisorError};
use crate::inventory::LastInventory;
use crate::migration::disks::DiskMoves;
use crate::networks::{Keeper, NetworkStore};
use crate::reconcile::Reconciler;
use crate::reconcile::workers::Workers;
use crate::session::Session;

/// Pauses while the control plane does not answer.
const UNREACHABLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Pauses before a session is taken back.
const CONTESTED: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// Pauses before a session in a newer version is asked for of a control plane that was upgraded.
const UPGRADED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Pauses before a control plane is asked again that has removed this host.
const REMOVED: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(3600));
/// A session that lasted this long was not fought over.
const UNCONTESTED: Duration = Duration::from_secs(600);
/// How long the first answer may take before the host goes by the last desired state.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
/// An empty answer that comes sooner than this was not held open; asking again at once would be a flood.
const HELD_OPEN: Duration = Duration::from_millis(500);
const PARALLEL_TRANSFERS: usize = 4;

/// See the module.
pub struct Feed {
    pub control_plane: Arc<dyn ControlPlane>,
    pub hypervisor: Arc<dyn Hypervisor>,
    pub storage: Arc<dyn HostStorage>,
    pub desired: Arc<DesiredStore>,
    pub networks: Arc<NetworkStore>,
    pub keeper: Arc<Keeper>,
    pub session: Arc<Session>,
    pub reconciler: Arc<Reconciler>,
    pub workers: Workers,
    pub inventory: LastInventory,
    pub removals: Arc<Removals>,
    pub guards: Arc<Guards>,
    pub images: Arc<Images>,
    pub disks: Arc<DiskMoves>,
    pub consoles: Arc<Consoles>,
}

#[derive(Debug, Error)]
enum OpenError {
    #[error("the host could not be inspected")]
    Inventory(#[source] NotInspected),
    #[error("no session could be opened")]
    Session(#[source] ControlPlaneError),
}

/// Why it is not known what the host offers.
#[derive(Debug, Error)]
enum NotInspected {
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// Measured would be whatever is in its place.
    #[error("{0}")]
    Pool(String),
}

/// A session, and what it was opened with.
struct Opened {
    epoch: Epoch,
    /// What is spoken in it.
    version: u32,
    /// What was told of the host, when that was not found but remembered.
    remembered: Option<Inventory>,
}

/// Why a session is followed no longer.
enum Ended {
    /// Somebody else has taken it over.
    Lost,
    /// The host is not what it was said to be.
    Outdated,
    /// The control plane has been upgraded, and speaks what this agent speaks.
    Newer,
    /// The host has been removed from the cloud.
    Removed,
}

impl Feed {
    /// Runs until it is dropped.
    pub async fn run(self) {
        let mut unreachable = Backoff::new(UNREACHABLE.0, UNREACHABLE.1);
        let mut contested = Backoff::new(CONTESTED.0, CONTESTED.1);
        let mut removed = Backoff::new(REMOVED.0, REMOVED.1);
        let mut upgraded = Backoff::new(UPGRADED.0, UPGRADED.1);
        let mut patience = std::pin::pin!(tokio::time::sleep(FIRST_ANSWER));
        let mut patience_is_over = false;
        let mut another_acts = false;
        let transfers = Arc::new(Transfers::default());
        loop {
            let opened = {
                let mut opening = std::pin::pin!(self.open());
                tokio::select! {
                    opened = &mut opening => opened,
                    () = &mut patience, if !patience_is_over => {
                        patience_is_over = true;
                        tracing::warn!("no answer yet: going by the last desired state");
                        self.reconciler.set_acting(!another_acts);
                        opening.await
                    }
                }
            };
            let Opened { epoch, version, remembered } = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    let pause = match &error {
                        OpenError::Session(ControlPlaneError::Removed) => {
                            tracing::error!("{}", ControlPlaneError::Removed);
                            removed.next()
                        }
                        _ => {
                            tracing::warn!(error = %crate::chain(&error), "going by the last desired state");
                            unreachable.next()
                        }
                    };
                    patience_is_over = true;
                    self.reconciler.set_acting(!another_acts);
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            unreachable.reset();
            removed.reset();
            let since = Instant::now();
            let outdated = async {
                tokio::select! {
                    () = self.until_outdated(remembered.as_ref()) => Ended::Outdated,
                    () = self.until_newer(version, &mut upgraded) => Ended::Newer,
                }
            };
            match self.follow(epoch, outdated, &transfers, &mut another_acts).await {
                Ended::Lost => {}
                Ended::Newer => {
                    tracing::info!("the control plane has been upgraded: opening another session");
                    patience_is_over = true;
                    continue;
                }
                Ended::Outdated => {
                    tracing::info!("the host is not what was remembered of it: opening another session");
                    patience_is_over = true;
                    continue;
                }
                Ended::Removed => {
                    // Nobody reports or is heard any more, and the next session is asked for slowly.
                    self.session.lost(epoch);
                    patience_is_over = true;
                    continue;
                }
            }
            self.session.lost(epoch);
            self.reconciler.set_acting(false);
            another_acts = true;
            if since.elapsed() > UNCONTESTED {
                contested.reset();
            }
            let pause = contested.next();
            tracing::error!(
                ?epoch,
                ?pause,
                "the session is not this agent's any more: the host was declared dead while it was silent, or another \
                 agent has a copy of this state folder; nothing is done here until the next session"
            );
            tokio::time::sleep(pause).await;
        }
    }

    async fn open(&self) -> Result<Opened, OpenError> {
        let (inventory, is_remembered) = self.inspect().await.map_err(OpenError::Inventory)?;
        let remembered = is_remembered.then(|| inventory.clone());
        let request = OpenSession {
            protocol_version: PROTOCOL_VERSION,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            inventory,
        };
        let opened = self.agree(request).await.map_err(OpenError::Session)?;
        let &SessionOpened { host_id, epoch, protocol_version: version, .. } = &opened;
        tracing::info!(host = %host_id, epoch = epoch.0, version, "session opened");
        self.session.opened(&opened);
        Ok(Opened { epoch, version, remembered })
    }

    /// A session in our version; in the one before with a control plane that has not been upgraded.
    async fn agree(&self, request: OpenSession) -> Result<SessionOpened, ControlPlaneError> {
        let refused = match self.control_plane.open_session(&request).await {
            Err(refused @ ControlPlaneError::UnsupportedProtocol { .. }) => refused,
            answer => return answer,
        };
        let version = EARLIEST_PROTOCOL_VERSION;
        match self.control_plane.open_session(&request.for_version(version)).await {
            Ok(opened) => {
                tracing::warn!(
                    version,
                    "the control plane is of the release before this agent's: its version of the protocol is spoken until it \
                     is upgraded"
                );
                Ok(SessionOpened { protocol_version: version, ..opened })
            }
            Err(ControlPlaneError::UnsupportedProtocol { .. }) => Err(refused),
            Err(error) => Err(error),
        }
    }

    /// Returns when the control plane speaks a newer version than that of the session. While some replicas do and others do not,
    /// sessions are tried ever more slowly.
    async fn until_newer(&self, version: u32, pauses: &mut Backoff) {
        self.session.until_offered_more(version).await;
        tokio::time::sleep(pauses.next()).await;
    }

    /// What the host offers; what it last offered, and that this is remembered, while the hypervisor or the pool is away.
    async fn inspect(&self) -> Result<(Inventory, bool), NotInspected> {
        match self.found().await {
            Ok(inventory) => Ok((inventory, false)),
            Err(error) => {
                if let NotInspected::Hypervisor(error) = &error {
                    self.reconciler.view.set_blind(error);
                }
                Ok((self.inventory.last().await.ok_or(error)?, true))
            }
        }
    }

    /// What the host offers, which is remembered.
    async fn found(&self) -> Result<Inventory, NotInspected> {
        if let Some(trouble) = self.storage.trouble().await {
            return Err(NotInspected::Pool(trouble));
        }
        let inventory = self.hypervisor.inventory().await?;
        self.inventory.keep(&inventory).await;
        Ok(self.inventory.complete(inventory))
    }

    /// Returns when the hypervisor and the pool are back and the host is not what was told from memory: it has more of something, or an
    /// agent of a later release finds more to tell.
    async fn until_outdated(&self, remembered: Option<&Inventory>) {
        let mut pause = Backoff::new(UNREACHABLE.0, UNREACHABLE.1);
        while let Some(told) = remembered {
            tokio::time::sleep(pause.next()).await;
            match self.found().await {
                Ok(found) if found != *told => return,
                Ok(_) => break,
                Err(_) => {}
            }
        }
        std::future::pending::<()>().await;
    }

    /// Polls until the session is lost, or has to be another one. Once it has said what is wanted, nobody else acts on it.
    async fn follow(
        &self,
        epoch: Epoch,
        outdated: impl Future<Output = Ended>,
        transfers: &Arc<Transfers>,
        another_acts: &mut bool,
    ) -> Ended {
        let mut outdated = std::pin::pin!(outdated);
        let mut backoff = Backoff::new(UNREACHABLE.0, UNREACHABLE.1);
        let mut query = DesiredQuery { epoch, after: Revision(0), wait_seconds: MAX_WAIT_SECONDS };
        loop {
            let (asked, begun) = (Instant::now(), self.guards.now());
            let page = tokio::select! {
                page = self.control_plane.desired(&query) => page,
                () = self.desired.asks_anew() => {
                    query.after = Revision(0);
                    continue;
                }
                () = self.guards.asks() => {
                    query.after = Revision(0);
                    continue;
                }
                ended = &mut outdated => return ended,
                () = self.session.until_lost(epoch) => return Ended::Lost,
            };
            match page {
                Ok(page) => {
                    let page = Arc::new(page);
                    if let Err(error) = self.take(epoch, &page, begun, transfers).await {
                        tracing::error!(%error, "the desired state could not be written down");
                        tokio::time::sleep(backoff.next()).await;
                        continue;
                    }
                    backoff.reset();
                    *another_acts = false;
                    self.reconciler.set_acting(true);
                    query.after = page.revision;
                    if page.objects.is_empty() && page.requests.is_empty() && asked.elapsed() < HELD_OPEN {
                        tokio::time::sleep(HELD_OPEN).await;
                    }
                }
                Err(ControlPlaneError::StaleEpoch) => return Ended::Lost,
                Err(ControlPlaneError::Removed) => return Ended::Removed,
                Err(error) => {
                    tracing::warn!(error = %crate::chain(&error), "no word about the desired state");
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    /// INVARIANT: a wish is on disk before anything is done about it.
    async fn take(
        &self,
        epoch: Epoch,
        page: &Arc<DesiredPage>,
        begun: Moment,
        transfers: &Arc<Transfers>,
    ) -> std::io::Result<()> {
        let (desired, wishes) = (Arc::clone(&self.desired), Arc::clone(page));
        let networks = Arc::clone(&self.networks);
        let take = move || Ok((networks.take(&wishes)?, desired.take(&wishes)?));
        let (networks_changed, changed) = off_thread(take).await?;
        self.guards.heard(begun);
        if networks_changed {
            self.keeper.nudge();
        }
        if page.complete {
            self.reconciler.confirmed();
            self.workers.nudge_all();
        }
        changed.into_iter().for_each(|id| self.workers.nudge(id));
        let (mut images, mut disks) = (HashSet::new(), HashSet::new());
        for object in &page.objects {
            match &object.body {
                &DesiredBody::SendSerialLog { transfer_id, instance_id, max_bytes } => {
                    self.send_serial_log(epoch, transfer_id, instance_id, max_bytes, transfers);
                }
                DesiredBody::RemoveLayers { removal_id, layers, pool } => {
                    self.removals.begin(*removal_id, layers.clone(), pool.clone());
                }
                DesiredBody::SendImage { transfer_id, source } => {
                    images.insert(*transfer_id);
                    self.images.begin(*transfer_id, (**source).clone());
                }
                body @ (DesiredBody::TakeDisks { id, .. } | DesiredBody::GiveDisks { id, .. }) => {
                    disks.insert(*id);
                    self.disks.begin(body);
                }
                DesiredBody::Unknown => {
                    tracing::warn!(
                        revision = object.revision.0,
                        "an order of a later release is passed over"
                    );
                }
                DesiredBody::Instance(_) | DesiredBody::DeleteInstance { .. } | DesiredBody::Network(_) => {}
            }
        }
        if page.complete {
            self.images.keep_only(&images);
            self.disks.keep_only(&disks);
        }
        page.requests.iter().for_each(|request| self.consoles.begin(epoch, request));
        Ok(())
    }

    fn send_serial_log(
        &self,
        epoch: Epoch,
        transfer: TransferId,
        instance: InstanceId,
        max_bytes: u32,
        transfers: &Arc<Transfers>,
    ) {
        if !transfers.begin(transfer) {
            return;
        }
        let (storage, control_plane) = (Arc::clone(&self.storage), Arc::clone(&self.control_plane));
        let transfers = Arc::clone(transfers);
        let max_bytes =
            usize::try_from(max_bytes).map_or(MAX_SERIAL_LOG_BYTES, |max| max.min(MAX_SERIAL_LOG_BYTES));
        tokio::spawn(async move {
            let _turn = transfers.turns.acquire().await;
            match storage.serial_tail(instance, max_bytes).await {
                Ok(log) => match control_plane.transfer(transfer, epoch, log).await {
                    // Whoever asked has gone.
                    Ok(()) => {}
                    Err(error) if error.is_gone() => {}
                    Err(error) => {
                        tracing::warn!(%instance, error = %crate::chain(&error), "serial log not sent");
                    }
                },
                Err(error) => tracing::warn!(%instance, error = %crate::chain(&error), "serial log not read"),
            }
            transfers.end(transfer);
        });
    }
}

/// The transfers under way: each is sent once, a few at a time.
struct Transfers {
    turns: Semaphore,
    underway: std::sync::Mutex<HashSet<TransferId>>,
}

impl Default for Transfers {
    fn default() -> Self {
        Self { turns: Semaphore::new(PARALLEL_TRANSFERS), underway: std::sync::Mutex::default() }
    }
}

impl Transfers {
    /// False when it is being sent already.
    fn begin(&self, transfer: TransferId) -> bool {
        self.lock().insert(transfer)
    }

    fn end(&self, transfer: TransferId) {
        self.lock().remove(&transfer);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<TransferId>> {
        self.underway.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

//! The task that empties the outbox and sends heartbeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::agent::{
    Epoch, GuardedPool, Heartbeat, HypervisorHealth, MAX_REPORTS, ObservedBatch, PROTOCOL_VERSION, PoolUsage,
};
use storage::Space;
use tokio::time::{Instant, MissedTickBehavior};

use super::Outbox;
use crate::backoff::Backoff;
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::desired::DesiredStore;
use crate::durable::off_thread;
use crate::guard::Guards;
use crate::guard::witness::Witness;
use crate::host_storage::{HostStorage, Usage};
use crate::reconcile::Reconciler;
use crate::reconcile::workers::Workers;
use crate::session::{Current, Session};

/// Pauses after a batch that did not arrive.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(20));
/// Whatever the control plane asks for, not more often and not more seldom than this.
const HEARTBEAT_SECONDS: std::ops::RangeInclusive<u32> = 1..=60;

/// Reports and heartbeats go one after the other, so that a heartbeat's digest is of what has arrived.
pub struct Sender {
    pub control_plane: Arc<dyn ControlPlane>,
    pub session: Arc<Session>,
    pub outbox: Arc<Outbox>,
    pub desired: Arc<DesiredStore>,
    pub storage: Arc<dyn HostStorage>,
    pub guards: Arc<Guards>,
    pub witness: Witness,
    pub reconciler: Arc<Reconciler>,
    pub workers: Workers,
    /// What was last found.
    pub lacks_pool: AtomicBool,
}

impl Sender {
    /// Runs until it is dropped.
    pub async fn run(self) {
        loop {
            let current = self.session.until_open().await;
            tokio::select! {
                () = self.send(current) => {}
                () = self.session.until_lost(current.epoch) => {}
            }
        }
    }

    async fn send(&self, current: Current) {
        let seconds = current.heartbeat_seconds.clamp(*HEARTBEAT_SECONDS.start(), *HEARTBEAT_SECONDS.end());
        let mut beat = tokio::time::interval(Duration::from_secs(seconds.into()));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut not_before = Instant::now();
        // What has changed while there was no session was announced to nobody.
        let mut due = true;
        self.outbox.forget_unknown_guests();
        let mut health = self.reconciler.view.watch_health();
        let mut acting = self.reconciler.acting();
        loop {
            if due {
                tokio::select! {
                    () = tokio::time::sleep_until(not_before) => match self.flush(current).await {
                        Ok(()) => {
                            due = false;
                            backoff.reset();
                        }
                        Err(error) => {
                            self.on_error(current.epoch, &error);
                            not_before = Instant::now() + backoff.next();
                        }
                    },
                    _ = beat.tick() => self.beat(current).await,
                }
            } else {
                tokio::select! {
                    () = self.outbox.dirty() => due = true,
                    _ = beat.tick() => self.beat(current).await,
                    // The sender of health lives as long as the reconciler.
                    _ = health.changed() => self.beat(current).await,
                    // As does that of acting: a control plane that was restored must not give away the addresses of guests that it does not
                    // know.
                    _ = acting.changed() => self.beat(current).await,
                }
            }
        }
    }

    /// Sends everything that is due.
    async fn flush(&self, current: Current) -> Result<(), ControlPlaneError> {
        let epoch = current.epoch;
        while let Some(mut outgoing) = self.outbox.outgoing(MAX_REPORTS) {
            let (reports, network) = (std::mem::take(&mut outgoing.reports), outgoing.network.clone());
            let removed = outgoing.removed.clone();
            let migrations = outgoing.migrations.clone();
            let unknown_guests = outgoing.unknown_guests.clone();
            let batch = ObservedBatch { epoch, reports, removed, migrations, network, unknown_guests };
            let batch = batch.for_version(current.protocol_version);
            let accepted = self.control_plane.observed(&batch).await?;
            if !accepted.ignored.is_empty() {
                tracing::warn!(ignored = ?accepted.ignored, "the control plane ignored reports");
            }
            outgoing.reports = batch.reports;
            let outbox = Arc::clone(&self.outbox);
            if let Err(error) = off_thread(move || outbox.acknowledge(&outgoing, &accepted.ignored)).await {
                tracing::warn!(%error, "an acknowledgement could not be written down");
            }
            self.forget_gone().await;
        }
        Ok(())
    }

    /// The control plane knows that these are gone: nothing is wanted of them any more. What fails, or is cut off with the
    /// session, is made up for later: whoever comes back is refused until then.
    async fn forget_gone(&self) {
        for (id, generation) in self.outbox.gone() {
            let desired = Arc::clone(&self.desired);
            match off_thread(move || desired.forget_deleted(id, generation)).await {
                Ok(_) => {
                    self.outbox.let_go(id, generation);
                    self.workers.nudge(id);
                }
                Err(error) => {
                    tracing::warn!(instance = %id, %error, "a done deletion could not be forgotten");
                }
            }
        }
    }

    async fn beat(&self, current: Current) {
        let epoch = current.epoch;
        self.forget_gone().await;
        // Before the newest wishes are here, nobody knows what is unknown.
        let acting = *self.reconciler.acting().borrow();
        if acting && let Some(guests) = self.reconciler.unknown_guests() {
            self.outbox.report_unknown_guests(guests);
        }
        let heartbeat = Heartbeat {
            epoch,
            hypervisor: self.health().await,
            observed_digest: self.outbox.digest(),
            quarantined: u32::try_from(self.reconciler.quarantined()).unwrap_or(u32::MAX),
            pool: self.pool().await,
            shared_pools: self.storage.shared_pools().await,
            guarded_pools: self.guarded_pools().await,
            seen_leases: self.witness.told(),
        };
        match self.control_plane.heartbeat(&heartbeat).await {
            Ok(reply) => {
                if reply.report_all {
                    self.outbox.resend_all();
                }
                // More than this agent speaks is of no use to it.
                self.session.offered(reply.protocol_version.min(PROTOCOL_VERSION));
            }
            Err(error) => self.on_error(epoch, &error),
        }
    }

    /// Without its pool a host does nothing, as without its hypervisor. What waits for the pool goes on when it is back.
    async fn health(&self) -> HypervisorHealth {
        let trouble = self.storage.trouble().await;
        if self.lacks_pool.swap(trouble.is_some(), Ordering::Relaxed) && trouble.is_none() {
            self.workers.nudge_all();
        }
        match trouble {
            Some(reason) => HypervisorHealth::Degraded { reason },
            None => self.reconciler.view.health(),
        }
    }

    async fn pool(&self) -> Option<PoolUsage> {
        match self.storage.usage().await {
            Ok(Usage { space: Space { total_bytes, free_bytes }, image_cache_bytes }) => {
                Some(PoolUsage { total_bytes, free_bytes, image_cache_bytes })
            }
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "the pool cannot be measured");
                None
            }
        }
    }

    async fn guarded_pools(&self) -> Vec<GuardedPool> {
        let guards = Arc::clone(&self.guards);
        off_thread(move || Ok(guards.guarded_pools())).await.unwrap_or_default()
    }

    fn on_error(&self, epoch: Epoch, error: &ControlPlaneError) {
        if matches!(error, ControlPlaneError::StaleEpoch) {
            self.session.lost(epoch);
        } else {
            tracing::warn!(error = %crate::chain(error), "not told");
        }
    }
}

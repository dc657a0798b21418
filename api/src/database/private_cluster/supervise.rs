//! Keeps PostgreSQL running while we run.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{ClusterError, PrivateCluster, find_or_spawn};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A server that lived this long has recovered from whatever was wrong with the one before.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

const HOUSEKEEPING: Duration = Duration::from_secs(60);

impl PrivateCluster {
    /// Starts PostgreSQL again whenever it ends, until `shutdown`; then stops it. The first restart is
    /// immediate, later ones wait longer and longer.
    pub async fn supervise(mut self, shutdown: CancellationToken) -> Result<(), ClusterError> {
        let mut pause = Duration::ZERO;
        loop {
            let started = Instant::now();
            tokio::select! {
                () = shutdown.cancelled() => return self.stop().await,
                ended = self.watch() => match ended {
                    Ok(()) => tracing::warn!(pid = self.pid(), "PostgreSQL has ended; starting it again"),
                    Err(error) => tracing::error!(%error, "lost sight of PostgreSQL"),
                },
            }
            if started.elapsed() >= HEALTHY_AFTER {
                pause = Duration::ZERO;
            }
            tokio::select! {
                () = shutdown.cancelled() => return self.stop().await,
                () = self.restart(&mut pause) => {}
            }
        }
    }

    /// Returns when the server has ended.
    async fn watch(&mut self) -> Result<(), ClusterError> {
        let mut housekeeping = interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = self.postmaster.exited() => return ended,
                _ = housekeeping.tick() => self.layout.trim_log(),
            }
        }
    }

    /// Returns when a server serves again. Dropped at any await it leaves `self.postmaster` naming the
    /// last one that was started, so that stopping finds it.
    async fn restart(&mut self, pause: &mut Duration) {
        loop {
            sleep(*pause).await;
            *pause = (*pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            match self.start_again().await {
                Ok(()) => {
                    tracing::info!(pid = self.pid(), "PostgreSQL is ready again");
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, retry_in = ?*pause, "PostgreSQL does not start");
                }
            }
        }
    }

    async fn start_again(&mut self) -> Result<(), ClusterError> {
        // Somebody may have started it by hand.
        self.postmaster = find_or_spawn(&self.layout, &self.account, &self.binaries)?;
        self.postmaster.ready(&self.layout).await
    }
}

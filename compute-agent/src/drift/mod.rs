//! Looking regularly how this host differs from what is wanted of it, and telling the control plane.
//!
//! What is seen in two looks in a row counts ([`looks`]), so that work under way is not told. Each report says everything that
//! is there, and takes the place of the one before; what does not arrive is said again with the next look.

mod looks;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use protocol::InstanceId;
use protocol::agent::{DriftCode, DriftReport, Epoch, HostDifference, MAX_DRIFT, MAX_DRIFT_DETAIL_CHARS};

use self::looks::Looks;
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::session::{Current, Session};

/// Before the control plane has said how often it wants to know.
const LOOK_SECONDS: u32 = 60;
/// Whatever it asks for, not more often and not more seldom.
const LOOK_RANGE: std::ops::RangeInclusive<u32> = 15..=600;
/// How long a look may take: a file system that is gone may never answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// A control plane of an earlier release is asked again after that.
const NOT_WANTED: Duration = Duration::from_secs(600);

/// What compares the host with what is wanted of it.
#[async_trait]
pub trait Look: Send + Sync + 'static {
    /// Changes nothing.
    async fn look(&self) -> Result<Looked>;
}

/// What was found.
#[derive(Debug, Default)]
pub struct Looked {
    pub found: Vec<HostDifference>,
    /// Instances that something was done to meanwhile: what was found of them says nothing.
    pub busy: HashSet<InstanceId>,
}

/// See the module.
pub struct Drift {
    control_plane: Arc<dyn ControlPlane>,
    session: Arc<Session>,
    host: Arc<dyn Look>,
    patience: Duration,
}

impl Drift {
    pub fn new(control_plane: Arc<dyn ControlPlane>, session: Arc<Session>, host: Arc<dyn Look>) -> Self {
        Self { control_plane, session, host, patience: PATIENCE }
    }

    /// Runs until it is dropped.
    pub async fn run(&self) {
        let mut looks = Looks::default();
        loop {
            let current = self.session.until_open().await;
            tokio::select! {
                () = self.tell(current, &mut looks) => {}
                () = self.session.until_lost(current.epoch) => {}
            }
        }
    }

    async fn tell(&self, current: Current, looks: &mut Looks) {
        let mut pause = Duration::from_secs(LOOK_SECONDS.into());
        loop {
            // Agents that have lost the same control plane do not look in step.
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.8..=1.2))).await;
            match self.tell_once(current.epoch, looks).await {
                Ok(Some(next)) => pause = next,
                Ok(None) => {}
                Err(ControlPlaneError::StaleEpoch) => return self.session.lost(current.epoch),
                Err(error) => tracing::info!(error = %crate::chain(&error), "what differs was not told"),
            }
        }
    }

    /// Looks, and tells what counts. When to look again, if that is said.
    async fn tell_once(
        &self,
        epoch: Epoch,
        looks: &mut Looks,
    ) -> Result<Option<Duration>, ControlPlaneError> {
        let counted = match tokio::time::timeout(self.patience, self.host.look()).await {
            Ok(Ok(looked)) => looks.next(looked),
            Err(_) => {
                let bound = self.patience;
                tracing::warn!(?bound, "looking for what differs takes too long: given up until next time");
                return Ok(None);
            }
            Ok(Err(error)) => {
                tracing::info!(error = format!("{error:#}"), "could not look for what differs");
                return Ok(None);
            }
        };
        let Some(differences) = counted else { return Ok(None) };
        match self.control_plane.drift(&report(epoch, differences)).await {
            Ok(accepted) => {
                let seconds = accepted.look_seconds.clamp(*LOOK_RANGE.start(), *LOOK_RANGE.end());
                Ok(Some(Duration::from_secs(seconds.into())))
            }
            Err(error) if error.is_gone() => {
                tracing::info!("this control plane does not want to know what differs");
                Ok(Some(NOT_WANTED))
            }
            Err(error) => Err(error),
        }
    }
}

/// What must not be left out of a report comes first.
const fn rank(code: DriftCode) -> u8 {
    match code {
        // Its disk may be written to from elsewhere, too.
        DriftCode::UnknownGuest | DriftCode::UnknownProcess => 0,
        // The reason for much else.
        DriftCode::GuardFaulty | DriftCode::PoolUnusable => 1,
        DriftCode::UnknownDomain => 2,
        DriftCode::UnknownFiles | DriftCode::UnknownRecord | DriftCode::ForeignFile | DriftCode::Unknown => 4,
        _ => 3,
    }
}

/// What fits into a report; it says how much there is.
fn report(epoch: Epoch, mut differences: Vec<HostDifference>) -> DriftReport {
    let total = u32::try_from(differences.len()).unwrap_or(u32::MAX);
    differences.sort_by_key(|one| rank(one.code));
    differences.truncate(MAX_DRIFT);
    for one in &mut differences {
        if let Some((end, _)) = one.detail.char_indices().nth(MAX_DRIFT_DETAIL_CHARS) {
            one.detail.truncate(end);
        }
    }
    DriftReport { epoch, total, differences }
}

//! What is measured of guests, and what guests say: told to the control plane now and then, kept nowhere.
//!
//! Nobody waits for any of it. What does not arrive is lost, and the next is newer.

mod guests;
mod samples;

use std::sync::Arc;
use std::time::Duration;

use protocol::agent::{Epoch, InsightAccepted, InsightBatch};
use tokio::time::Instant;

use self::guests::Guests;
use self::samples::{batches, sample};
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::desired::DesiredStore;
use crate::hypervisor::{Hypervisor, HypervisorError};
use crate::session::{Current, Session};

/// Before the control plane has said how often it wants samples.
const SAMPLE_SECONDS: u32 = 15;
/// Whatever the control plane asks for, not more often and not more seldom.
const SAMPLE_RANGE: std::ops::RangeInclusive<u32> = 1..=300;
const GUEST_RANGE: std::ops::RangeInclusive<u32> = 30..=3600;
/// However much each of them says, they fit into one body; and they keep no measurement from arriving.
const GUESTS_AT_ONCE: usize = 2;
/// A control plane of an earlier release is asked again after that.
const NOT_WANTED: Duration = Duration::from_secs(600);

/// See the module.
pub struct Insight {
    control_plane: Arc<dyn ControlPlane>,
    session: Arc<Session>,
    hypervisor: Arc<dyn Hypervisor>,
    desired: Arc<DesiredStore>,
    guests: Guests,
}

impl Insight {
    pub fn new(
        control_plane: Arc<dyn ControlPlane>,
        session: Arc<Session>,
        hypervisor: Arc<dyn Hypervisor>,
        desired: Arc<DesiredStore>,
    ) -> Self {
        let guests = Guests::new(Arc::clone(&hypervisor));
        Self { control_plane, session, hypervisor, desired, guests }
    }

    /// Runs until it is dropped.
    pub async fn run(&self) {
        tokio::join!(self.watch(), self.guests.run());
    }

    async fn watch(&self) {
        loop {
            let current = self.session.until_open().await;
            tokio::select! {
                () = self.tell(current) => {}
                () = self.session.until_lost(current.epoch) => {}
            }
        }
    }

    async fn tell(&self, current: Current) {
        let mut pause = Duration::from_secs(SAMPLE_SECONDS.into());
        let mut is_first = true;
        loop {
            let next = Instant::now() + pause;
            match self.tell_once(current.epoch, std::mem::take(&mut is_first)).await {
                Ok(Some(accepted)) => {
                    let seconds = accepted.sample_seconds.clamp(*SAMPLE_RANGE.start(), *SAMPLE_RANGE.end());
                    pause = Duration::from_secs(seconds.into());
                    let seconds = accepted.guest_seconds.clamp(*GUEST_RANGE.start(), *GUEST_RANGE.end());
                    self.guests.ask_every(Duration::from_secs(seconds.into()));
                }
                Ok(None) => {}
                Err(ControlPlaneError::StaleEpoch) => return self.session.lost(current.epoch),
                Err(error) if error.is_gone() => {
                    tracing::info!("this control plane takes no measurements");
                    tokio::time::sleep(NOT_WANTED).await;
                }
                Err(error) => tracing::info!(error = %crate::chain(&error), "measurements were not told"),
            }
            // The first of a session is told at once, and its answer says how long to wait.
            tokio::time::sleep_until(next.min(Instant::now() + pause)).await;
        }
    }

    /// Measures, and tells that and what guests have said meanwhile. `None` when there was nothing to tell; in the first
    /// batch of a session nothing is told, too, to hear how often it is wanted.
    async fn tell_once(
        &self,
        epoch: Epoch,
        is_first: bool,
    ) -> Result<Option<InsightAccepted>, ControlPlaneError> {
        let measured_at = Instant::now();
        let measured = match self.hypervisor.measure().await {
            Ok(measured) => measured,
            Err(error @ HypervisorError::Unreachable(_)) => {
                tracing::debug!(error = %crate::chain(&error), "not measured");
                return Ok(None);
            }
            Err(error) => {
                tracing::info!(error = %crate::chain(&error), "not measured");
                return Ok(None);
            }
        };
        self.guests.look_after(measured.iter().map(|one| (one.id, one.run)));
        let samples = measured.iter().filter_map(|one| sample(one, self.desired.get(one.id)?.as_ref()));
        let mut batches = batches(samples.collect());
        if is_first && batches.is_empty() {
            batches.push(Vec::new());
        }
        let mut accepted = None;
        for mut samples in batches {
            samples.iter_mut().for_each(|sample| sample.age_ms = age_ms(measured_at));
            let batch = InsightBatch { epoch, samples, guests: Vec::new() };
            accepted = Some(self.control_plane.insight(&batch).await?);
        }
        loop {
            let guests = self.guests.take(GUESTS_AT_ONCE);
            if guests.is_empty() {
                return Ok(accepted);
            }
            let batch = InsightBatch { epoch, samples: Vec::new(), guests };
            accepted = Some(self.control_plane.insight(&batch).await?);
        }
    }
}

fn age_ms(then: Instant) -> u32 {
    u32::try_from(then.elapsed().as_millis()).unwrap_or(u32::MAX)
}

//! The line of a simulated host to its control plane, which can be cut.

use std::sync::Arc;

use async_trait::async_trait;
use protocol::agent::{
    DesiredPage, DesiredQuery, DriftAccepted, DriftReport, Epoch, Heartbeat, HeartbeatReply, ImageStatus,
    InsightAccepted, InsightBatch, ObservedAccepted, ObservedBatch, OpenSession, Refusal, SessionOpened,
};
use protocol::{ConsoleId, Sha256, TransferId};
use tokio::sync::watch;

use crate::consoles;
use crate::control_plane::http::HttpControlPlane;
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::host_storage::ByteStream;

/// What is asked while the line is cut has no answer, and neither has what was being asked.
pub(super) struct Line {
    real: Arc<HttpControlPlane>,
    is_cut: watch::Sender<bool>,
}

impl Line {
    pub(super) fn new(real: Arc<HttpControlPlane>, is_cut: watch::Sender<bool>) -> Self {
        Self { real, is_cut }
    }

    async fn unless_cut<T>(
        &self,
        answer: impl Future<Output = Result<T, ControlPlaneError>>,
    ) -> Result<T, ControlPlaneError> {
        let mut is_cut = self.is_cut.subscribe();
        tokio::select! {
            biased;
            // The sender lives in `self`, so the channel cannot be closed.
            _ = is_cut.wait_for(|is_cut| *is_cut) => {
                let source = "simulated: the line is cut".into();
                Err(ControlPlaneError::Unreachable { call: "anything", source })
            }
            answer = answer => answer,
        }
    }
}

#[async_trait]
impl ControlPlane for Line {
    async fn open_session(&self, request: &OpenSession) -> Result<SessionOpened, ControlPlaneError> {
        self.unless_cut(self.real.open_session(request)).await
    }

    async fn desired(&self, query: &DesiredQuery) -> Result<DesiredPage, ControlPlaneError> {
        self.unless_cut(self.real.desired(query)).await
    }

    async fn observed(&self, batch: &ObservedBatch) -> Result<ObservedAccepted, ControlPlaneError> {
        self.unless_cut(self.real.observed(batch)).await
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatReply, ControlPlaneError> {
        self.unless_cut(self.real.heartbeat(heartbeat)).await
    }

    async fn insight(&self, batch: &InsightBatch) -> Result<InsightAccepted, ControlPlaneError> {
        self.unless_cut(self.real.insight(batch)).await
    }

    async fn drift(&self, report: &DriftReport) -> Result<DriftAccepted, ControlPlaneError> {
        self.unless_cut(self.real.drift(report)).await
    }

    async fn blob(&self, sha256: Sha256) -> Result<ByteStream, ControlPlaneError> {
        self.unless_cut(self.real.blob(sha256)).await
    }

    async fn transfer(&self, id: TransferId, epoch: Epoch, bytes: Vec<u8>) -> Result<(), ControlPlaneError> {
        self.unless_cut(self.real.transfer(id, epoch, bytes)).await
    }

    async fn send_image(
        &self,
        id: TransferId,
        epoch: Epoch,
        size_bytes: u64,
        bytes: ByteStream,
    ) -> Result<(), ControlPlaneError> {
        self.unless_cut(self.real.send_image(id, epoch, size_bytes, bytes)).await
    }

    async fn bring_console(
        &self,
        id: ConsoleId,
        epoch: Epoch,
        dial: Option<&str>,
    ) -> Result<consoles::Stream, ControlPlaneError> {
        self.unless_cut(self.real.bring_console(id, epoch, dial)).await
    }

    async fn refuse(&self, id: TransferId, epoch: Epoch, refusal: &Refusal) -> Result<(), ControlPlaneError> {
        self.unless_cut(self.real.refuse(id, epoch, refusal)).await
    }

    async fn image_status(&self, id: TransferId, status: &ImageStatus) -> Result<(), ControlPlaneError> {
        self.unless_cut(self.real.image_status(id, status)).await
    }
}

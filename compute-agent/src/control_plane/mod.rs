//! The control plane as the agent sees it: a few calls, always made by the agent.

#[cfg(test)]
pub mod fake;
pub mod http;

use async_trait::async_trait;
use protocol::agent::{
    DesiredPage, DesiredQuery, DriftAccepted, DriftReport, Epoch, Heartbeat, HeartbeatReply, ImageStatus,
    InsightAccepted, InsightBatch, ObservedAccepted, ObservedBatch, OpenSession, Refusal, SessionOpened,
};
use protocol::{ConsoleId, Sha256, TransferId};
use thiserror::Error;

use crate::consoles;
use crate::host_storage::{BoxError, ByteStream};

/// Everything but joining and renewing, which belong to [`crate::identity`].
#[async_trait]
pub trait ControlPlane: Send + Sync + 'static {
    async fn open_session(&self, request: &OpenSession) -> Result<SessionOpened, ControlPlaneError>;

    /// Long-polls the desired feed.
    async fn desired(&self, query: &DesiredQuery) -> Result<DesiredPage, ControlPlaneError>;

    async fn observed(&self, batch: &ObservedBatch) -> Result<ObservedAccepted, ControlPlaneError>;

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatReply, ControlPlaneError>;

    /// What was measured, and what guests say.
    async fn insight(&self, batch: &InsightBatch) -> Result<InsightAccepted, ControlPlaneError>;

    /// What differs on this host from what is wanted.
    async fn drift(&self, report: &DriftReport) -> Result<DriftAccepted, ControlPlaneError>;

    /// The bytes of a stored image.
    async fn blob(&self, sha256: Sha256) -> Result<ByteStream, ControlPlaneError>;

    /// Answers what the feed asked to be sent.
    async fn transfer(&self, id: TransferId, epoch: Epoch, bytes: Vec<u8>) -> Result<(), ControlPlaneError>;

    /// Sends the image that the feed asked for, of so many bytes.
    async fn send_image(
        &self,
        id: TransferId,
        epoch: Epoch,
        size_bytes: u64,
        bytes: ByteStream,
    ) -> Result<(), ControlPlaneError>;

    /// Brings a console that was asked for to whoever waits for it, at this replica or at the usual address.
    async fn bring_console(
        &self,
        id: ConsoleId,
        epoch: Epoch,
        dial: Option<&str>,
    ) -> Result<consoles::Stream, ControlPlaneError>;

    /// Says why something that was asked for is not done.
    async fn refuse(&self, id: TransferId, epoch: Epoch, refusal: &Refusal) -> Result<(), ControlPlaneError>;

    /// Says how far it is before that.
    async fn image_status(&self, id: TransferId, status: &ImageStatus) -> Result<(), ControlPlaneError>;
}

#[derive(Debug, Error)]
pub enum ControlPlaneError {
    /// No answer: nothing is known about what the request did.
    #[error("the control plane did not answer {call}")]
    Unreachable {
        call: &'static str,
        #[source]
        source: BoxError,
    },
    /// Another agent with this host's identity has opened a session.
    #[error("the session is no longer the newest of this host")]
    StaleEpoch,
    /// Its operator has removed it; nothing that it says counts any more.
    #[error(
        "this host has been removed from the cloud; stop this agent, and to have the machine join again, remove the folder \
         `identity` of the state directory and use a new join token"
    )]
    Removed,
    /// It is neither of this release nor of the one before or after.
    #[error("the control plane speaks another version of the agent protocol: {detail}")]
    UnsupportedProtocol { detail: String },
    #[error("the control plane refused {call} with status {status}, code {code}")]
    Refused { call: &'static str, status: u16, code: String },
    #[error("the control plane answered {call} with something else than the protocol says")]
    Malformed {
        call: &'static str,
        #[source]
        source: BoxError,
    },
}

impl ControlPlaneError {
    /// Whether what was asked about is no longer there.
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Refused { status: 404 | 410, .. })
    }
}

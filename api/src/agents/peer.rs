//! Which host is speaking, and on which session.

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use protocol::HostId;
use protocol::agent::Epoch;
use sqlx::PgConnection;

use crate::app::App;
use crate::hosts::store::{Session, session};
use crate::http::{ApiError, ErrorCode};
use crate::net::Peer;

/// The host of the client certificate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host(pub HostId);

impl FromRequestParts<App> for Host {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>();
        peer.and_then(|ConnectInfo(peer)| peer.host)
            .map(Self)
            .ok_or_else(|| ApiError::because(ErrorCode::Unauthenticated, "show a host's certificate"))
    }
}

impl Host {
    /// The host's session, if it is the one that the message names.
    pub(super) async fn session(self, conn: &mut PgConnection, epoch: Epoch) -> Result<Session, ApiError> {
        let session = session(conn, self.0).await?;
        let session = session.ok_or_else(removed)?;
        if session.epoch != epoch {
            return Err(ApiError::new(ErrorCode::StaleEpoch));
        }
        Ok(session)
    }
}

/// The certificate is good, and nobody's any more.
pub(super) fn removed() -> ApiError {
    let detail = "this host has been removed from the cloud; to have the machine join again, stop its agent, remove the \
                  folder `identity` of its state directory, and use a new join token";
    ApiError::because(ErrorCode::HostRemoved, detail)
}

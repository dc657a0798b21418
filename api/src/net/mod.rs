//! How connections come in: plain TCP on loopback, TLS everywhere else, and mutual TLS for agents.
//!
//! One [`Listener`] serves all three to `axum::serve`. What it knows of the other side travels with every
//! request as `ConnectInfo<Peer>`: the address and, when a client certificate was shown and verified, the
//! host that it stands for. Nothing else may ever name a host: no header, no body.

mod listener;
mod stream;
#[cfg(test)]
mod tests;
pub mod tls;

use std::net::SocketAddr;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use protocol::HostId;
use thiserror::Error;

pub use listener::Listener;
pub use stream::Stream;

/// The other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// The host whose certificate the peer proved to hold. `None` for plain TCP and for clients without a
    /// certificate; a certificate that does not verify never gets this far.
    pub host: Option<HostId>,
}

impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        *stream.remote_addr()
    }
}

/// Passwords and tokens would cross a network in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "refusing to serve plain HTTP on {0}, which is not a loopback address: configure a certificate and key"
)]
pub struct PlainHttpRefused(pub SocketAddr);

/// Plain HTTP is for loopback only.
pub fn require_tls_unless_loopback(address: SocketAddr, has_tls: bool) -> Result<(), PlainHttpRefused> {
    // `to_canonical` sees through ::ffff:127.0.0.1.
    if has_tls || address.ip().to_canonical().is_loopback() { Ok(()) } else { Err(PlainHttpRefused(address)) }
}

//! How connections come in: plain TCP on loopback, TLS everywhere else, and mutual TLS for agents.
//!
//! One [`Listener`] takes all three, and [`serve`] runs HTTP on what it takes. What is known of the other side
//! travels with every request as `ConnectInfo<Peer>`: the address and, when a client certificate was shown
//! and verified, the host that it stands for. Nothing else may ever name a host: no header, no body.

mod certificate;
mod connection;
mod listener;
mod proxies;
mod server;
mod slots;
mod stream;
#[cfg(test)]
mod tests;
pub mod tls;
mod traffic;

use std::net::SocketAddr;

use protocol::HostId;
use thiserror::Error;

pub use certificate::PublicCertificate;
pub use listener::Listener;
pub use proxies::TrustedProxies;
pub(crate) use proxies::neighbourhood;
pub use server::serve;
pub use slots::ConnectionLimits;
pub use stream::Stream;

/// The other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    pub tls: bool,
    /// The host whose certificate the peer proved to hold. `None` for plain TCP and for clients without a
    /// certificate; a certificate that does not verify never gets this far.
    pub host: Option<HostId>,
}

/// A connection that is ready for HTTP.
#[derive(Debug)]
struct Accepted {
    stream: Stream,
    peer: Peer,
    slot: slots::Slot,
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

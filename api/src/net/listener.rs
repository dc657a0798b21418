//! Accepts connections and finishes their TLS handshakes side by side.
//!
//! A handshake takes as long as the client likes, so each runs in a task of its own and has a deadline.
//! When too many are under way the oldest is given up: an honest client is done in milliseconds, so what
//! has waited longest is the least likely to be one.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::slots::{Slot, Slots};
use super::{Accepted, ConnectionLimits, Peer, Stream, TrustedProxies};
use crate::pki;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HANDSHAKES: usize = 512;

/// How long to leave the kernel alone after it refused a connection, for want of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket that yields connections ready for HTTP.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Handshakes>,
    slots: Slots,
}

impl Listener {
    /// Plain TCP. Ask [`require_tls_unless_loopback`](super::require_tls_unless_loopback) first.
    pub async fn plain(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { tcp: TcpListener::bind(address).await?, tls: None, slots: Slots::default() })
    }

    /// TLS with a configuration from [`tls`](super::tls).
    pub async fn tls(address: SocketAddr, config: Arc<ServerConfig>) -> io::Result<Self> {
        let handshakes = Handshakes::new(config, HANDSHAKE_TIMEOUT, MAX_HANDSHAKES);
        Ok(Self { tcp: TcpListener::bind(address).await?, tls: Some(handshakes), slots: Slots::default() })
    }

    /// With other limits than the default, and proxies to which only the first of them applies.
    #[must_use]
    pub fn limited(mut self, limits: ConnectionLimits, proxies: TrustedProxies) -> Self {
        self.slots = Slots::new(limits, proxies);
        self
    }

    #[cfg(test)]
    pub(super) fn with_limits(mut self, timeout: Duration, max: usize) -> Self {
        if let Some(tls) = &mut self.tls {
            (tls.timeout, tls.max) = (timeout, max);
        }
        self
    }

    /// Where it listens; tells the port when port 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next connection that is ready.
    pub(super) async fn accept(&mut self) -> Accepted {
        let Some(handshakes) = &mut self.tls else {
            let (stream, address, slot) = accept(&self.tcp, &self.slots).await;
            let peer = Peer { address, tls: false, host: None };
            return Accepted { stream: Stream::Plain(stream), peer, slot };
        };
        loop {
            tokio::select! {
                ready = handshakes.next() => return ready,
                (stream, address, slot) = accept(&self.tcp, &self.slots) => {
                    handshakes.begin(stream, address, slot);
                }
            }
        }
    }
}

async fn accept(tcp: &TcpListener, slots: &Slots) -> (TcpStream, SocketAddr, Slot) {
    loop {
        match tcp.accept().await {
            Ok((stream, address)) => {
                let Some(slot) = slots.take(address.ip()) else { continue };
                // Answers are written whole; waiting to fill a packet only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%address, %error, "cannot set TCP_NODELAY");
                }
                return (stream, address, slot);
            }
            Err(error) if is_the_clients_doing(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_the_clients_doing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The handshakes under way; dropping this drops them.
struct Handshakes {
    acceptor: TlsAcceptor,
    tasks: JoinSet<Option<Accepted>>,
    /// Oldest first.
    started: VecDeque<AbortHandle>,
    timeout: Duration,
    max: usize,
}

impl Handshakes {
    fn new(config: Arc<ServerConfig>, timeout: Duration, max: usize) -> Self {
        let acceptor = TlsAcceptor::from(config);
        Self { acceptor, tasks: JoinSet::new(), started: VecDeque::new(), timeout, max }
    }

    fn begin(&mut self, stream: TcpStream, address: SocketAddr, slot: Slot) {
        self.started.retain(|task| !task.is_finished());
        if self.started.len() >= self.max
            && let Some(oldest) = self.started.pop_front()
        {
            tracing::debug!("gave up the oldest of too many TLS handshakes");
            oldest.abort();
        }
        let (acceptor, timeout) = (self.acceptor.clone(), self.timeout);
        let task = self.tasks.spawn(async move {
            let (stream, peer) = handshake(acceptor, stream, address, timeout).await?;
            Some(Accepted { stream, peer, slot })
        });
        self.started.push_back(task);
    }

    /// The next connection that is ready. Never ends while nothing is under way.
    async fn next(&mut self) -> Accepted {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Some(ready))) => return ready,
                Some(Ok(None) | Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

impl std::fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshakes").field("under_way", &self.tasks.len()).finish_non_exhaustive()
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    timeout: Duration,
) -> Option<(Stream, Peer)> {
    match tokio::time::timeout(timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let host = certificate.and_then(pki::peer::host_id);
            Some((Stream::Tls(Box::new(stream)), Peer { address, tls: true, host }))
        }
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%address, "TLS handshake timed out");
            None
        }
    }
}

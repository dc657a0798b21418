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

use super::{Peer, Stream};
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
}

impl Listener {
    /// Plain TCP. Ask [`require_tls_unless_loopback`](super::require_tls_unless_loopback) first.
    pub async fn plain(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { tcp: TcpListener::bind(address).await?, tls: None })
    }

    /// TLS with a configuration from [`tls`](super::tls).
    pub async fn tls(address: SocketAddr, config: Arc<ServerConfig>) -> io::Result<Self> {
        let handshakes = Handshakes::new(config, HANDSHAKE_TIMEOUT, MAX_HANDSHAKES);
        Ok(Self { tcp: TcpListener::bind(address).await?, tls: Some(handshakes) })
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
}

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = Peer;

    async fn accept(&mut self) -> (Stream, Peer) {
        let Some(handshakes) = &mut self.tls else {
            let (stream, address) = accept(&self.tcp).await;
            return (Stream::Plain(stream), Peer { address, host: None });
        };
        loop {
            tokio::select! {
                ready = handshakes.next() => return ready,
                (stream, address) = accept(&self.tcp) => handshakes.begin(stream, address),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: self.address()?, host: None })
    }
}

async fn accept(tcp: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match tcp.accept().await {
            Ok((stream, address)) => {
                // Answers are written whole; waiting to fill a packet only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%address, %error, "cannot set TCP_NODELAY");
                }
                return (stream, address);
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
    tasks: JoinSet<Option<(Stream, Peer)>>,
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

    fn begin(&mut self, stream: TcpStream, address: SocketAddr) {
        self.started.retain(|task| !task.is_finished());
        if self.started.len() >= self.max
            && let Some(oldest) = self.started.pop_front()
        {
            tracing::debug!("gave up the oldest of too many TLS handshakes");
            oldest.abort();
        }
        let (acceptor, timeout) = (self.acceptor.clone(), self.timeout);
        self.started.push_back(self.tasks.spawn(handshake(acceptor, stream, address, timeout)));
    }

    /// The next connection that is ready. Never ends while nothing is under way.
    async fn next(&mut self) -> (Stream, Peer) {
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
            Some((Stream::Tls(Box::new(stream)), Peer { address, host }))
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

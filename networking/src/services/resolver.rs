//! The host's resolvers, as dnsmasq reaches them from a network that has no way to them: by sockets on the loopback
//! device of its namespace, which no guest reaches. What comes in there is asked in the host's own namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use protocol::Vni;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::{inside, namespace_identity};
use crate::{names, namespace};

/// Where dnsmasq asks.
pub(super) const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5300);
const RESOLVERS: &str = "/etc/resolv.conf";
const DNS: u16 = 53;
/// Of one network at once; dnsmasq itself has no more than 150 under way.
const QUESTIONS: usize = 150;
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest message over UDP that anyone offers to take.
const MESSAGE_BYTES: usize = 4096;
/// Before another try when nothing can be received.
const PAUSE: Duration = Duration::from_millis(100);

/// One that serves until it is dropped.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Of the namespace that it is in.
    namespace: u64,
    task: AbortHandle,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Resolver {
    /// Starts to serve a network; `all` are the turns of all networks.
    pub(super) async fn start(vni: Vni, all: Arc<Semaphore>) -> io::Result<Self> {
        let identity = namespace_identity(vni).ok_or(io::ErrorKind::NotFound)?;
        let name = names::services_namespace(vni);
        let sockets = namespace::within(&name, || {
            let sockets = (UdpSocket::bind(ADDRESS)?, TcpListener::bind(ADDRESS)?);
            sockets.0.set_nonblocking(true)?;
            sockets.1.set_nonblocking(true)?;
            Ok(sockets)
        });
        let (udp, tcp) = sockets.await?;
        let (udp, tcp) = (tokio::net::UdpSocket::from_std(udp)?, tokio::net::TcpListener::from_std(tcp)?);
        let turns = Turns { network: Arc::new(Semaphore::new(QUESTIONS)), all };
        let serve = async move { tokio::join!(messages(Arc::new(udp), &turns), connections(tcp, &turns)) };
        Ok(Self { namespace: identity, task: tokio::spawn(serve).abort_handle() })
    }

    /// Whether it serves the namespace that now has the network's name.
    pub(super) fn serves(&self, vni: Vni) -> bool {
        let path = namespace::path(&names::services_namespace(vni));
        inside::identity(&path) == Some(self.namespace) && !self.task.is_finished()
    }
}

/// How many questions may be under way.
struct Turns {
    network: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

impl Turns {
    /// One of the network and one of all; `None` if there are too many.
    fn take(&self) -> Option<[OwnedSemaphorePermit; 2]> {
        let network = Arc::clone(&self.network).try_acquire_owned().ok()?;
        Some([network, Arc::clone(&self.all).try_acquire_owned().ok()?])
    }
}

async fn messages(socket: Arc<tokio::net::UdpSocket>, turns: &Turns) {
    let mut buffer = [0; MESSAGE_BYTES];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Too many at once: whoever asked asks again.
        let Some(turn) = turns.take() else { continue };
        let (question, socket) = (buffer[..length].to_vec(), Arc::clone(&socket));
        tokio::spawn(async move {
            let _turn = turn;
            if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, ask(&question)).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

/// Each question has a socket, and so a port, of its own: a forged answer has to guess it.
async fn ask(question: &[u8]) -> io::Result<Vec<u8>> {
    let resolver = first_resolver()?;
    let any: IpAddr = if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { [0_u16; 8].into() };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut answer = vec![0; MESSAGE_BYTES];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

async fn connections(listener: tokio::net::TcpListener, turns: &Turns) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Some(turn) = turns.take() else { continue };
        tokio::spawn(async move {
            let _turn = turn;
            let exchange = async {
                let mut upstream = tokio::net::TcpStream::connect(first_resolver()?).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut upstream).await
            };
            let _ = tokio::time::timeout(PATIENCE, exchange).await;
        });
    }
}

/// The first of the host's resolvers (`resolv.conf(5)`), as it is now.
fn first_resolver() -> io::Result<SocketAddr> {
    let text = std::fs::read_to_string(RESOLVERS)?;
    let addresses =
        text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    let none = || io::Error::new(io::ErrorKind::NotFound, "the host has no resolver");
    addresses.map(|address: IpAddr| SocketAddr::new(address, DNS)).next().ok_or_else(none)
}

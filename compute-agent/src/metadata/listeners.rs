//! A socket in each network's namespace, and what comes in by it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use networking::services::{self, METADATA_HOP_LIMIT, listen_for_metadata, namespace_identity};
use protocol::Vni;
use protocol::agent::{HostNetwork, NetworkFault, NetworkSubject};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::Metadata;
use super::answer::Question;

/// What one address may have open at once.
const CONNECTIONS: usize = 32;
/// What all addresses of a network may have open at once.
const NETWORK_CONNECTIONS: usize = 256;
/// The largest head of a request.
const HEAD_BYTES: usize = 16 << 10;
/// From the first byte of a connection to its last.
const LIMIT: Duration = Duration::from_secs(10);
/// Before another try when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub struct Listeners {
    metadata: Arc<Metadata>,
    open: tokio::sync::Mutex<HashMap<Vni, Open>>,
    /// Connections that all networks together may have open besides.
    all: Arc<Semaphore>,
}

/// One that serves, until it is dropped.
struct Open {
    /// Of the namespace that it is in.
    namespace: u64,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listeners {
    pub fn new(metadata: Arc<Metadata>) -> Self {
        let all = Arc::new(Semaphore::new(networking::files::share()));
        Self { metadata, open: tokio::sync::Mutex::default(), all }
    }

    /// Listens in the namespaces of the networks that are served here, which have to be there, and in no other. Named
    /// are the networks in which that cannot be done.
    pub async fn converge(&self, want: &HostNetwork) -> Vec<NetworkFault> {
        let networks = || want.networks.iter().filter(|network| services::are_here(network));
        let mut open = self.open.lock().await;
        open.retain(|vni, open| {
            let is_wanted = networks().any(|network| network.vni == *vni);
            is_wanted && namespace_identity(*vni) == Some(open.namespace) && !open.task.is_finished()
        });
        let mut faults = Vec::new();
        for network in networks() {
            if open.contains_key(&network.vni) {
                continue;
            }
            match self.listen(network.vni).await {
                Ok(listening) => drop(open.insert(network.vni, listening)),
                Err(error) => {
                    tracing::warn!(vni = %network.vni, %error, "no metadata service");
                    let detail = format!("the metadata service cannot listen: {error}");
                    faults.push(NetworkFault { subject: NetworkSubject::Network(network.id), detail });
                }
            }
        }
        faults
    }

    async fn listen(&self, vni: Vni) -> io::Result<Open> {
        let namespace = namespace_identity(vni).ok_or(io::ErrorKind::NotFound)?;
        let listener = TcpListener::from_std(listen_for_metadata(vni).await?)?;
        let task = tokio::spawn(serve(listener, vni, Arc::clone(&self.metadata), Arc::clone(&self.all)));
        Ok(Open { namespace, task: task.abort_handle() })
    }
}

/// Answers whoever comes, until it is aborted.
pub(super) async fn serve(listener: TcpListener, vni: Vni, metadata: Arc<Metadata>, all: Arc<Semaphore>) {
    let slots = Arc::new(Slots::default());
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                // Whoever has too many open gets this one closed.
                let Some(slot) = Slots::take(&slots, from.ip()) else { continue };
                let Ok(turn) = Arc::clone(&all).try_acquire_owned() else { continue };
                let connection = connection(stream, vni, from.ip(), Arc::clone(&metadata));
                tokio::spawn(async move {
                    let _held = (slot, turn);
                    // What the guest does wrong is its own business.
                    let _ = tokio::time::timeout(LIMIT, connection).await;
                });
            }
            Err(error) => {
                tracing::debug!(%vni, %error, "a connection to the metadata service was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, vni: Vni, source: IpAddr, metadata: Arc<Metadata>) {
    if let Err(error) = stream.set_ttl(METADATA_HOP_LIMIT) {
        tracing::debug!(%vni, %error, "the hop limit of an answer cannot be set: closed");
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
        let answer = metadata.answer(&Question { vni, source, method, path, headers });
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(LIMIT).keep_alive(false).max_buf_size(HEAD_BYTES);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%vni, %error, "a connection to the metadata service ended early");
    }
}

/// Counts the connections of each address.
#[derive(Default)]
struct Slots {
    taken: Mutex<HashMap<IpAddr, usize>>,
}

struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
}

impl Slots {
    fn take(slots: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let mut taken = slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= NETWORK_CONNECTIONS {
            return None;
        }
        let count = taken.entry(address).or_default();
        if *count >= CONNECTIONS {
            return None;
        }
        *count += 1;
        Some(Slot { slots: Arc::clone(slots), address })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

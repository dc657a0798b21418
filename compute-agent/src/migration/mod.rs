//! Guests on their way between two hosts: QEMU on one side, this agent, TLS, the other agent, QEMU on the other side.
//!
//! Neither QEMU nor libvirt listens anywhere. The destination's agent does, at the host's underlay address, while it
//! expects a guest, for the agent of the source alone. QEMU gets one end of a pair of sockets and this agent keeps the other:
//! when the agent ends, so does what is under way, and the guest runs on at its source.

pub mod disks;
mod live;
mod tls;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream as Pair;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camino::Utf8PathBuf;
use nix::sys::socket::{setsockopt, sockopt};
use protocol::{HostId, InstanceId, MigrationId, VolumeId};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsStream;

use self::live::Way;
use self::tls::Tls;
use crate::hypervisor::Hypervisor;

/// How long the other side may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many may be saying so at a time.
const CALLERS: usize = 64;
/// How long the other side may say nothing, even that it is there.
const SILENCE: Duration = Duration::from_secs(30);
/// How long the other side may not begin. The control plane gives up earlier.
const EXPECTED: Duration = Duration::from_secs(15 * 60);
/// For a guest, the ways of whose disks have ended.
const LATE: Duration = Duration::from_secs(3);

/// See the module.
pub struct Relays {
    state_dir: Utf8PathBuf,
    underlay_address: Option<IpAddr>,
    hypervisor: Arc<dyn Hypervisor>,
    underway: Mutex<HashMap<InstanceId, Underway>>,
    limits: Limits,
}

/// How long the other side is waited for. Tests do so for less.
#[derive(Debug, Clone, Copy)]
struct Limits {
    begins: Duration,
    answers: Duration,
    late: Duration,
}

/// Who has called, and is yet to say who it is.
type Callers = JoinSet<Result<io::Result<TlsStream<TcpStream>>, Elapsed>>;

struct Underway {
    migration: MigrationId,
    /// Where the guest is expected.
    address: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
    /// Since when the guest waits for what the other side does with its disks.
    waits: watch::Sender<Option<Instant>>,
}

impl Underway {
    fn new(migration: MigrationId, address: Option<SocketAddr>, tasks: Vec<JoinHandle<()>>) -> Self {
        Self { migration, address, tasks, waits: watch::Sender::new(None) }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Relays {
    /// The identity is read anew for each migration, since its certificate is renewed now and then.
    pub fn new(
        state_dir: Utf8PathBuf,
        underlay_address: Option<IpAddr>,
        hypervisor: Arc<dyn Hypervisor>,
    ) -> Self {
        let limits = Limits { begins: EXPECTED, answers: SILENCE, late: LATE };
        Self { state_dir, underlay_address, hypervisor, underway: Mutex::default(), limits }
    }

    /// Where the guest of this migration is expected.
    pub fn expected_at(&self, id: InstanceId, migration: MigrationId) -> Option<SocketAddr> {
        let underway = self.lock();
        let is_underway = |one: &&Underway| one.tasks.iter().any(|task| !task.is_finished());
        let one = underway.get(&id).filter(|one| one.migration == migration).filter(is_underway);
        one.and_then(|one| one.address)
    }

    /// Expects the guest from that host, and before it what it writes to of these volumes. Whoever else calls is turned
    /// away.
    pub async fn expect(
        &self,
        id: InstanceId,
        migration: MigrationId,
        source: HostId,
        volumes: Vec<VolumeId>,
    ) -> io::Result<()> {
        let no_address = || io::Error::other("this host has no underlay address");
        let tls = self.tls()?;
        let listener = TcpListener::bind((self.underlay_address.ok_or_else(no_address)?, 0)).await?;
        let address = listener.local_addr()?;
        let hypervisor = Arc::clone(&self.hypervisor);
        if !volumes.is_empty() {
            let Limits { begins, late, .. } = self.limits;
            let guest = live::Expected { id, migration, source, volumes, begins, late };
            let task = tokio::spawn(live::take(guest, (listener, tls), self.state_dir.clone(), hypervisor));
            self.put(id, Underway::new(migration, Some(address), vec![task]));
            return Ok(());
        }
        let task = tokio::spawn(async move {
            let accepted = timeout(EXPECTED, accept(&listener, &tls, source, &mut Callers::new())).await;
            match accepted {
                Ok(mut stream) => {
                    // Nobody else is let in.
                    drop(listener);
                    let (theirs, ours) = match pair() {
                        Ok(pair) => pair,
                        Err(error) => return tracing::warn!(instance = %id, %error, "no sockets for a guest"),
                    };
                    if let Err(error) = hypervisor.receive(id, theirs).await {
                        return tracing::warn!(instance = %id, error = %crate::chain(&error), "it is not taken");
                    }
                    carry(id, &mut stream, ours).await;
                }
                Err(_) => tracing::warn!(instance = %id, "nobody has sent the guest that was expected"),
            }
        });
        self.put(id, Underway::new(migration, Some(address), vec![task]));
        Ok(())
    }

    /// A way to that host, for QEMU to write to. It ends with this agent.
    pub async fn reach(
        &self,
        id: InstanceId,
        migration: MigrationId,
        to: (HostId, SocketAddr),
    ) -> io::Result<Pair> {
        self.forget(id);
        let stream = self.connect(migration, to, None).await?;
        self.carry_on(id, migration, |qemu, _| carry_all(id, stream, qemu))
    }

    /// The same for each of these volumes, when the other side is ready for all of them: QEMU does nothing else while it
    /// waits for that. The guest goes the last way.
    pub async fn reach_disks(
        &self,
        id: InstanceId,
        migration: MigrationId,
        to: (HostId, SocketAddr),
        volumes: &[VolumeId],
    ) -> io::Result<Vec<(VolumeId, Pair)>> {
        self.forget(id);
        let mut streams = Vec::new();
        for volume in volumes {
            streams.push((*volume, self.connect(migration, to, Some(Way::Disk { volume: *volume })).await?));
        }
        let mut ways = Vec::new();
        for (volume, mut stream) in streams {
            live::hear_ready(&mut stream).await?;
            let answers = self.limits.answers;
            let carried = |qemu, waits| live::carry_answered(id, (stream, qemu), waits, answers);
            ways.push((volume, self.carry_on(id, migration, carried)?));
        }
        Ok(ways)
    }

    /// The way of a guest after its disks, for each of which it waits from now on.
    pub async fn reach_after_disks(
        &self,
        id: InstanceId,
        migration: MigrationId,
        to: (HostId, SocketAddr),
    ) -> io::Result<Pair> {
        let stream = self.connect(migration, to, Some(Way::Guest)).await?;
        if let Some(one) = self.lock().get(&id) {
            one.waits.send_replace(Some(Instant::now()));
        }
        self.carry_on(id, migration, |qemu, _| carry_all(id, stream, qemu))
    }

    async fn connect(
        &self,
        migration: MigrationId,
        (destination, address): (HostId, SocketAddr),
        way: Option<Way>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let tls = self.tls()?;
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            end_with_the_other_side(&stream)?;
            let mut stream = tls.connect(stream, destination).await?;
            if let Some(way) = way {
                live::say(&mut stream, migration, way).await?;
            }
            io::Result::Ok(stream)
        };
        timeout(HANDSHAKE, connect).await?
    }

    fn carry_on<F>(
        &self,
        id: InstanceId,
        migration: MigrationId,
        carried: impl FnOnce(UnixStream, watch::Receiver<Option<Instant>>) -> F,
    ) -> io::Result<Pair>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (theirs, ours) = pair()?;
        let mut underway = self.lock();
        let one = underway.entry(id).or_insert_with(|| Underway::new(migration, None, Vec::new()));
        one.tasks.push(tokio::spawn(carried(ours, one.waits.subscribe())));
        Ok(theirs)
    }

    fn tls(&self) -> io::Result<Tls> {
        Tls::of(&self.state_dir).map_err(|error| io::Error::other(crate::chain(&error)))
    }

    fn put(&self, id: InstanceId, underway: Underway) {
        self.lock().insert(id, underway);
    }

    /// Nothing of that instance is on its way any more.
    pub fn forget(&self, id: InstanceId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, Underway>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next connection of that host. Callers say who they are side by side: one that says nothing holds nobody up. Who is about
/// to say so is kept for the next time: the source calls again while the destination still looks who it is.
async fn accept(
    listener: &TcpListener,
    tls: &Tls,
    source: HostId,
    callers: &mut Callers,
) -> TlsStream<TcpStream> {
    loop {
        tokio::select! {
            accepted = listener.accept(), if callers.len() < CALLERS => match accepted {
                Ok((stream, _)) => match end_with_the_other_side(&stream) {
                    Ok(()) => drop(callers.spawn(timeout(HANDSHAKE, tls.accept(stream, source)))),
                    Err(error) => tracing::warn!(%error, "a connection was given up"),
                },
                Err(error) => {
                    tracing::warn!(%error, "no connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(said) = callers.join_next() => match said {
                Ok(Ok(Ok(stream))) => return stream,
                Ok(Ok(Err(error))) => tracing::warn!(%error, "somebody was turned away"),
                Ok(Err(_)) => tracing::warn!("somebody was turned away who did not say who it is"),
                Err(error) => tracing::error!(%error, "a caller was not heard"),
            },
        }
    }
}

/// A guest does not stand still for a host that is gone without having said so.
fn end_with_the_other_side(stream: &TcpStream) -> io::Result<()> {
    let ask_after = u32::try_from(SILENCE.as_secs() / 3).unwrap_or(u32::MAX);
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &ask_after)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &ask_after)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

fn pair() -> io::Result<(Pair, UnixStream)> {
    let (theirs, ours) = Pair::pair()?;
    ours.set_nonblocking(true)?;
    Ok((theirs, UnixStream::from_std(ours)?))
}

async fn carry_all(id: InstanceId, mut stream: TlsStream<TcpStream>, qemu: UnixStream) {
    carry(id, &mut stream, qemu).await;
}

async fn carry(id: InstanceId, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), mut qemu: UnixStream) {
    match copy_bidirectional(stream, &mut qemu).await {
        Ok((taken, given)) => tracing::info!(instance = %id, taken, given, "a guest was carried"),
        Err(error) => tracing::info!(instance = %id, %error, "the way of a guest has ended"),
    }
}

#[cfg(test)]
pub(crate) mod tests;

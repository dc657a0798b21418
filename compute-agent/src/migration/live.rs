//! A guest that comes with its disks: several ways between two hosts, one for each disk and the last for the guest itself.
//!
//! QEMU at the destination lets the source write to the guest's disks by NBD. It is handed a socket that it accepts connections
//! from, to which nobody finds: it had a name in a folder of the agent's own for a moment, in which the agent has made all
//! the connections that there will be.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream as Pair};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{HostId, InstanceId, MigrationId, VolumeId};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsStream;
use tokio_util::io::{InspectReader, InspectWriter};

use super::disks::wire;
use super::tls::Tls;
use super::{Callers, HANDSHAKE, accept, carry, pair};
use crate::hypervisor::Hypervisor;

/// What goes a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Way {
    /// What the guest writes to of a volume.
    Disk { volume: VolumeId },
    /// The guest.
    Guest,
}

/// What the source says on each connection before anything else.
#[derive(Debug, Serialize, Deserialize)]
struct Opening {
    migration: MigrationId,
    way: Way,
}

/// The guest that comes.
pub(super) struct Expected {
    pub id: InstanceId,
    pub migration: MigrationId,
    pub source: HostId,
    pub volumes: Vec<VolumeId>,
    /// How long the source may not call for one of them.
    pub begins: Duration,
    /// How much later it may come than the ways of its disks end.
    pub late: Duration,
}

pub(super) async fn say(
    to: &mut (impl AsyncWrite + Unpin),
    migration: MigrationId,
    way: Way,
) -> io::Result<()> {
    wire::say(to, &Opening { migration, way }).await
}

/// What the destination says on the way of each disk when all of them can be written to.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {}

/// Waits until the other side is ready for the disks.
pub(super) async fn hear_ready(from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let said = wire::hear::<Ready>(from).await?;
    said.map(drop).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Takes the disks and then the guest. Whatever fails ends all ways, and the guest is where it was.
pub(super) async fn take(
    guest: Expected,
    at: (TcpListener, Tls),
    folder: Utf8PathBuf,
    hypervisor: Arc<dyn Hypervisor>,
) {
    if let Err(error) = take_all(&guest, at, &folder, hypervisor.as_ref()).await {
        tracing::warn!(instance = %guest.id, %error, "a guest is not taken with its disks");
    }
}

async fn take_all(
    guest: &Expected,
    (listener, tls): (TcpListener, Tls),
    folder: &Utf8Path,
    hypervisor: &dyn Hypervisor,
) -> io::Result<()> {
    let failed = |error| io::Error::other(crate::chain(&error));
    let mut callers = Callers::new();
    let mut ways = disks(guest, &listener, &tls, &mut callers).await?;
    let (door, ours) = door(folder, guest.id, ways.len())?;
    hypervisor.open_disks(guest.id, &guest.volumes, door).await.map_err(failed)?;
    for stream in &mut ways {
        wire::say(stream, &Ready {}).await?;
    }
    // They end when this does.
    let mut carried = JoinSet::new();
    for (mut stream, ours) in ways.into_iter().zip(ours) {
        let id = guest.id;
        carried.spawn(async move { carry(id, &mut stream, ours).await });
    }
    // However long the disks take: while they are on their way the source is there.
    let mut stream = {
        let mut comes = pin!(itself(guest, &listener, &tls, &mut callers));
        tokio::select! {
            stream = &mut comes => stream,
            // As those of a guest do that is almost there.
            Some(_) = carried.join_next() => timeout(guest.late, comes)
                .await
                .map_err(|_| io::Error::other("the way of a disk has ended before its guest came"))?,
        }
    };
    // Nobody else is let in.
    drop((listener, callers));
    let (theirs, ours) = pair()?;
    hypervisor.receive(guest.id, theirs).await.map_err(failed)?;
    carry(guest.id, &mut stream, ours).await;
    Ok(())
}

/// A connection for each of the disks.
async fn disks(
    guest: &Expected,
    listener: &TcpListener,
    tls: &Tls,
    callers: &mut Callers,
) -> io::Result<Vec<TlsStream<TcpStream>>> {
    let (mut ways, mut left) = (Vec::new(), guest.volumes.clone());
    while !left.is_empty() {
        match timeout(guest.begins, next(guest, listener, tls, callers)).await? {
            (stream, Way::Disk { volume }) if left.contains(&volume) => {
                left.retain(|one| *one != volume);
                ways.push(stream);
            }
            (_, way) => {
                tracing::warn!(instance = %guest.id, ?way, "a way was given up that nothing comes by now");
            }
        }
    }
    Ok(ways)
}

/// The connection that the guest comes by.
async fn itself(
    guest: &Expected,
    listener: &TcpListener,
    tls: &Tls,
    callers: &mut Callers,
) -> TlsStream<TcpStream> {
    loop {
        match next(guest, listener, tls, callers).await {
            (stream, Way::Guest) => return stream,
            (_, way) => {
                tracing::warn!(instance = %guest.id, ?way, "a way was given up that is there already");
            }
        }
    }
}

/// The next connection of the source that belongs to this migration.
async fn next(
    guest: &Expected,
    listener: &TcpListener,
    tls: &Tls,
    callers: &mut Callers,
) -> (TlsStream<TcpStream>, Way) {
    loop {
        let mut stream = accept(listener, tls, guest.source, callers).await;
        match timeout(HANDSHAKE, wire::hear::<Opening>(&mut stream)).await {
            Ok(Ok(Some(opening))) if opening.migration == guest.migration => return (stream, opening.way),
            said => tracing::warn!(instance = %guest.id, ?said, "a connection was given up"),
        }
    }
}

/// Carries what QEMU asks the other side to do with a disk, and what that answers. INVARIANT: once a guest waits for it, a host
/// that is alive, and whose disk or QEMU answers nothing any more, holds it up for no longer than one that is gone. Before that
/// the other side may flush all that was copied, which takes as long as it takes.
pub(super) async fn carry_answered(
    id: InstanceId,
    (stream, qemu): (TlsStream<TcpStream>, UnixStream),
    mut waits: watch::Receiver<Option<Instant>>,
    within: Duration,
) {
    let asked = Mutex::new(None::<Instant>);
    let lock = || asked.lock().unwrap_or_else(PoisonError::into_inner);
    let heard = InspectReader::new(stream, |_: &[u8]| *lock() = None);
    let mut stream = InspectWriter::new(heard, |_: &[u8]| {
        lock().get_or_insert_with(Instant::now);
    });
    let unanswered = async {
        let waits_since = waits.wait_for(Option::is_some).await.ok().and_then(|since| *since);
        loop {
            let (now, asked) = (Instant::now(), *lock());
            let until = asked.max(waits_since).filter(|_| asked.is_some()).unwrap_or(now) + within;
            if until <= now {
                return;
            }
            sleep_until(until).await;
        }
    };
    tokio::select! {
        () = carry(id, &mut stream, qemu) => {}
        () = unanswered => tracing::warn!(instance = %id, "the other host does nothing with a disk any more"),
    }
}

/// A socket for QEMU to accept connections from, and all that it will get.
fn door(folder: &Utf8Path, id: InstanceId, ways: usize) -> io::Result<(UnixListener, Vec<UnixStream>)> {
    let (folder, name) = (File::open(folder)?, format!("disks-{id}"));
    // Names of sockets are short.
    let path = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    let ours = (0..ways).map(|_| Pair::connect(&path)).collect::<io::Result<Vec<_>>>();
    fs::remove_file(&path)?;
    let ours = ours?.into_iter().map(|stream| {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    });
    Ok((listener, ours.collect::<io::Result<_>>()?))
}

//! The side that is to have the disks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use protocol::HostId;
use protocol::agent::{CopiedLayer, ImageSource, MigrationState};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::super::tls::Tls;
use super::super::{Callers, EXPECTED, accept};
use super::wire::{self, Answer, Ask, CHUNK, End};
use super::{Broken, DiskMoves, Of};
use crate::chain;
use crate::host_storage::{BoxError, ByteStream, HostStorageError, NewDisk};

/// How often to say how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How soon to look whether an earlier order to remove the same is carried out.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

const NOT_EXPECTED: &str = "The other host could not open a way for the disks.";
const NOBODY: &str = "The host of the instance has not sent its disks to the other host.";
const BROKEN_OFF: &str = "The connection between the hosts has broken off.";
const NO_ROOM: &str = "The other host has too little room on its disk.";
const NOT_KEPT: &str = "The other host could not write the disks down.";
const NOT_THOSE: &str = "What came is not what the disks of the instance are.";
const NO_IMAGE: &str = "The image of a disk could not be brought to the other host.";

/// How far it is.
struct Progress {
    of: Of,
    done_bytes: u64,
    total_bytes: u64,
    told_at: Option<Instant>,
}

impl DiskMoves {
    pub(super) async fn take(
        self: Arc<Self>,
        of: Of,
        source: HostId,
        layers: &[CopiedLayer],
        cancelled: &CancellationToken,
    ) {
        match self.take_all(of, source, layers, cancelled).await {
            Ok(()) => {
                tracing::info!(instance = %of.instance, migration = %of.id, "its disks are here");
                self.tell(of, MigrationState::Received);
            }
            Err(Broken::Cancelled) => {}
            Err(Broken::Because(detail, error)) => {
                tracing::warn!(instance = %of.instance, migration = %of.id, error = %chain(error.as_ref()), "{detail}");
                self.tell(of, MigrationState::Refused { detail: detail.to_owned() });
            }
        }
    }

    async fn take_all(
        &self,
        of: Of,
        source: HostId,
        layers: &[CopiedLayer],
        cancelled: &CancellationToken,
    ) -> Result<(), Broken> {
        let ids: Vec<_> = layers.iter().map(|layer| layer.id).collect();
        while self.underway.is_removing(&ids) {
            unless(cancelled, tokio::time::sleep(LOOK_AGAIN).map(Ok)).await?;
        }
        let mut stream = unless(cancelled, self.expect(of, source)).await?;
        self.ask(of, layers, &mut stream, cancelled).await
    }

    /// Listens for that host. Whoever else calls is turned away.
    async fn expect(
        &self,
        of: Of,
        source: HostId,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>, Broken> {
        let not_expected = |error: BoxError| Broken::Because(NOT_EXPECTED, error);
        let tls = Tls::of(&self.state_dir).map_err(|error| not_expected(error.into()))?;
        let own =
            self.underlay_address.ok_or_else(|| not_expected("this host has no underlay address".into()))?;
        let listener = TcpListener::bind((own, 0)).await.map_err(|error| not_expected(error.into()))?;
        let address = listener.local_addr().map_err(|error| not_expected(error.into()))?;
        self.tell(of, MigrationState::Ready { address });
        let accepted = timeout(EXPECTED, accept(&listener, &tls, source, &mut Callers::new())).await;
        accepted.map_err(|error| Broken::Because(NOBODY, error.into()))
    }

    /// Asks for one layer after the other, each after the one that it stands on.
    pub(super) async fn ask(
        &self,
        of: Of,
        layers: &[CopiedLayer],
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        cancelled: &CancellationToken,
    ) -> Result<(), Broken> {
        let mut progress = Progress { of, done_bytes: 0, total_bytes: 0, told_at: None };
        let mut lacking = Vec::new();
        for layer in layers.iter().filter(|layer| !layer.fresh) {
            // It has come before this process began; it is whole.
            if self.storage.has_come(layer.id, of.id).await.map_err(not_kept)? {
                continue;
            }
            let ask = Ask::Size { migration: of.id, layer: layer.id };
            if let Answer::Layer { size_bytes } = unless(cancelled, answer(stream, &ask)).await? {
                progress.total_bytes = progress.total_bytes.saturating_add(size_bytes);
                lacking.push(layer);
            }
        }
        for layer in lacking {
            self.take_layer(layer, &mut progress, stream, cancelled).await?;
        }
        for layer in layers.iter().filter(|layer| layer.fresh) {
            if let Some(image) = &layer.image {
                unless(cancelled, self.fetch(image)).await?;
            }
            self.storage.fresh_layer(layer, of.id).await.map_err(not_kept)?;
        }
        unless(cancelled, async { wire::say(stream, &Ask::Done).await.map_err(broken_off) }).await
    }

    async fn take_layer(
        &self,
        layer: &CopiedLayer,
        progress: &mut Progress,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        cancelled: &CancellationToken,
    ) -> Result<(), Broken> {
        let ask = Ask::Bytes { migration: progress.of.id, layer: layer.id };
        let Answer::Layer { size_bytes } = unless(cancelled, answer(stream, &ask)).await? else {
            return Err(Broken::Because(NOT_THOSE, "it was there a moment ago".into()));
        };
        let needed = || self.desired.images();
        let new = self.storage.new_layer(layer, size_bytes, &needed).await.map_err(not_kept)?;
        let new = self.receive(new, size_bytes, progress, stream, cancelled).await?;
        let end = unless(cancelled, async { wire::hear::<End>(stream).await.map_err(broken_off) }).await?;
        let end = end.ok_or_else(|| broken_off(io::ErrorKind::UnexpectedEof.into()))?;
        if let Some(image) = &layer.image {
            unless(cancelled, self.fetch(image)).await?;
        }
        // From here to the end it is not interrupted: what was put in place can be removed.
        new.publish(end.sha256, progress.of.id).await.map_err(not_kept)
    }

    async fn receive(
        &self,
        mut new: Box<dyn NewDisk>,
        size_bytes: u64,
        progress: &mut Progress,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        cancelled: &CancellationToken,
    ) -> Result<Box<dyn NewDisk>, Broken> {
        let (mut left, mut chunk) = (size_bytes, vec![0; CHUNK]);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let receive = async { wire::receive(stream, &mut chunk[..most]).await.map_err(broken_off) };
            let received = unless(cancelled, receive).await?;
            new.write(&chunk[..received]).await.map_err(not_kept)?;
            left -= received as u64;
            progress.done_bytes += received as u64;
            self.tell_progress(progress);
        }
        Ok(new)
    }

    fn tell_progress(&self, progress: &mut Progress) {
        if progress.told_at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        progress.told_at = Some(Instant::now());
        let &mut Progress { of, done_bytes, total_bytes, .. } = progress;
        self.tell(of, MigrationState::Transferring { done_bytes, total_bytes });
    }

    async fn fetch(&self, image: &ImageSource) -> Result<(), Broken> {
        let (control_plane, sha256) = (Arc::clone(&self.control_plane), image.sha256);
        let fetch = async move { Ok::<ByteStream, BoxError>(control_plane.blob(sha256).await?) };
        let needed = || self.desired.images();
        let fetched = self.storage.ensure_base(None, image, &needed, fetch.boxed()).await;
        fetched.map_err(|error| match error {
            HostStorageError::Full(_) => Broken::Because(NO_ROOM, error.into()),
            error => Broken::Because(NO_IMAGE, error.into()),
        })
    }
}

async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), ask: &Ask) -> Result<Answer, Broken> {
    wire::say(stream, ask).await.map_err(broken_off)?;
    let answer = wire::hear(stream).await.map_err(broken_off)?;
    answer.ok_or_else(|| broken_off(io::ErrorKind::UnexpectedEof.into()))
}

async fn unless<T>(
    cancelled: &CancellationToken,
    work: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    tokio::select! {
        biased;
        () = cancelled.cancelled() => Err(Broken::Cancelled),
        done = work => done,
    }
}

fn broken_off(error: io::Error) -> Broken {
    Broken::Because(BROKEN_OFF, error.into())
}

fn not_kept(error: HostStorageError) -> Broken {
    let detail = match &error {
        HostStorageError::Full(_) => NO_ROOM,
        HostStorageError::Fetch(_) | HostStorageError::Chain(_) => NOT_THOSE,
        _ => NOT_KEPT,
    };
    Broken::Because(detail, error.into())
}

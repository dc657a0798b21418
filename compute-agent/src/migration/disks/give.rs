//! The side that has the disks, and keeps them.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use protocol::agent::MigrationState;
use protocol::{LayerId, Sha256};
use sha2::Digest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::tls::Tls;
use super::super::{HANDSHAKE, end_with_the_other_side};
use super::wire::{self, Answer, Ask, End};
use super::{Broken, DiskMoves, Of, Peer};
use crate::chain;
use crate::host_storage::{BoxError, HostStorageError, Users};

/// The destination listens before it says where.
const CALLS: u32 = 5;
const CALL_AGAIN: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(2) };

const NOT_REACHED: &str = "The host of the instance did not reach the other host.";
const BROKEN_OFF: &str = "The connection between the hosts has broken off.";
const NOT_GIVEN: &str =
    "The host of the instance could not read its disks, or something else writes to them.";
const IN_USE: &str = "A disk of the instance is in use.";
const OTHERS: &str = "The other host has asked for something that is not of this instance.";

/// What is given, and who may read it meanwhile.
pub(super) type Lent<'a> = (&'a [LayerId], Users);

impl DiskMoves {
    pub(super) async fn give(&self, of: Of, to: Peer, lent: Lent<'_>, cancelled: &CancellationToken) {
        let given = tokio::select! {
            given = self.give_all(of, to, lent) => given,
            () = cancelled.cancelled() => Err(Broken::Cancelled),
        };
        match given {
            Ok(()) => tracing::info!(instance = %of.instance, migration = %of.id, "its disks are given"),
            Err(Broken::Cancelled) => {}
            Err(Broken::Because(detail, error)) => {
                tracing::warn!(instance = %of.instance, migration = %of.id, error = %chain(error.as_ref()), "{detail}");
                self.tell(of, MigrationState::Ended { detail: detail.to_owned() });
            }
        }
    }

    async fn give_all(&self, of: Of, to: Peer, lent: Lent<'_>) -> Result<(), Broken> {
        let mut stream = self.call(to).await.map_err(|error| Broken::Because(NOT_REACHED, error))?;
        self.answer(of, lent, &mut stream).await
    }

    async fn call(
        &self,
        (destination, address): Peer,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin, BoxError> {
        let tls = Tls::of(&self.state_dir)?;
        let call = || async {
            let stream = TcpStream::connect(address).await?;
            end_with_the_other_side(&stream)?;
            tls.connect(stream, destination).await
        };
        for _ in 1..CALLS {
            match timeout(HANDSHAKE, call()).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => tracing::info!(%error, "the other host is not reached yet"),
                Err(_) => tracing::info!("the other host does not answer"),
            }
            tokio::time::sleep(CALL_AGAIN).await;
        }
        Ok(timeout(HANDSHAKE, call()).await??)
    }

    /// Answers until the other side has all.
    pub(super) async fn answer(
        &self,
        of: Of,
        (layers, users): Lent<'_>,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<(), Broken> {
        let broken_off = |error: io::Error| Broken::Because(BROKEN_OFF, error.into());
        loop {
            let asked = wire::hear_at_last::<Ask>(stream).await.map_err(broken_off)?;
            let (migration, layer, with_bytes) = match asked {
                None => return Err(broken_off(io::ErrorKind::UnexpectedEof.into())),
                Some(Ask::Done) => return Ok(()),
                Some(Ask::Size { migration, layer }) => (migration, layer, false),
                Some(Ask::Bytes { migration, layer }) => (migration, layer, true),
            };
            if migration != of.id || !layers.contains(&layer) {
                return Err(Broken::Because(OTHERS, format!("layer {layer} of {migration}").into()));
            }
            self.give_layer((layer, users), with_bytes, stream).await?;
        }
    }

    async fn give_layer(
        &self,
        (layer, users): (LayerId, Users),
        with_bytes: bool,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<(), Broken> {
        let broken_off = |error: io::Error| Broken::Because(BROKEN_OFF, error.into());
        self.refuse_used(layer, users).await?;
        let Some(lent) = self.storage.lend_layer(layer, users).await.map_err(not_given)? else {
            return wire::say(stream, &Answer::NeverMade).await.map_err(broken_off);
        };
        let size_bytes = lent.size_bytes();
        wire::say(stream, &Answer::Layer { size_bytes }).await.map_err(broken_off)?;
        if !with_bytes {
            return Ok(());
        }
        let (mut bytes, mut digest, mut left) =
            (lent.read().await.map_err(not_given)?, sha2::Sha256::new(), size_bytes);
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(|error| Broken::Because(NOT_GIVEN, error.into()))?;
            // What somebody adds meanwhile is not sent; that it is there is seen below.
            let chunk = &chunk[..chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            left -= chunk.len() as u64;
            digest.update(chunk);
            wire::send(stream, chunk).await.map_err(broken_off)?;
        }
        lent.is_unchanged().await.map_err(not_given)?;
        self.refuse_used(layer, users).await?;
        let sha256 = Sha256::from_bytes(digest.finalize().into());
        wire::say(stream, &End { sha256 }).await.map_err(broken_off)
    }

    /// INVARIANT: nothing is sent that a domain has open, or writes to if it may read, whatever the control plane believes.
    async fn refuse_used(&self, layer: LayerId, users: Users) -> Result<(), Broken> {
        let listing =
            self.domains.look().await.map_err(|error| Broken::Because(NOT_GIVEN, Box::new(error)))?;
        let mut volumes = listing.values().flat_map(|domain| &domain.volumes);
        let is_used = volumes.any(|volume| match users {
            Users::Nobody => volume.layers.contains(&layer),
            Users::Readers => volume.layers.last() == Some(&layer),
        });
        if is_used {
            return Err(Broken::Because(IN_USE, format!("a domain has layer {layer}").into()));
        }
        Ok(())
    }
}

fn not_given(error: HostStorageError) -> Broken {
    let detail = match &error {
        HostStorageError::Chain(_) => error.detail(),
        _ => NOT_GIVEN,
    };
    Broken::Because(detail, error.into())
}

//! What two agents say to each other while layers are copied: words of JSON, each with its length before it, and bytes.
//!
//! The one that takes them asks for one layer after the other. INVARIANT: nothing that the other side says makes this one
//! keep more than [`MAX_WORD`] in memory, or wait longer than [`PATIENCE`]; but for the next question, which the one that takes
//! them has when it is done with what it has got.

use std::io;
use std::time::Duration;

use protocol::{LayerId, MigrationId, Sha256};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::super::SILENCE;

pub(super) const PATIENCE: Duration = if cfg!(test) { Duration::from_secs(5) } else { SILENCE };
/// A word is an id or two and a number.
const MAX_WORD: usize = 4096;
/// What is sent and taken at once.
pub(super) const CHUNK: usize = 256 << 10;

/// What the one says that takes them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Ask {
    /// How large a layer is.
    Size { migration: MigrationId, layer: LayerId },
    /// All of it.
    Bytes { migration: MigrationId, layer: LayerId },
    /// Nothing more: all is there.
    Done,
}

/// How much there is of what was asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Answer {
    /// It has so many bytes. If they were asked for they come now, and then an [`End`].
    Layer { size_bytes: u64 },
    /// It was never made.
    NeverMade,
}

/// What the bytes were, of which nobody has changed any meanwhile.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    pub sha256: Sha256,
}

pub(in crate::migration) async fn say(
    to: &mut (impl AsyncWrite + Unpin),
    word: &impl Serialize,
) -> io::Result<()> {
    let text = serde_json::to_vec(word)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    send(to, &length.to_be_bytes()).await?;
    send(to, &text).await?;
    patient(to.flush()).await
}

/// `None` when the other side has ended before it said anything.
pub(in crate::migration) async fn hear<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    let begun = patient(from.read_exact(&mut length)).await;
    rest(from, begun.map(|_| length)).await
}

/// The same of one that may have much to do before: it fetches an image, or flushes a large layer. Whether it is there at all the
/// connection finds out.
pub(super) async fn hear_at_last<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    let begun = from.read_exact(&mut length).await;
    rest(from, begun.map(|_| length)).await
}

async fn rest<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    begun: io::Result<[u8; 4]>,
) -> io::Result<Option<T>> {
    let length = match begun {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        begun => usize::try_from(u32::from_be_bytes(begun?)).unwrap_or(usize::MAX),
    };
    if length > MAX_WORD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the other side says more than there is to say",
        ));
    }
    let mut text = vec![0; length];
    patient(from.read_exact(&mut text)).await?;
    Ok(Some(serde_json::from_slice(&text)?))
}

pub(super) async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    patient(to.write_all(bytes)).await
}

/// At least one byte and at most as many as there is place for.
pub(super) async fn receive(from: &mut (impl AsyncRead + Unpin), into: &mut [u8]) -> io::Result<usize> {
    match patient(from.read(into)).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}

async fn patient<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

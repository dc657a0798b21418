//! What every way in has in common: a blob with a lease, its inspection, and giving it up.

use std::time::Duration as Patience;

use axum::body::{Body, Bytes};
use futures_util::{Stream, StreamExt};
use protocol::BlobId;
use protocol::image::{self, Format, InspectError};
use time::Duration;
use tokio::runtime::Handle;

use super::blob_reader::BlobReader;
use super::blob_store::Received;
use super::store::{self, Content};
use crate::app::App;
use crate::http::{ApiError, ErrorCode};

/// The largest file.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 30;
pub(super) const LEASE: Duration = Duration::minutes(10);
/// A sender that is silent for this long has gone.
const SILENCE: Patience = Patience::from_secs(60);
/// The lease is renewed this often.
const RENEW: Patience = Patience::from_secs(60);

/// The body's bytes; an error when none come for a while.
pub(super) fn impatient(body: Body) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    futures_util::stream::unfold(body.into_data_stream(), |mut stream| async {
        let next = tokio::time::timeout(SILENCE, stream.next()).await;
        let chunk = next.unwrap_or_else(|elapsed| Some(Err(axum::Error::new(elapsed))))?;
        Some((chunk, stream))
    })
}

/// Why a body that is charged for ended.
#[derive(Debug)]
pub(super) enum BrokenOff<E> {
    Sender(E),
    /// The project was not charged for more: a limit, or the database.
    NotHeld(sqlx::Error),
}

/// Bytes in GiB, a part of one as a whole one: as the database counts them.
pub(super) fn whole_gib(bytes: u64) -> i32 {
    i32::try_from(bytes.div_ceil(1 << 30)).unwrap_or(i32::MAX)
}

/// The bytes of a blob, each GiB charged to its project before it is stored; all that is announced before the first.
pub(super) fn metered<S, E>(
    app: &App,
    blob: BlobId,
    announced: Option<u64>,
    bytes: S,
) -> impl Stream<Item = Result<Bytes, BrokenOff<E>>> + use<S, E>
where
    S: Stream<Item = Result<Bytes, E>>,
{
    let app = app.clone();
    let state = (Box::pin(bytes), 0_u64, 0);
    futures_util::stream::try_unfold(state, move |(mut bytes, mut come, mut held)| {
        let app = app.clone();
        async move {
            let Some(chunk) = bytes.next().await.transpose().map_err(BrokenOff::Sender)? else {
                return Ok(None);
            };
            come += chunk.len() as u64;
            let needed = whole_gib(come.max(announced.unwrap_or(0)));
            if needed > held {
                let hold = async { store::hold(&mut *app.pool.acquire().await?, blob, needed).await };
                hold.await.map_err(BrokenOff::NotHeld)?;
                held = needed;
            }
            Ok(Some((chunk, (bytes, come, held))))
        }
    })
}

/// Renews the lease for ever; returns only when that is impossible.
pub(super) async fn keep_lease(app: &App, blob: BlobId) -> ApiError {
    loop {
        tokio::time::sleep(RENEW).await;
        let until = app.clock.now() + LEASE;
        let renewed = async { store::renew_lease(&mut *app.pool.acquire().await?, blob, until).await };
        match renewed.await {
            Ok(true) => {}
            Ok(false) => return given_up(),
            // The lease outlives a restart of the database.
            Err(error) => tracing::info!(%error, "cannot renew the lease of an upload; trying again"),
        }
    }
}

pub(super) fn given_up() -> ApiError {
    ApiError::because(ErrorCode::WrongState, "the upload was given up")
}

/// Why the bytes are no image.
#[derive(Debug)]
pub(super) enum Rejected {
    /// The code of the inspector, and what it says.
    Refused(String),
    Unreadable(ApiError),
}

/// Reads header and tables of what was received, without trust.
pub(super) async fn inspect(
    app: &App,
    blob: BlobId,
    format: Format,
    received: Received,
) -> Result<Content, Rejected> {
    let length = received.size_bytes;
    let mut reader = BlobReader::new(app.images.clone(), Handle::current(), blob, length);
    let inspected = tokio::task::spawn_blocking(move || image::inspect(&mut reader, format, length))
        .await
        .map_err(|error| Rejected::Unreadable(ApiError::internal(error)))?;
    let info = inspected.map_err(|error| match error {
        InspectError::Read(source) => Rejected::Unreadable(ApiError::internal(source)),
        refused => Rejected::Refused(format!("{}: {refused}", refused.code())),
    })?;
    Ok(Content {
        sha256: received.sha256,
        format,
        size_bytes: length.cast_signed(),
        virtual_size_bytes: info.virtual_size_bytes.cast_signed(),
    })
}

/// Best effort: the lease does the same later.
pub(super) async fn give_up(app: &App, blob: BlobId) {
    if let Err(error) = discard(app, blob).await {
        tracing::info!(%error, %blob, "an abandoned upload waits for its lease to end");
    }
}

/// Leaves the file to the sweeper, unless the sweeper has been here already: it took the lease for over, and the
/// file may have been finished after that.
async fn discard(app: &App, blob: BlobId) -> Result<(), ApiError> {
    let mut conn = app.pool.acquire().await?;
    store::discard_blob(&mut conn, blob).await?;
    if !store::is_announced(&mut conn, blob).await? {
        app.images.remove(blob).await.map_err(ApiError::internal)?;
    }
    Ok(())
}

//! One attempt at an import: claimed with a lease, which it renews while bytes come, and ended once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration as Patience;

use axum::body::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use protocol::image::Format;
use time::Duration;

use super::super::blob_store::ReceiveError;
use super::super::receiver::{BrokenOff, Rejected, give_up, inspect, metered};
use super::super::store::imports::{self, Claimed, Ending, Progress, Source};
use super::super::store::{self, Content};
use super::download::Download;
use super::fetch::FetchError;
use super::{Importer, source};
use crate::app::App;
use crate::nudge::Topic;
use crate::operations::store as operations;
use crate::quotas;

/// A replica that is silent for so long has died, and another one takes over.
pub(super) const LEASE: Duration = Duration::seconds(60);
/// The lease is renewed, and progress noted, this often.
const TICK: Patience = Patience::from_secs(2);
/// Attempts at one import, whoever makes them.
const MAX_ATTEMPTS: i32 = 5;
/// A host comes again by itself, ever more slowly, with everything from the beginning.
const MAX_ATTEMPTS_OF_HOST: i32 = 50;
/// Before the next attempt, times the number of attempts.
const PAUSE: Duration = Duration::seconds(10);

/// How an attempt went.
enum Outcome {
    Done(Result<Content, FetchError>),
    /// Another replica has it, or nobody wants it any more.
    Lost,
    /// This replica stops.
    Stopping,
}

/// Bytes so far, and in all: -1 while that is unknown.
#[derive(Clone)]
struct Counter(Arc<(AtomicI64, AtomicI64)>);

impl Counter {
    fn new() -> Self {
        Self(Arc::new((AtomicI64::new(0), AtomicI64::new(-1))))
    }

    fn progress(&self) -> Progress {
        let total = self.0.1.load(Ordering::Relaxed);
        Progress { bytes: self.0.0.load(Ordering::Relaxed), total_bytes: (total >= 0).then_some(total) }
    }
}

/// What became of an attempt.
#[derive(Debug)]
pub(super) enum Ended {
    Filled,
    /// For good.
    Failed(FetchError),
    /// There may be another attempt.
    Again,
    /// Another replica has it, or nobody wants it any more.
    Lost,
}

/// The bytes, and how many there will be if that is known.
pub(super) struct Incoming {
    pub bytes: BoxStream<'static, Result<Bytes, FetchError>>,
    pub length: Option<u64>,
}

pub(super) struct Job {
    pub app: App,
    pub claimed: Claimed,
}

impl Job {
    /// Makes the attempt, with the bytes if somebody brings them, and writes down how it went.
    pub(super) async fn run(self, brought: Option<Incoming>) -> Result<Ended, sqlx::Error> {
        let counter = Counter::new();
        let outcome = tokio::select! {
            done = self.fill(brought, &counter) => Outcome::Done(done),
            () = self.lost(&counter) => Outcome::Lost,
            () = self.app.shutdown.cancelled() => Outcome::Stopping,
        };
        let blob = self.claimed.blob;
        let ended = self.write_down(outcome).await;
        // For whatever is not kept: the attempt may have lost its blob to the sweeper, and have made the file
        // after that.
        give_up(&self.app, blob).await;
        ended
    }

    async fn write_down(&self, outcome: Outcome) -> Result<Ended, sqlx::Error> {
        let (claimed, now) = (&self.claimed, self.app.clock.now());
        let mut tx = self.app.begin().await?;
        let ended = match outcome {
            Outcome::Done(Ok(content)) => {
                if !imports::end(&mut tx, claimed, Ending::Filled(&content), now).await? {
                    tx.rollback().await?;
                    return Ok(Ended::Lost);
                }
                Ended::Filled
            }
            Outcome::Done(Err(error)) if error.again && claimed.attempt < self.most_attempts() => {
                tracing::info!(operation = %claimed.operation, attempt = claimed.attempt, why = error.detail,
                    "an import is tried again");
                let step = format!("attempt_{}_failed", claimed.attempt);
                operations::step(&mut tx, claimed.operation, &step, now, Some(&error.detail)).await?;
                imports::give_back(&mut tx, claimed, now + PAUSE * claimed.attempt, true).await?;
                Ended::Again
            }
            Outcome::Done(Err(error)) => {
                let ending = Ending::Failed { code: error.code, detail: &error.detail };
                imports::end(&mut tx, claimed, ending, now).await?;
                Ended::Failed(error)
            }
            Outcome::Stopping => {
                imports::give_back(&mut tx, claimed, now, false).await?;
                Ended::Again
            }
            Outcome::Lost => Ended::Lost,
        };
        tx.commit().await?;
        Ok(ended)
    }

    fn most_attempts(&self) -> i32 {
        match self.claimed.source {
            Source::Url(_) | Source::Upload(_) => MAX_ATTEMPTS,
            Source::Host { .. } => MAX_ATTEMPTS_OF_HOST,
        }
    }

    /// Renews the lease and notes the progress; returns when the attempt is lost.
    async fn lost(&self, counter: &Counter) {
        let mut waiter = self.app.nudges.subscribe(Topic::Operation(self.claimed.operation));
        loop {
            waiter.nudged(TICK).await;
            match self.renew(counter.progress()).await {
                Ok(true) => {}
                Ok(false) => return,
                // The lease outlives a restart of the database.
                Err(error) => tracing::info!(%error, "cannot renew the lease of an import; trying again"),
            }
        }
    }

    /// In a task of its own: whoever waits for it may be dropped, and a transaction must not be in its middle.
    async fn renew(&self, progress: Progress) -> Result<bool, sqlx::Error> {
        let (app, claimed) = (self.app.clone(), self.claimed.clone());
        let renewed = tokio::spawn(async move {
            let mut tx = app.begin().await?;
            let mine = imports::renew(&mut tx, &claimed, progress, app.clock.now() + LEASE).await?;
            tx.commit().await?;
            Ok(mine)
        });
        renewed.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    /// Receives and judges the bytes.
    async fn fill(&self, brought: Option<Incoming>, counter: &Counter) -> Result<Content, FetchError> {
        let claimed = &self.claimed;
        let format = Format::from_name(&claimed.format).ok_or_else(|| ours("the format is unknown"))?;
        let Incoming { bytes, length } = match brought {
            Some(brought) => brought,
            None => self.open().await?,
        };
        counter.0.1.store(length.map_or(-1, u64::cast_signed), Ordering::Relaxed);
        let limit = self.most_bytes();
        if length.is_some_and(|length| length > limit) {
            return Err(self.too_large(limit));
        }
        // The total shows from the beginning.
        self.renew(counter.progress()).await.map_err(ours)?;
        let counting = bytes.inspect_ok(|chunk| {
            counter.0.0.fetch_add((chunk.len() as u64).cast_signed(), Ordering::Relaxed);
        });
        let images = &self.app.images;
        let metered = metered(&self.app, claimed.blob, length, counting);
        let received = images.receive(claimed.blob, Box::pin(metered), length, limit).await;
        let received = received.map_err(|error| match error {
            ReceiveError::Sender(BrokenOff::Sender(error)) => error,
            ReceiveError::Sender(BrokenOff::NotHeld(error)) => not_held(error),
            ReceiveError::TooLarge { limit } => self.too_large(limit),
            ReceiveError::Store(error) => ours(error),
        })?;
        if let Some(length) = length.filter(|length| *length != received.size_bytes) {
            let detail = format!("{length} bytes were announced, {} have come", received.size_bytes);
            return Err(FetchError::broken(detail));
        }
        if let Some(expected) = claimed.sha256
            && expected != received.sha256
        {
            let detail = format!("announced sha256 {expected}, received {}", received.sha256);
            return Err(FetchError { code: "checksum_mismatch", detail, again: false });
        }
        let inspected = inspect(&self.app, claimed.blob, format, received).await;
        let content = inspected.map_err(|rejected| match rejected {
            Rejected::Refused(detail) => FetchError { code: "image_refused", detail, again: false },
            Rejected::Unreadable(error) => ours(error),
        })?;
        match claimed.source {
            Source::Host { size_gib } if content.virtual_size_bytes > i64::from(size_gib) << 30 => {
                let detail = format!("the disk in the file is larger than the {size_gib} GiB of its volume");
                Err(FetchError { code: "image_refused", detail, again: false })
            }
            _ => Ok(content),
        }
    }

    /// The longest file that may come.
    fn most_bytes(&self) -> u64 {
        let most = self.app.imports.max_bytes;
        match self.claimed.source {
            Source::Host { size_gib } => most.min(largest_file(size_gib)),
            Source::Url(_) | Source::Upload(_) => most,
        }
    }

    fn too_large(&self, limit: u64) -> FetchError {
        let detail = match self.claimed.source {
            Source::Host { size_gib } if limit == largest_file(size_gib) => {
                format!("the host sends more than a disk of {size_gib} GiB takes")
            }
            _ => format!("an image file has at most {} GiB", limit >> 30),
        };
        FetchError { code: "payload_too_large", detail, again: false }
    }

    async fn open(&self) -> Result<Incoming, FetchError> {
        match &self.claimed.source {
            Source::Url(url) => {
                let importer: &Importer = &self.app.imports;
                let url =
                    source::check_url(url, importer.options.import_http).map_err(FetchError::refused)?;
                let mut conn = self.app.pool.acquire().await.map_err(ours)?;
                let own = imports::own_ranges(&mut conn).await.map_err(ours)?;
                drop(conn);
                let download = Download::begin(importer.fetcher(own), url).await?;
                let length = download.length;
                Ok(Incoming { bytes: download.into_stream().boxed(), length })
            }
            Source::Upload(upload) => {
                let mut conn = self.app.pool.acquire().await.map_err(ours)?;
                let (parts, length) = store::uploads::parts(&mut conn, *upload).await.map_err(ours)?;
                let images = self.app.images.clone();
                let parts = futures_util::stream::iter(parts).then(move |part| {
                    let images = images.clone();
                    async move { images.stream(part).await.map(|part| part.map_err(ours)).map_err(ours) }
                });
                Ok(Incoming { bytes: parts.try_flatten().boxed(), length: Some(length.cast_unsigned()) })
            }
            Source::Host { .. } => Err(ours("a disk comes with the attempt of its host")),
        }
    }
}

/// The longest qcow2 file of a disk: full, with tables and reference counts, which take less than a thousandth.
fn largest_file(size_gib: i32) -> u64 {
    const SMALL: u64 = 16 << 20;
    let disk = u64::from(size_gib.unsigned_abs()) << 30;
    disk + disk / 1000 + SMALL
}

/// The project has no room for more bytes of images: trying again would not help.
fn not_held(error: sqlx::Error) -> FetchError {
    match quotas::exceeded_limits(&error) {
        Some(limits) => {
            let detail = quotas::in_words(&limits).into_owned();
            FetchError { code: "quota_exceeded", detail, again: false }
        }
        None => ours(error),
    }
}

/// Something went wrong on our side: tried again, and told to the log alone.
fn ours(error: impl std::fmt::Debug) -> FetchError {
    tracing::warn!(?error, "an import has failed on our side");
    FetchError {
        code: "internal",
        detail: "something went wrong on our side; try again".to_owned(),
        again: true,
    }
}

//! Which cached images stay: those that somebody needs, and of the others those that were used last.
//!
//! An image is needed while a layer's header names it, a process has it open, or the caller says so. When an image was
//! last used is its file's time of modification, which outlives this process: nothing else changes after the image was
//! made.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::Sha256;
use protocol::agent::ImageSource;

use crate::durable::{blocking, exists};
use crate::header::backing_of;
use crate::layout::{Layout, image_of};
use crate::pool::measure;
use crate::volume::is_in_use;
use crate::{Pool, PoolError, Space};

/// Names the images that somebody needs beside those that layers stand on; asked when one is about to go.
pub type Needed<'a> = &'a (dyn Fn() -> HashSet<Sha256> + Send + Sync);

/// What the cache may take of the file system unless its limit is given, in per cent.
const DEFAULT_SHARE_PERCENT: u64 = 20;
/// While less than this is free, images that nobody needs go, whatever the limit. In per cent.
const LOW_PERCENT: u64 = 10;
/// Whoever has just asked for an image is about to put a layer on it.
const JUST_USED: Duration = Duration::from_secs(60);
/// How old the note of the last use of an image may become while the image is needed.
const NOTE_USE_EVERY: Duration = Duration::from_secs(600);

const EVICT: &str = "make room in the image cache";

/// What a pool takes and has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub space: Space,
    /// Of the cached images, needed or not.
    pub image_cache_bytes: u64,
}

/// A cached image.
#[derive(Debug)]
struct Cached {
    image: Sha256,
    path: Utf8PathBuf,
    /// On the file system, without holes.
    bytes: u64,
    used_at: SystemTime,
}

impl Pool {
    /// What the pool takes and has left.
    pub async fn usage(&self) -> Result<Usage, PoolError> {
        let inner = self.inner_arc();
        blocking("measure the pool", move || {
            let space = measure(inner.layout.root())?;
            let image_cache_bytes = cached(&inner.layout)?.iter().map(|one| one.bytes).sum();
            Ok(Usage { space, image_cache_bytes })
        })
        .await
    }

    /// Evicts images that nobody needs, the one that was used longest ago first, while the cache is larger than its
    /// limit or the pool has hardly any room; and notes that those that are needed are in use.
    pub async fn trim_images(&self, needed: Needed<'_>) -> Result<(), PoolError> {
        let limit = self.inner().image_cache_bytes;
        let enough = move |cache_bytes: u64, space: Space| {
            cache_bytes <= limit.unwrap_or(space.total_bytes / 100 * DEFAULT_SHARE_PERCENT)
                && space.free_bytes >= space.total_bytes / 100 * LOW_PERCENT
        };
        self.evict(needed, enough).await
    }

    /// Refuses to begin work that cannot end well; images that nobody needs give way to it.
    pub(crate) async fn make_room(&self, bytes: u64, needed: Needed<'_>) -> Result<(), PoolError> {
        if self.require_space(bytes).await.is_ok() {
            return Ok(());
        }
        self.evict(needed, move |_, space| space.free_bytes >= bytes).await?;
        self.require_space(bytes).await
    }

    /// Whether the image is cached. One that is stays for [`JUST_USED`].
    pub(crate) async fn use_base(&self, image: &ImageSource) -> Result<bool, PoolError> {
        let (stays, path) = (self.bases_stay().await, self.base(image));
        blocking("look for an image", move || {
            let _stays = stays;
            let cached = exists(&path)?;
            if cached {
                note_use(&path, now())?;
            }
            Ok(cached)
        })
        .await
    }

    /// Until this is dropped, no image leaves the cache.
    pub(crate) async fn bases_stay(&self) -> tokio::sync::OwnedRwLockReadGuard<()> {
        Arc::clone(&self.inner().bases).read_owned().await
    }

    /// INVARIANT: whoever puts a layer on an image, or is told that there is one, holds the other side of the lock
    /// meanwhile. It is given to the thread that does the work, which goes on when this call is dropped.
    async fn evict(
        &self,
        needed: Needed<'_>,
        enough: impl Fn(u64, Space) -> bool + Send + 'static,
    ) -> Result<(), PoolError> {
        if self.inner().shared.is_some() {
            // What other hosts need, nobody here knows.
            return Ok(());
        }
        let alone = Arc::clone(&self.inner().bases).write_owned().await;
        let (inner, mut keep) = (self.inner_arc(), needed());
        blocking(EVICT, move || {
            let _alone = alone;
            keep.extend(stood_on(&inner.layout)?);
            let (now, mut images) = (now(), cached(&inner.layout)?);
            let mut cache_bytes: u64 = images.iter().map(|one| one.bytes).sum();
            images.sort_by_key(|one| one.used_at);
            for one in images {
                // A time in the future, by a clock that was wrong, is as good as now.
                let age = now.duration_since(one.used_at).unwrap_or_default();
                if keep.contains(&one.image) {
                    if age > NOTE_USE_EVERY {
                        note_use(&one.path, now)?;
                    }
                } else if age > JUST_USED
                    && !enough(cache_bytes, measure(inner.layout.root())?)
                    && !is_in_use(&one.path)?
                {
                    fs::remove_file(&one.path)?;
                    cache_bytes -= one.bytes;
                    tracing::info!(image = %one.image, bytes = one.bytes, idle = ?age, "image evicted from the cache");
                }
            }
            Ok(())
        })
        .await
    }
}

#[expect(clippy::disallowed_methods, reason = "the times of files are of this machine's clock")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

fn note_use(path: &Utf8Path, at: SystemTime) -> io::Result<()> {
    File::open(path)?.set_modified(at)
}

fn cached(layout: &Layout) -> io::Result<Vec<Cached>> {
    let mut images = Vec::new();
    for entry in layout.images().read_dir_utf8()? {
        let entry = entry?;
        if let Some(image) = image_of(entry.path()) {
            let metadata = entry.metadata()?;
            let (bytes, used_at) = (metadata.blocks() * 512, metadata.modified()?);
            images.push(Cached { image, path: entry.path().to_owned(), bytes, used_at });
        }
    }
    Ok(images)
}

/// The images that layers name, wherever the pool was when they were made. A layer that cannot be read is an error:
/// nobody knows what it needs.
fn stood_on(layout: &Layout) -> io::Result<HashSet<Sha256>> {
    let mut images = HashSet::new();
    for entry in layout.layers().read_dir_utf8()? {
        let path = entry?.into_path();
        // The others are memory of guests.
        if path.extension() != Some("qcow2") {
            continue;
        }
        match backing_of(&path) {
            Ok(backing) => images.extend(backing.as_deref().and_then(image_of)),
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(images)
}

//! Where a pool of this host is, and whether it is there.

use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{InstanceId, LayerId};
use storage::{Options, Pool, PoolError, SharedRoot, Usable};
use tokio::sync::OnceCell;

/// Disks as qcow2 files in a folder of this host.
#[derive(Debug, Clone)]
pub struct LocalPool {
    place: Arc<Place>,
    /// Once it was there.
    opened: Arc<OnceCell<Pool>>,
}

/// Where the host's own pool is, and what tells it from another one.
#[derive(Debug)]
pub struct OwnPool {
    pub root: Utf8PathBuf,
    /// A folder on the file system of the host's own state: it tells a pool that is not mounted from a new one.
    pub record: Utf8PathBuf,
    /// Instances that this host has started: of a pool without a mark of an earlier release they have files.
    pub instances: Vec<InstanceId>,
    /// What cached images may take; a share of the file system unless given.
    pub image_cache_bytes: Option<u64>,
}

#[derive(Debug)]
enum Place {
    Own(Arc<OwnPool>),
    Shared { own: LocalPool, root: SharedRoot },
}

impl OwnPool {
    /// Of a host that has started nothing yet.
    pub fn new(root: &Utf8Path, record: &Utf8Path) -> Self {
        let (root, record) = (root.to_owned(), record.to_owned());
        Self { root, record, instances: Vec::new(), image_cache_bytes: None }
    }

    fn open(&self) -> Result<Pool, PoolError> {
        let options = Options {
            image_cache_bytes: self.image_cache_bytes,
            record: Some(self.record.clone()),
            instances: self.instances.clone(),
            ..Options::new()?
        };
        Pool::open(&self.root, options)
    }
}

impl LocalPool {
    /// Opens the pool, which is made when it is missing, and clears away what an earlier agent left unfinished. One in
    /// whose place there is another folder is waited for: it is opened when it is back.
    pub fn open(place: OwnPool) -> Result<Self, PoolError> {
        let opened = match place.open() {
            Ok(pool) => OnceCell::new_with(Some(pool)),
            Err(error @ PoolError::OtherPool) => {
                tracing::error!(pool = %place.root, record = %place.record, %error, "nothing is done until it is back");
                OnceCell::new()
            }
            Err(error) => return Err(error),
        };
        Ok(Self { place: Arc::new(Place::Own(Arc::new(place))), opened: Arc::new(opened) })
    }

    /// A shared pool beside this one, which is as little there as this one is.
    pub(super) fn beside(&self, root: SharedRoot) -> Self {
        Self { place: Arc::new(Place::Shared { own: self.clone(), root }), opened: Arc::default() }
    }

    /// INVARIANT: nothing is looked for or made in the host's own pool by anybody who has not asked here just before. In
    /// another folder that has taken its place every disk seems to be lost, or never made.
    pub(super) async fn pool(&self) -> Result<&Pool, PoolError> {
        match (&*self.place, self.opened.get()) {
            (Place::Own(_), Some(pool)) => {
                pool.is_in_place().await?;
                Ok(pool)
            }
            (Place::Own(place), None) => self.opened.get_or_try_init(|| reopen(Arc::clone(place))).await,
            (Place::Shared { own, root }, _) => {
                let own = Box::pin(own.pool()).await?;
                Ok(self.opened.get_or_init(async || own.shared(root.clone())).await)
            }
        }
    }

    /// Where it is, for people.
    pub(super) fn root(&self) -> &Utf8Path {
        match &*self.place {
            Place::Own(place) => &place.root,
            Place::Shared { root, .. } => &root.root,
        }
    }

    /// Whether a shared pool can be used now. Of one that is not shared there is nothing to say.
    pub(super) async fn usable(&self) -> Result<Option<Usable>, PoolError> {
        self.pool().await?.usable().await
    }

    pub(super) async fn has_any_layer(&self, layers: &[LayerId]) -> Result<bool, PoolError> {
        self.pool().await?.has_any_layer(layers).await
    }
}

async fn reopen(place: Arc<OwnPool>) -> Result<Pool, PoolError> {
    let opened = tokio::task::spawn_blocking(move || {
        let pool = place.open()?;
        tracing::info!(pool = %place.root, "the pool is back");
        Ok(pool)
    });
    opened.await.unwrap_or(Err(PoolError::InUse))
}

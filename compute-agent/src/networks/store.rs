//! The last word about the host's networks, on disk before anything is done about it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use camino::Utf8PathBuf;
use protocol::Revision;
use protocol::agent::{DesiredBody, DesiredPage, HostNetwork};
use serde::{Deserialize, Serialize};

use crate::durable::{self, Survive};

/// A document and the revision of the host that it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    pub revision: Revision,
    pub networks: HostNetwork,
}

/// See the module.
#[derive(Debug)]
pub struct NetworkStore {
    file: Utf8PathBuf,
    current: Mutex<Option<Arc<Stored>>>,
}

impl NetworkStore {
    /// Opens the store in `file`. What cannot be read counts as not there: the control plane says it again.
    pub fn open(file: Utf8PathBuf) -> io::Result<Self> {
        let current = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice::<Stored>(&bytes)
                .inspect_err(|error| tracing::error!(%file, %error, "the networks' file is unreadable"))
                .ok()
                .map(Arc::new),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { file, current: Mutex::new(current) })
    }

    /// The last document; `None` when the control plane has never sent one.
    pub fn get(&self) -> Option<Arc<Stored>> {
        self.lock().clone()
    }

    /// Takes the newest document of a page in, and says whether it is another than before. When this returns,
    /// it is on disk. A page without one leaves the networks as they are.
    pub fn take(&self, page: &DesiredPage) -> io::Result<bool> {
        let documents = page.objects.iter().filter_map(|object| match &object.body {
            DesiredBody::Network(networks) => Some((object.revision, networks)),
            _ => None,
        });
        let Some((revision, networks)) = documents.max_by_key(|(revision, _)| *revision) else {
            return Ok(false);
        };
        let known = self.get();
        // A complete page may come from a database that was restored, whose revisions went back.
        if known.as_ref().is_some_and(|known| !page.complete && known.revision > revision) {
            tracing::warn!(?revision, "an older document of the host's networks is refused");
            return Ok(false);
        }
        let new = Stored { revision, networks: (**networks).clone() };
        if known.is_some_and(|known| *known == new) {
            return Ok(false);
        }
        durable::write(&self.file, &serde_json::to_vec(&new)?, Survive::PowerCut)?;
        *self.lock() = Some(Arc::new(new));
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Stored>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

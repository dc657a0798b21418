//! The memory of guests: files that the hypervisor writes and reads, in the pool like layers.

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{GIB, LayerId};

use crate::durable::{Unfinished, blocking, exists};
use crate::{Made, Pool, PoolError};

/// Room that is left to the guests.
const HEADROOM_BYTES: u64 = GIB;

/// A file that is being written. What was not published goes when this is dropped.
#[derive(Debug)]
pub struct NewMemory {
    file: Unfinished,
}

impl NewMemory {
    /// Where it is to be written, by whoever may write everywhere. Nothing is there yet.
    pub fn path(&self) -> &Utf8Path {
        self.file.path()
    }
}

impl Pool {
    /// A place for the memory of a guest that has so many bytes of it.
    ///
    /// # Errors
    /// [`PoolError::Full`] when there might be too little room.
    pub async fn new_memory(&self, size_bytes: u64) -> Result<NewMemory, PoolError> {
        // What the guest changes while it is written is written again, until the guest is stopped.
        self.require_space(size_bytes + HEADROOM_BYTES.min(size_bytes)).await?;
        Ok(NewMemory { file: Unfinished::new(self.inner().layout.fresh()) })
    }

    /// Writes down what was written, so that nothing is left to do but to give it its name.
    pub async fn flush_memory(&self, memory: &NewMemory) -> Result<(), PoolError> {
        let path = memory.path().to_owned();
        blocking("flush a guest's memory", move || std::fs::File::open(path)?.sync_all()).await
    }

    /// Gives the file its name, unless something has it.
    pub async fn publish_memory(&self, memory: NewMemory, id: LayerId) -> Result<Made, PoolError> {
        let target = self.memory(id);
        blocking("put a guest's memory in place", move || memory.file.publish_new(&target)).await
    }

    /// Whether the memory is there.
    pub async fn has_memory(&self, id: LayerId) -> Result<bool, PoolError> {
        let path = self.memory(id);
        blocking("look for a guest's memory", move || exists(&path)).await
    }

    /// Where it is, or will be.
    pub fn memory(&self, id: LayerId) -> Utf8PathBuf {
        self.inner().layout.memory(id)
    }
}

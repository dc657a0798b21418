//! Bounded random access to the bytes of an image.

use std::io::{Read, Seek, SeekFrom};

use super::{InspectError, Part};

/// Small neighbouring reads are served from one read of this size; the reader may be an object store.
const CHUNK_BYTES: u64 = 64 * 1024;

/// A reader with a known length that never reads past it.
pub(super) struct Source<'a, R> {
    reader: &'a mut R,
    length: u64,
    /// Bytes of the image from `start` on.
    window: Vec<u8>,
    start: u64,
}

impl<'a, R: Read + Seek> Source<'a, R> {
    pub(super) fn new(reader: &'a mut R, length: u64) -> Self {
        Self { reader, length, window: Vec::new(), start: 0 }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The `len` bytes at `offset`. The caller bounds `len`; here it is only checked against the file, so
    /// that no more memory is taken than bytes were sent.
    pub(super) fn bytes(&mut self, part: Part, offset: u64, len: u64) -> Result<&[u8], InspectError> {
        let end = self.require(part, offset, len)?;
        let window_end = self.start + self.window.len() as u64;
        if offset < self.start || end > window_end {
            self.fill(offset, len.max(CHUNK_BYTES).min(self.length - offset))?;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.window[from..from + len as usize])
    }

    /// Refuses a part that does not lie in the file as a whole; gives its end.
    pub(super) fn require(&self, part: Part, offset: u64, len: u64) -> Result<u64, InspectError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.length => Ok(end),
            end => Err(InspectError::Truncated { part, end: end.unwrap_or(u64::MAX), length: self.length }),
        }
    }

    fn fill(&mut self, offset: u64, len: u64) -> Result<(), InspectError> {
        // INVARIANT: the window is empty while it is not valid, so an error leaves nothing stale behind.
        self.window.clear();
        self.start = offset;
        self.reader.seek(SeekFrom::Start(offset)).map_err(InspectError::Read)?;
        self.window.resize(len as usize, 0);
        let read = self.reader.read_exact(&mut self.window);
        read.inspect_err(|_| self.window.clear()).map_err(InspectError::Read)
    }
}

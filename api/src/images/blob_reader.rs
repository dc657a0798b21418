//! A stored blob as `Read + Seek`, for the inspector. For blocking threads only.

use std::io::{self, Read, Seek, SeekFrom};

use axum::body::Bytes;
use protocol::BlobId;
use tokio::runtime::Handle;

use super::blob_store::ImageStore;

/// Bytes fetched at once: the inspector walks tables, which lie close together.
const READ_AHEAD: u64 = 1 << 20;

pub(super) struct BlobReader {
    store: ImageStore,
    runtime: Handle,
    blob: BlobId,
    length: u64,
    position: u64,
    window: Bytes,
    window_start: u64,
}

impl BlobReader {
    pub(super) fn new(store: ImageStore, runtime: Handle, blob: BlobId, length: u64) -> Self {
        Self { store, runtime, blob, length, position: 0, window: Bytes::new(), window_start: 0 }
    }

    /// What of the window lies at the position.
    fn windowed(&self) -> Option<&[u8]> {
        let skip = usize::try_from(self.position.checked_sub(self.window_start)?).ok()?;
        self.window.get(skip..).filter(|bytes| !bytes.is_empty())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.length || buffer.is_empty() {
            return Ok(0);
        }
        if self.windowed().is_none() {
            let end = self.length.min(self.position + READ_AHEAD);
            let read = self.store.read(self.blob, self.position..end);
            self.window = self.runtime.block_on(read).map_err(io::Error::other)?;
            self.window_start = self.position;
        }
        let bytes = self.windowed().ok_or(io::ErrorKind::UnexpectedEof)?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

//! The newest part of a serial log. The guest decides what is in it; virtlogd bounds and rotates it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use camino::Utf8Path;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use protocol::InstanceId;

use crate::durable::blocking;
use crate::{Pool, PoolError};

/// From the newest to the oldest; virtlogd keeps three backups by default (`max_backups`).
const NAMES: [&str; 4] = ["serial.log", "serial.log.0", "serial.log.1", "serial.log.2"];

impl Pool {
    /// At most `max_bytes` of the newest serial output, across a rotation; empty when there is none.
    pub async fn serial_tail(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, PoolError> {
        let dir = self.paths(id).dir;
        blocking("read a serial log", move || tail(&dir, max_bytes)).await
    }
}

fn tail(dir: &Utf8Path, max_bytes: usize) -> io::Result<Vec<u8>> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_PATH;
    let dir = match open(dir.as_std_path(), flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        dir => dir?,
    };
    let mut newest = Vec::new();
    for name in NAMES {
        let room = max_bytes - newest.len();
        // Not blocking: a pipe in its place would have us wait for a writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let log = match openat(&dir, name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => break,
            log => File::from(log?),
        };
        let mut bytes = last_bytes(log, room)?;
        bytes.append(&mut newest);
        newest = bytes;
        if newest.len() >= max_bytes {
            break;
        }
    }
    Ok(newest)
}

fn last_bytes(mut log: File, room: usize) -> io::Result<Vec<u8>> {
    let metadata = log.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the serial log is not a file"));
    }
    log.seek(SeekFrom::Start(metadata.len().saturating_sub(room as u64)))?;
    let mut bytes = Vec::new();
    // The log may grow meanwhile.
    log.take(room as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

//! Blocking work in a network namespace, and which one it is.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::namespace;

/// The inode of a namespace; `None` when there is none.
pub(super) fn identity(path: &Path) -> Option<u64> {
    Some(path.metadata().ok()?.ino())
}

/// As [`namespace::within`], for a caller that may block.
pub(super) fn within<T: Send>(name: &str, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let path = namespace::path(name);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".to_owned());
        let handle = thread.spawn_scoped(scope, move || {
            setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
            work()
        })?;
        handle.join().map_err(|_| io::Error::other("the thread in a network namespace panicked"))?
    })
}

//! Work in a network namespace, on a thread that ends with it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

/// Where a namespace is found.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// The inode of a namespace; `None` when there is none.
pub(super) fn identity(path: &Path) -> Option<u64> {
    Some(path.metadata().ok()?.ino())
}

/// Runs blocking work in a namespace. What it opens, and processes that it starts, stay there.
pub(super) async fn within<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let name = name.to_owned();
    let done = tokio::task::spawn_blocking(move || within_blocking(&name, work));
    done.await.map_err(io::Error::other)?
}

/// The same, for a caller that may block.
pub(super) fn within_blocking<T: Send>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let path = path(name);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".to_owned());
        let handle = thread.spawn_scoped(scope, move || {
            setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
            work()
        })?;
        handle.join().map_err(|_| io::Error::other("the thread in a network namespace panicked"))?
    })
}

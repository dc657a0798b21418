//! Files that are there as a whole or not at all, also after a power cut.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::{Made, PoolError};

/// QEMU runs as a user of its own, which has to reach a file by its name and see nothing else.
pub(crate) const REACHABLE_DIR: u32 = 0o711;
/// Nobody else comes here.
pub(crate) const PRIVATE_DIR: u32 = 0o700;
pub(crate) const PRIVATE_FILE: u32 = 0o600;

/// Runs file work away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    attempted: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, PoolError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(PoolError::io(attempted))
}

/// Makes a directory, or gives one that is there the same mode.
pub(crate) fn make_dir(path: &Utf8Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => sync_parent(path)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    if !fs::symlink_metadata(path)?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    // The process's umask may have taken bits away.
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Whether something has this name, even if it leads nowhere.
pub(crate) fn exists(path: &Utf8Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Flushes a directory, and with it the names in it.
pub(crate) fn sync_dir(path: &Utf8Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Unfinished work. What has not been published is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Unfinished {
    path: Utf8PathBuf,
}

impl Unfinished {
    pub(crate) fn new(path: Utf8PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Creates the file, for this user alone.
    pub(crate) fn create(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(PRIVATE_FILE).open(&self.path)
    }

    /// Gives the finished file its name, unless something has it already.
    pub(crate) fn publish_new(self, target: &Utf8Path) -> io::Result<Made> {
        File::open(&self.path)?.sync_all()?;
        match renameat2(
            AT_FDCWD,
            self.path.as_std_path(),
            AT_FDCWD,
            target.as_std_path(),
            RenameFlags::RENAME_NOREPLACE,
        ) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Ok(Made::Before),
            // Network file systems know no such flag. A link replaces nothing either.
            Err(Errno::EINVAL) => return self.link_new(target),
            Err(errno) => return Err(errno.into()),
        }
        sync_parent(target)?;
        Ok(Made::Now)
    }

    /// The same with a second name, of which the first goes when this is dropped.
    fn link_new(self, target: &Utf8Path) -> io::Result<Made> {
        match fs::hard_link(&self.path, target) {
            Ok(()) => {}
            // A client that did not hear the answer asks again, and finds its own link.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let [ours, there] = [fs::symlink_metadata(&self.path)?, fs::symlink_metadata(target)?];
                if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
                    return Ok(Made::Before);
                }
            }
            Err(error) => return Err(error),
        }
        sync_parent(target)?;
        Ok(Made::Now)
    }

    /// Gives the finished file its name, in place of what had it.
    pub(crate) fn publish_over(self, target: &Utf8Path) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, target)?;
        sync_parent(target)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path, %error, "unfinished work stays behind");
            }
            _ => {}
        }
    }
}

fn sync_parent(path: &Utf8Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_published_once_and_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| Utf8Path::from_path(dir.path()).unwrap().join(name);
        let made = |name: &str| {
            let unfinished = Unfinished::new(at(name));
            fs::write(unfinished.path(), name).unwrap();
            unfinished
        };
        assert_eq!(made("one").link_new(&at("target")).unwrap(), Made::Now);
        assert_eq!(made("two").link_new(&at("target")).unwrap(), Made::Before);
        assert_eq!(fs::read_to_string(at("target")).unwrap(), "one");
        // Asked again by a client that did not hear the answer.
        let repeated = made("three");
        fs::hard_link(repeated.path(), at("other")).unwrap();
        assert_eq!(repeated.link_new(&at("other")).unwrap(), Made::Now);
        assert_eq!(dir.path().read_dir().unwrap().count(), 2);
    }
}

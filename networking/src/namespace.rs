//! Network namespaces with a name, as `ip netns` makes them: a file in `/run/netns` on which the namespace is
//! mounted.
//!
//! A thread that has entered a namespace ends with its work, so no other work ever runs there by mistake.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};

const DIRECTORY: &str = "/run/netns";

/// The type of a file system that is a namespace, `NSFS_MAGIC` of the kernel's `linux/magic.h`.
const NSFS: FsType = FsType(0x6e73_6673);

/// Where a namespace is found.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// The names of all namespaces, ours or not.
pub(crate) fn list() -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// Whether there is a namespace of this name.
pub(crate) fn exists(name: &str) -> bool {
    statfs(&path(name)).is_ok_and(|found| found.filesystem_type() == NSFS)
}

/// Makes a namespace; says whether it was not there. A file that is no namespace, as a crash may leave one,
/// is replaced.
pub(crate) async fn ensure(name: &str) -> io::Result<bool> {
    let path = path(name);
    match statfs(&path) {
        Ok(found) if found.filesystem_type() == NSFS => return Ok(false),
        Ok(_) => remove(name)?,
        Err(_) => (),
    }
    on_thread(move || {
        share_directory()?;
        File::create_new(&path)?;
        unshare(CloneFlags::CLONE_NEWNET)
            .and_then(|()| bind(Path::new("/proc/thread-self/ns/net"), &path, MsFlags::MS_BIND))
            .inspect_err(|_| drop(fs::remove_file(&path)))?;
        Ok(true)
    })
    .await
}

/// Takes the name away. The namespace itself goes with its last process.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    let path = path(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => (),
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Runs blocking work in a namespace. What it opens, and processes that it starts, stay there.
pub(crate) async fn within<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path = path(name);
    on_thread(move || {
        setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
        work()
    })
    .await
}

async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("namespace".to_owned());
    thread.spawn(move || drop(sender.send(work())))?;
    receiver.await.map_err(|_| io::Error::other("the thread in a network namespace panicked"))?
}

/// Makes `/run/netns` a shared mount, so that what is mounted in it is seen, and goes, in every mount namespace.
fn share_directory() -> nix::Result<()> {
    let directory = Path::new(DIRECTORY);
    fs::create_dir_all(directory)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    match bind(Path::new("none"), directory, shared) {
        Err(Errno::EINVAL) => {
            bind(directory, directory, MsFlags::MS_BIND | MsFlags::MS_REC)?;
            bind(Path::new("none"), directory, shared)
        }
        done => done,
    }
}

fn bind(source: &Path, target: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(Some(source), target, None::<&str>, flags, None::<&str>)
}

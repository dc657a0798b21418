//! `qemu-img`, for files that guests and other hosts may have written.
//!
//! What it opens is named by us and opened as qcow2; what a file's header could lead it to was refused just before (see
//! [`crate::header`]), and on what a layer stands was compared with what it shall stand on. Should a header change after
//! that look, or a parser have a hole: behind [`Walls`] there are the files of this one chain, and nothing else.

use std::ffi::OsStr;
use std::io;
use std::process::Stdio;

use camino::Utf8Path;
use protocol::GIB;
use tokio::process::Command;

use crate::PoolError;
use crate::durable::blocking;
use crate::header::Header;
use crate::walls::{PATH, Rights, Walls};

/// As much as any chain needs; no file makes it take the memory of guests.
const MAX_ADDRESS_SPACE: u64 = 4 * GIB;

/// Makes an empty qcow2 file at the absolute path `target`.
pub(crate) async fn create(
    target: &Utf8Path,
    options: &str,
    backing: Option<&Utf8Path>,
    size_bytes: u64,
) -> Result<(), PoolError> {
    let size = size_bytes.to_string();
    let mut arguments = vec!["create", "-q", "-f", "qcow2", "-o", options];
    if let Some(backing) = backing {
        // Not opened: it may be in use.
        arguments.extend(["-u", "-b", backing.as_str(), "-F", "qcow2"]);
    }
    arguments.extend([target.as_str(), &size]);
    run("qemu-img", arguments, "create a disk").await
}

/// Grows the disk in the qcow2 file at the absolute path `target`, which nobody uses. It stands on files of `chain`.
pub(crate) async fn resize(target: &Utf8Path, chain: &[&Utf8Path], size_bytes: u64) -> Result<(), PoolError> {
    let size = size_bytes.to_string();
    inspect([target]).await?;
    let walls = Walls { read: chain, write: &[target] };
    let arguments = ["resize", "-q", "-f", "qcow2", target.as_str(), &size];
    run_behind(walls, &arguments, "grow a disk").await
}

/// Writes what `top` and the layers under it hold beyond `base` into `base`, and leaves them as they are. All are files
/// of `chain`.
pub(crate) async fn commit(top: &Utf8Path, base: &Utf8Path, chain: &[&Utf8Path]) -> Result<(), PoolError> {
    inspect([top, base]).await?;
    let walls = Walls { read: chain, write: &[top, base] };
    let arguments = ["commit", "-q", "-d", "-f", "qcow2", "-b", base.as_str(), top.as_str()];
    run_behind(walls, &arguments, "merge layers").await
}

/// Gives back the room in `target` that a process took for data and, being killed, did not come to use. It stands on
/// files of `chain`.
pub(crate) async fn reclaim(target: &Utf8Path, chain: &[&Utf8Path]) -> Result<(), PoolError> {
    inspect([target]).await?;
    let walls = Walls { read: chain, write: &[target] };
    run_behind(walls, &["check", "-q", "-r", "leaks", "-f", "qcow2", target.as_str()], "check a layer").await
}

/// Says in `target` that it stands on `backing`, which holds the same as what it stood on.
pub(crate) async fn rebase(target: &Utf8Path, backing: &Utf8Path) -> Result<(), PoolError> {
    inspect([target, backing]).await?;
    // Neither is opened: what it stands on, and what it stood on.
    let walls = Walls { read: &[], write: &[target] };
    let arguments =
        ["rebase", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing.as_str(), target.as_str()];
    run_behind(walls, &arguments, "rebase a layer").await
}

/// Copies the disk that `source` describes, which is in the files of `chain`, into `target`, an empty qcow2 file of at
/// least its size, compressed. Guests come first: it takes the processors and disks that nobody else wants. It ends with
/// this process, and before `target` has more than so many bytes.
pub(crate) async fn convert(
    source: &serde_json::Value,
    chain: &[&Utf8Path],
    target: &Utf8Path,
    largest_bytes: u64,
) -> Result<(), PoolError> {
    let (limit, source) = (format!("--fsize={largest_bytes}"), format!("json:{source}"));
    let walls = Walls { read: chain, write: &[target] }.command(Rights::AnyOwner);
    let arguments = ["-n", "19", "ionice", "-c", "idle", "-t", "prlimit", "--core=0", &limit, "--"]
        .into_iter()
        .chain(walls.iter().map(String::as_str))
        .chain(["qemu-img", "convert", "-q", "-n", "--target-is-zero", "-c", "-m", "4", "-O", "qcow2"])
        .chain([source.as_str(), target.as_str()]);
    run("nice", arguments, "copy a disk").await
}

/// Refuses files whose headers lead out of them.
async fn inspect(files: impl IntoIterator<Item = &Utf8Path>) -> Result<(), PoolError> {
    let files: Vec<_> = files.into_iter().map(Utf8Path::to_owned).collect();
    let look = move || files.iter().try_for_each(|file| Header::read(file).map(drop));
    blocking("look at a layer's header", look).await
}

async fn run_behind(walls: Walls<'_>, arguments: &[&str], attempted: &'static str) -> Result<(), PoolError> {
    let limits = ["--core=0".to_owned(), format!("--as={MAX_ADDRESS_SPACE}"), "--".to_owned()];
    let confined = limits.into_iter().chain(walls.command(Rights::AnyOwner));
    let program = ["qemu-img"].iter().chain(arguments).map(|word| (*word).to_owned());
    run("prlimit", confined.chain(program), attempted).await
}

async fn run(
    program: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    attempted: &'static str,
) -> Result<(), PoolError> {
    let failed = |source| PoolError::QemuImg { attempted, source };
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    tracing::warn!(status = %output.status, ?stderr, "qemu-img failed");
    Err(failed(io::Error::other(output.status.to_string())))
}

//! `qemu-img`, as root, for files that guests and other hosts may have written.
//!
//! What it opens is named by us and opened as qcow2; what a file's header could lead it to was refused just before (see
//! [`crate::header`]), and on what a layer stands was compared with what it shall stand on. One gap is left: who may
//! write to a file at this very moment, and ignores QEMU's locks, can change its header after that look.

use std::ffi::OsStr;
use std::io;
use std::process::Stdio;

use camino::Utf8Path;
use tokio::process::Command;

use crate::PoolError;
use crate::durable::blocking;
use crate::header::Header;

/// The only places where programs are looked for.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

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
    run(arguments).await.map_err(|source| PoolError::QemuImg { attempted: "create a disk", source })
}

/// Grows the disk in the qcow2 file at the absolute path `target`, which nobody uses.
pub(crate) async fn resize(target: &Utf8Path, size_bytes: u64) -> Result<(), PoolError> {
    let size = size_bytes.to_string();
    inspect([target]).await?;
    let arguments = ["resize", "-q", "-f", "qcow2", target.as_str(), &size];
    run(arguments).await.map_err(|source| PoolError::QemuImg { attempted: "grow a disk", source })
}

/// Writes what `top` and the layers under it hold beyond `base` into `base`, and leaves them as they are.
pub(crate) async fn commit(top: &Utf8Path, base: &Utf8Path) -> Result<(), PoolError> {
    inspect([top, base]).await?;
    let arguments = ["commit", "-q", "-d", "-f", "qcow2", "-b", base.as_str(), top.as_str()];
    run(arguments).await.map_err(|source| PoolError::QemuImg { attempted: "merge layers", source })
}

/// Gives back the room in `target` that a process took for data and, being killed, did not come to use.
pub(crate) async fn reclaim(target: &Utf8Path) -> Result<(), PoolError> {
    inspect([target]).await?;
    let arguments = ["check", "-q", "-r", "leaks", "-f", "qcow2", target.as_str()];
    run(arguments).await.map_err(|source| PoolError::QemuImg { attempted: "check a layer", source })
}

/// Says in `target` that it stands on `backing`, which holds the same as what it stood on.
pub(crate) async fn rebase(target: &Utf8Path, backing: &Utf8Path) -> Result<(), PoolError> {
    inspect([target, backing]).await?;
    let arguments =
        ["rebase", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing.as_str(), target.as_str()];
    run(arguments).await.map_err(|source| PoolError::QemuImg { attempted: "rebase a layer", source })
}

/// Copies the disk that `source` describes into `target`, an empty qcow2 file of at least its size, compressed. Guests
/// come first: it takes the processors and disks that nobody else wants. It ends with this process, and before `target`
/// has more than so many bytes.
pub(crate) async fn convert(
    source: &serde_json::Value,
    target: &Utf8Path,
    largest_bytes: u64,
) -> Result<(), PoolError> {
    let (limit, source) = (format!("--fsize={largest_bytes}"), format!("json:{source}"));
    let arguments = ["-n", "19", "ionice", "-c", "idle", "-t", "prlimit", "--core=0", &limit, "--"]
        .into_iter()
        .chain(["setpriv", "--pdeathsig=SIGKILL", "--"])
        .chain(["qemu-img", "convert", "-q", "-n", "--target-is-zero", "-c", "-m", "4", "-O", "qcow2"])
        .chain([source.as_str(), target.as_str()]);
    let done = run_program("nice", arguments).await;
    done.map_err(|source| PoolError::QemuImg { attempted: "copy a disk", source })
}

/// Refuses files whose headers lead out of them.
async fn inspect(files: impl IntoIterator<Item = &Utf8Path>) -> Result<(), PoolError> {
    let files: Vec<_> = files.into_iter().map(Utf8Path::to_owned).collect();
    let look = move || files.iter().try_for_each(|file| Header::read(file).map(drop));
    blocking("look at a layer's header", look).await
}

async fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> io::Result<()> {
    run_program("qemu-img", arguments).await
}

async fn run_program(
    program: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> io::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    tracing::warn!(status = %output.status, ?stderr, "qemu-img failed");
    Err(io::Error::other(output.status.to_string()))
}

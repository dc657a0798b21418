//! `qemu-img` for files of our own: nothing that it reads here came from a user.

use std::ffi::OsStr;
use std::io;
use std::process::Stdio;

use camino::Utf8Path;
use tokio::process::Command;

use crate::PoolError;

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
        arguments.extend(["-b", backing.as_str(), "-F", "qcow2"]);
    }
    arguments.extend([target.as_str(), &size]);
    run(arguments).await.map_err(|source| PoolError::QemuImg { attempted: "create a disk", source })
}

/// Grows the disk in the qcow2 file at the absolute path `target`, which nobody uses.
pub(crate) async fn resize(target: &Utf8Path, size_bytes: u64) -> Result<(), PoolError> {
    let size = size_bytes.to_string();
    let arguments = ["resize", "-q", "-f", "qcow2", target.as_str(), &size];
    run(arguments).await.map_err(|source| PoolError::QemuImg { attempted: "grow a disk", source })
}

async fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> io::Result<()> {
    let output = Command::new("qemu-img")
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

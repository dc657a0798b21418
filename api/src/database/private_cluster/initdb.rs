//! Makes the data directory, all of it or nothing.
//!
//! `initdb` works in a folder with a name of its own, which becomes `data` by one rename at the end. If we
//! are killed on the way, an orphaned `initdb` may go on writing into that folder without harm; the next
//! start throws it away.

use std::fs::{self, File};
use std::process::Output;

use camino::{Utf8Path, Utf8PathBuf};

use super::account::Account;
use super::binaries::Binaries;
use super::error::{ClusterError, tells_of_a_full_disk};
use super::layout::{Layout, make_directory};
use super::{Durability, SUPERUSER};

const UNFINISHED: &str = "data.new-";

pub(super) async fn ensure(
    layout: &Layout,
    account: &Account,
    binaries: &Binaries,
    durability: Durability,
) -> Result<(), ClusterError> {
    remove_unfinished(layout);
    if layout.data().exists() {
        return Ok(());
    }
    tracing::info!(directory = %layout.root, version = binaries.major, "making a private PostgreSQL cluster");
    let new = layout.root.join(format!("{UNFINISHED}{:08x}", rand::random::<u32>()));
    make_directory(&new, 0o700)?;
    account.give(&new)?;
    if let Err(error) = run(&new, account, binaries, durability).await {
        discard(&new);
        return Err(error);
    }
    fs::rename(&new, layout.data()).map_err(ClusterError::io("rename", &new))?;
    File::open(&layout.root)
        .and_then(|root| root.sync_all())
        .map_err(ClusterError::io("write out", &layout.root))
}

async fn run(
    new: &Utf8Path,
    account: &Account,
    binaries: &Binaries,
    durability: Durability,
) -> Result<(), ClusterError> {
    let program = binaries.program("initdb");
    let mut command = account.command(&program);
    command
        .arg("-D")
        .arg(new)
        .args(["-U", SUPERUSER, "-A", "peer", "--encoding=UTF8", "--locale=C.UTF-8"])
        .args(["--data-checksums", "--no-instructions"])
        .current_dir(new)
        .kill_on_drop(true);
    if durability == Durability::Disposable {
        command.arg("--no-sync");
    }
    let output = command.output().await.map_err(ClusterError::io("run", &program))?;
    if output.status.success() { Ok(()) } else { Err(failure(&output, new)) }
}

fn failure(output: &Output, new: &Utf8Path) -> ClusterError {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if tells_of_a_full_disk(&text) {
        return ClusterError::DiskFull { directory: new.to_owned() };
    }
    ClusterError::Initdb { status: output.status, output: text }
}

fn remove_unfinished(layout: &Layout) {
    let Ok(entries) = layout.root.read_dir_utf8() else { return };
    let unfinished: Vec<Utf8PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().starts_with(UNFINISHED))
        .map(|entry| entry.path().to_owned())
        .collect();
    unfinished.iter().for_each(|path| discard(path));
}

fn discard(path: &Utf8Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(%path, %error, "cannot remove an unfinished data directory");
    }
}

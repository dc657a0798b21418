//! Backups of the database, which is all that the control plane knows: one is written beside a control plane that runs, and put
//! in its place while none runs.
//!
//! [`restore`] makes a database of its own from the backup, brings it up to date, notes there that it was restored, and only then
//! swaps the two names, in one transaction. So a backup that is cut off, damaged or of something else changes nothing, and what was
//! there before is still there after a good one, until somebody lets it go.

mod dump;
mod restore;
mod restored;
#[cfg(test)]
mod tests;

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

pub use self::dump::{BackupOptions, back_up};
pub use self::restore::{Done, RestoreOptions, restore};
#[cfg(test)]
pub(crate) use self::restored::restored_in;
pub use self::restored::{Restored, RestoredOptions, restored};

/// What is ours in a database, of which `pg_dump` would take all: what only a superuser may make could not be restored. The
/// measurements of the last hours are many, and soon of no use.
const SELECTION: [&str; 4] = [
    "--extension=btree_gist",
    "--no-publications",
    "--no-subscriptions",
    "--exclude-table-data=instance_samples*",
];

const INTERRUPTED: &str = "it was interrupted";

/// Runs one of PostgreSQL's programs to its end, or until `shutdown`.
///
/// # Errors
/// What the program says itself. What it tells beside that may be a row of the database, and is not repeated.
async fn run(mut program: Command, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let name = program.as_std().get_program().to_string_lossy().into_owned();
    let name = name.rsplit('/').next().unwrap_or_default();
    program.stderr(std::process::Stdio::piped());
    let child = program.spawn().with_context(|| format!("cannot run {name}"))?;
    // It is killed when it is dropped.
    let output = tokio::select! {
        output = child.wait_with_output() => output.with_context(|| format!("cannot run {name}"))?,
        () = shutdown.cancelled() => bail!(INTERRUPTED),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let prefix = format!("{name}: ");
    let own: Vec<_> = said.lines().filter(|line| line.starts_with(&prefix)).take(3).collect();
    ensure!(output.status.success(), "{name} ended with {}\n{}", output.status, own.join("\n"));
    Ok(())
}

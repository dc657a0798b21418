//! Backups of the database, which is all that the control plane knows: one is written beside a control plane that runs, and put
//! in its place while none runs.
//!
//! [`restore`] makes a database of its own from the backup, brings it up to date, notes there that it was restored, and only then
//! swaps the two names, in one transaction. So a backup that is cut off, damaged or of something else changes nothing, and what was
//! there before is still there after a good one.

mod dump;
mod restore;
mod restored;
#[cfg(test)]
mod tests;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

pub use self::dump::{BackupOptions, back_up};
pub use self::restore::{Done, RestoreOptions, restore};
#[cfg(test)]
pub(crate) use self::restored::restored_in;
pub use self::restored::{Restored, RestoredOptions, restored};

/// The measurements of the last hours are many, and soon of no use.
const LEFT_OUT: &str = "--exclude-table-data=instance_samples*";

/// Runs one of PostgreSQL's programs to its end.
///
/// # Errors
/// What the program says itself. What it tells beside that may be a row of the database, and is not repeated.
async fn run(mut program: Command) -> anyhow::Result<()> {
    let name = program.as_std().get_program().to_string_lossy().into_owned();
    let name = name.rsplit('/').next().unwrap_or_default();
    program.stderr(std::process::Stdio::piped());
    let child = program.spawn().with_context(|| format!("cannot run {name}"))?;
    let output = child.wait_with_output().await.with_context(|| format!("cannot run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let prefix = format!("{name}: ");
    let own: Vec<_> = said.lines().filter(|line| line.starts_with(&prefix)).take(3).collect();
    ensure!(output.status.success(), "{name} ended with {}\n{}", output.status, own.join("\n"));
    Ok(())
}

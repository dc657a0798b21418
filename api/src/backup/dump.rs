//! `cumulo-api backup`.

use std::io::IsTerminal as _;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use super::{SELECTION, run};
use crate::database::{Location, Maintenance};

/// Of which control plane, and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct BackupOptions {
    /// The file to write, which only its owner may read: it holds the keys of the cloud. One that is there is replaced once the new
    /// one is whole. `-` is the standard output.
    pub file: Utf8PathBuf,
    #[command(flatten)]
    pub database: Location,
}

/// Writes a backup, of one moment, unless `shutdown` comes first. Its size in bytes, if it is in a file.
///
/// # Errors
/// When PostgreSQL cannot be reached, or the file cannot be written; there is none then, or the one that was there.
pub async fn back_up(options: &BackupOptions, shutdown: &CancellationToken) -> anyhow::Result<Option<u64>> {
    let to_stdout = options.file == "-";
    ensure!(
        !to_stdout || !std::io::stdout().is_terminal(),
        "a backup is nothing to read: name a file, or use > FILE"
    );
    // Before anything is started: the file is what is wrong most often.
    let path = options.file.canonicalize_utf8().unwrap_or(options.file.clone());
    let file = if to_stdout { None } else { Some(beside(&path)?) };
    let postgres = Maintenance::beside(&options.database).await?;
    let idle = if postgres.is_started() { ", on which no cumulo-api runs" } else { "" };
    eprintln!("backing up the database {}{idle}", postgres.name());
    let written = write(&postgres, file.as_ref(), shutdown).await;
    postgres.leave().await;
    written.context("no backup was written")?;
    file.map(|file| keep(file, &path)).transpose()
}

fn folder_of(file: &Utf8Path) -> &Utf8Path {
    file.parent().filter(|folder| !folder.as_str().is_empty()).unwrap_or(Utf8Path::new("."))
}

/// A file that takes the other's place once it is whole. Nobody else may read it.
fn beside(file: &Utf8Path) -> anyhow::Result<NamedTempFile> {
    ensure!(!file.exists() || file.is_file(), "{file} is no file: name one to write");
    let folder = folder_of(file);
    NamedTempFile::with_prefix_in(".cumulo-backup-", folder)
        .with_context(|| format!("cannot write to {folder}"))
}

async fn write(
    postgres: &Maintenance,
    file: Option<&NamedTempFile>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let mut program = postgres.program("pg_dump", &postgres.control_plane);
    program.arg("--format=custom").args(SELECTION).stdin(Stdio::null());
    if let Some(file) = file {
        program.stdout(file.as_file().try_clone()?);
    }
    run(program, shutdown).await
}

fn keep(file: NamedTempFile, path: &Utf8Path) -> anyhow::Result<u64> {
    let written = || format!("cannot write {path}");
    file.as_file().sync_all().with_context(written)?;
    let file = file.persist(path).with_context(written)?;
    std::fs::File::open(folder_of(path)).and_then(|folder| folder.sync_all()).with_context(written)?;
    Ok(file.metadata()?.len())
}

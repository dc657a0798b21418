//! The program of the operator: which it is, and whether it may be trusted.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration as Limit;

use camino::Utf8PathBuf;
use nix::unistd::{AccessFlags, Uid, access};
use thiserror::Error;
use time::Duration;

/// How hosts that have fallen silent are switched off.
#[derive(Debug, Clone, clap::Args)]
pub struct FenceOptions {
    /// Program that switches a silent host off, so that its instances may start elsewhere: an absolute path. Without it,
    /// hosts wait for the operator.
    #[arg(long, env = "CUMULO_FENCE_COMMAND")]
    pub fence_command: Option<Utf8PathBuf>,
    /// Call it once nothing was heard of a host for so long.
    #[arg(long, env = "CUMULO_FENCE_AFTER_SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u32).range(60..=86_400))]
    pub fence_after_seconds: u32,
    /// End it when it takes longer.
    #[arg(long, env = "CUMULO_FENCE_TIMEOUT_SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..=600))]
    pub fence_timeout_seconds: u32,
}

impl FenceOptions {
    /// What is done by these options; `None` when hosts wait for the operator.
    ///
    /// # Errors
    /// When the program is not one that can be trusted.
    pub fn open(&self) -> Result<Option<Fencer>, UnfitProgram> {
        let Some(program) = &self.fence_command else { return Ok(None) };
        let fencer = Fencer {
            program: program.into(),
            after: Duration::seconds(self.fence_after_seconds.into()),
            limit: Limit::from_secs(self.fence_timeout_seconds.into()),
        };
        fencer.checked()?;
        Ok(Some(fencer))
    }
}

/// The program, when it is called, and how long it may take.
#[derive(Debug, Clone)]
pub struct Fencer {
    pub(super) program: PathBuf,
    pub(super) after: Duration,
    pub(super) limit: Limit,
}

/// Why a program is not run.
#[derive(Debug, Error)]
pub enum UnfitProgram {
    #[error("the fence command {0} is not an absolute path")]
    Relative(PathBuf),
    #[error("cannot look at the fence command {0}")]
    Unseen(PathBuf, #[source] std::io::Error),
    #[error("the fence command {0} is not a file")]
    NoFile(PathBuf),
    #[error("the fence command {0} cannot be executed by this user")]
    NotExecutable(PathBuf),
    #[error("the fence command could be changed by others: {0} belongs to neither root nor this user")]
    Foreign(PathBuf),
    #[error("the fence command could be changed by others: {0} can be written to by its group or everybody")]
    Writable(PathBuf),
}

impl Fencer {
    /// How long the program may take.
    pub(crate) const fn limit(&self) -> Limit {
        self.limit
    }

    /// The file that is to be run, which nobody but root and this user can change or replace.
    ///
    /// # Errors
    /// When that is not so.
    pub(super) fn checked(&self) -> Result<PathBuf, UnfitProgram> {
        if !self.program.is_absolute() {
            return Err(UnfitProgram::Relative(self.program.clone()));
        }
        let unseen = |error| UnfitProgram::Unseen(self.program.clone(), error);
        let program = self.program.canonicalize().map_err(unseen)?;
        if !program.metadata().map_err(unseen)?.is_file() {
            return Err(UnfitProgram::NoFile(program));
        }
        for part in program.ancestors() {
            is_ours(part, &part.metadata().map_err(unseen)?)?;
        }
        access(&program, AccessFlags::X_OK).map_err(|_| UnfitProgram::NotExecutable(program.clone()))?;
        Ok(program)
    }
}

fn is_ours(path: &Path, found: &Metadata) -> Result<(), UnfitProgram> {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    if found.uid() != 0 && found.uid() != Uid::effective().as_raw() {
        return Err(UnfitProgram::Foreign(path.into()));
    }
    let mode = found.permissions().mode();
    // In a folder like /tmp nobody replaces what belongs to others.
    let is_kept = found.is_dir() && mode & STICKY != 0;
    if mode & OTHERS_WRITE != 0 && !is_kept { Err(UnfitProgram::Writable(path.into())) } else { Ok(()) }
}

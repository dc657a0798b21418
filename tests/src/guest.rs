//! The guest images of the tests: built on first use, then cached.

use std::process::Command;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

use crate::machine::said_or_failed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// Debian's kernel and busybox: boots in seconds, understands the seed.
    Fast,
    /// Debian with genuine cloud-init: boots in minutes under emulation.
    Debian,
    /// As the fast one, started by UEFI.
    Uefi,
    /// The same for another processor.
    Aarch64,
    Riscv64,
}

impl Guest {
    /// Names its image and its instance type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Debian => "debian",
            Self::Uefi => "uefi",
            Self::Aarch64 => "aarch64",
            Self::Riscv64 => "riscv64",
        }
    }

    /// Memory in MiB and root disk in GiB.
    pub(crate) const fn needs(self) -> (u32, u32) {
        match self {
            Self::Fast => (128, 1),
            Self::Debian => (1024, 4),
            Self::Uefi | Self::Aarch64 | Self::Riscv64 => (256, 1),
        }
    }
}

/// The path of an up-to-date image, building it first when necessary.
pub fn cached(guest: Guest) -> Result<Utf8PathBuf> {
    let script = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/cached");
    let said = Command::new(&script).arg(guest.name()).stderr(std::process::Stdio::inherit()).output();
    let said = said_or_failed(said, || format!("{script} {}", guest.name()))?;
    let path = said.lines().last().map(str::trim).filter(|line| !line.is_empty());
    Ok(path.with_context(|| format!("{script} printed no path"))?.into())
}

//! The machine's hardware watchdog, which resets it when nobody feeds it (`watchdog-api` of the kernel).

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use anyhow::{Context, Result, bail};
use camino::Utf8Path;
use rustix::fs::{OFlags, major, minor};

/// With more, a dead guard's guests could run when others take over.
const LONGEST_SECONDS: u32 = 15;
/// What tells it that its end is meant.
const MAGIC: &[u8] = b"V";

pub(super) struct Watchdog {
    device: File,
}

impl Watchdog {
    /// From now on it bites when it is not fed.
    pub(super) fn arm(path: &Utf8Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let device = options.open(path).with_context(|| format!("the watchdog {path} cannot be opened"))?;
        let watchdog = Self { device };
        match watchdog.timeout() {
            Ok(Some(seconds)) if seconds > LONGEST_SECONDS => {
                watchdog.disarm();
                bail!(
                    "the watchdog {path} waits for {seconds} s: set at most {LONGEST_SECONDS}, as with \
                     wdctl --settimeout {LONGEST_SECONDS} {path}"
                );
            }
            Ok(_) => Ok(watchdog),
            Err(error) => {
                watchdog.disarm();
                Err(error).with_context(|| format!("how long the watchdog {path} waits is not known"))
            }
        }
    }

    /// How long it waits, if this is a device.
    fn timeout(&self) -> Result<Option<u32>> {
        let found = self.device.metadata()?;
        if !found.file_type().is_char_device() {
            return Ok(None);
        }
        let device = found.rdev();
        let file = format!("/sys/dev/char/{}:{}/timeout", major(device), minor(device));
        let text = fs::read_to_string(&file).with_context(|| format!("{file} cannot be read"))?;
        Ok(Some(text.trim().parse()?))
    }

    /// Keeps it quiet for as long as it waits.
    pub(super) fn feed(&mut self) {
        if let Err(error) = self.device.write_all(b"\0") {
            tracing::error!(%error, "the watchdog cannot be fed");
        }
    }

    pub(super) fn disarm(mut self) {
        if let Err(error) = self.device.write_all(MAGIC) {
            tracing::error!(%error, "the watchdog could not be told that this end is meant");
        }
    }
}

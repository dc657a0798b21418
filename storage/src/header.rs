//! What the header of a qcow2 file of a pool says (<https://www.qemu.org/docs/master/interop/qcow2.html>), and whether
//! QEMU's tools may open the file.
//!
//! A layer is written to by the QEMU of a guest, and in a shared pool by other hosts. Whoever has taken one of them over
//! can write any header. What such a header could make of a program that runs as root and opens the file as qcow2: follow
//! an external data file or a backing file to whatever the host has. So nothing of that passes here; on which file a
//! layer stands compares whoever follows the chain.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use nix::libc;

/// The longest name of a backing file that qcow2 has room for.
const MAX_NAME_BYTES: u64 = 1023;
const MAGIC: u32 = u32::from_be_bytes(*b"QFI\xfb");
const V2_BYTES: u64 = 72;
/// Up to the length of the header.
const FIXED_BYTES: usize = 104;
/// Far more than QEMU writes.
const MAX_EXTENSIONS: usize = 32;

/// "Incompatible features": dirty, compression type, extended L2 entries. Others lead out of the file, say that it is
/// corrupt, or are not known.
const ALLOWED_FEATURES: u64 = 1 << 0 | 1 << 3 | 1 << 4;
/// "Raw external data bit" among the auto-clear features.
const AUTOCLEAR_RAW_DATA_FILE: u64 = 1 << 1;

/// Header extensions.
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE_NAME: u32 = 0x4441_5441;
const ENCRYPTION: u32 = 0x0537_be77;

#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) backing: Option<Utf8PathBuf>,
    pub(crate) size_bytes: u64,
}

impl Header {
    /// Reads the header of a file that is about to be opened as qcow2.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when it must not be.
    pub(crate) fn read(path: &Utf8Path) -> io::Result<Self> {
        let mut file = open_itself(path)?;
        let fields = Fields::read(&mut file)?;
        let length = fields.check()?;
        let backing = backing(&mut file, &fields)?;
        let end = if fields.backing_at() == 0 { fields.cluster_bytes() } else { fields.backing_at() };
        check_extensions(&mut file, length, end)?;
        Ok(Self { backing, size_bytes: fields.long(24) })
    }
}

/// Whoever shares the pool could lead elsewhere by a link.
pub(crate) fn open_itself(path: &Utf8Path) -> io::Result<File> {
    let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::new(io::ErrorKind::InvalidData, "it is a link"),
        _ => error,
    })
}

/// The backing file that a header names, whatever else it says: for whoever only wants to know what is needed.
pub(crate) fn backing_of(path: &Utf8Path) -> io::Result<Option<Utf8PathBuf>> {
    let mut file = File::open(path)?;
    let fields = Fields::read(&mut file)?;
    backing(&mut file, &fields)
}

/// The first bytes of a file.
struct Fields([u8; FIXED_BYTES]);

impl Fields {
    fn read(file: &mut File) -> io::Result<Self> {
        let mut fields = [0; FIXED_BYTES];
        file.read_exact(&mut fields)?;
        Ok(Self(fields))
    }

    fn long(&self, at: usize) -> u64 {
        self.0[at..at + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn word(&self, at: usize) -> u32 {
        self.0[at..at + 4].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
    }

    fn backing_at(&self) -> u64 {
        self.long(8)
    }

    fn backing_bytes(&self) -> u64 {
        self.word(16).into()
    }

    /// Zero when it makes no sense.
    fn cluster_bytes(&self) -> u64 {
        1_u64.checked_shl(self.word(20)).unwrap_or(0)
    }

    /// Gives where the extensions begin.
    fn check(&self) -> io::Result<u64> {
        if self.word(0) != MAGIC {
            return refuse("it is no qcow2 file");
        }
        if !(9..=21).contains(&self.word(20)) {
            return refuse("its clusters have no size that there is");
        }
        if self.word(32) != 0 {
            return refuse("it is encrypted");
        }
        let length = match self.word(4) {
            2 => V2_BYTES,
            3 if self.long(72) & !ALLOWED_FEATURES != 0 => {
                return refuse("it has features that are not ours: an external data file, perhaps");
            }
            3 if self.long(88) & AUTOCLEAR_RAW_DATA_FILE != 0 => {
                return refuse("it has an external data file");
            }
            3 => self.word(100).into(),
            _ => return refuse("its version is not known"),
        };
        let (at, bytes, cluster) = (self.backing_at(), self.backing_bytes(), self.cluster_bytes());
        if length < V2_BYTES || length > cluster {
            return refuse("its header has no length that there is");
        }
        let names_none = at == 0 && bytes == 0;
        let names_one =
            (length..cluster).contains(&at) && (1..=MAX_NAME_BYTES.min(cluster - at)).contains(&bytes);
        if names_none || names_one { Ok(length) } else { refuse("it names a backing file out of place") }
    }
}

fn backing(file: &mut File, fields: &Fields) -> io::Result<Option<Utf8PathBuf>> {
    let length = usize::try_from(fields.backing_bytes().min(MAX_NAME_BYTES)).unwrap_or(0);
    if length == 0 {
        return Ok(None);
    }
    let mut name = vec![0; length];
    file.seek(SeekFrom::Start(fields.backing_at()))?;
    file.read_exact(&mut name)?;
    let name = String::from_utf8(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(name.into()))
}

/// The extensions from one place to another. QEMU stops where we do.
fn check_extensions(file: &mut File, begin: u64, end: u64) -> io::Result<()> {
    let mut at = begin;
    for _ in 0..MAX_EXTENSIONS {
        if at >= end {
            return Ok(());
        }
        let mut head = [0; 8];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut head)?;
        let [kind, length] =
            [0, 4].map(|from| head[from..from + 4].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
        match kind {
            END => return Ok(()),
            DATA_FILE_NAME => return refuse("it names an external data file"),
            ENCRYPTION => return refuse("it is encrypted"),
            BACKING_FORMAT => {
                let mut format = [0; b"qcow2".len()];
                file.read_exact(&mut format)?;
                if length as usize != format.len() || &format != b"qcow2" {
                    return refuse("it says that it stands on something that is no qcow2 file");
                }
            }
            _ => {}
        }
        at += 8 + u64::from(length).next_multiple_of(8);
    }
    refuse("its header has more parts than QEMU writes")
}

fn refuse<T>(why: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

//! Disk image headers, read without trusting them.
//!
//! An uploaded image is hostile until proven otherwise: a header can name other files of the machine that
//! opens it, or promise terabytes from a few bytes. [`inspect`] is an allow-list. It accepts raw bytes that
//! are not secretly a container, and self-contained qcow2, VMDK, VHDX and VDI whose every table and block lies
//! inside the file; everything else is refused with a stable code and a way out. It reads through [`Read`]
//! and [`Seek`], opens nothing, follows nothing, and needs a few MiB of memory whatever the header says.
//!
//! The control plane inspects an upload before it stores it, and a host inspects what it fetched before
//! and after the conversion into a file of its own.

mod bytes;
mod container;
#[cfg(any(test, feature = "corpus"))]
pub mod corpus;
mod error;
mod qcow2;
mod source;
mod usage;
mod vdi;
mod vhdx;
mod vmdk;

use std::io::{Read, Seek};

use serde::{Deserialize, Serialize};

pub use container::Container;
pub use error::{InspectError, Part};
pub use vdi::VdiError;
pub use vhdx::VhdxError;
pub use vmdk::VmdkError;

use crate::{GIB, KIB};
use source::Source;

/// The formats that are accepted. A VMDK is one file, monolithicSparse or streamOptimized; no image may need
/// another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Format {
    Qcow2,
    Raw,
    Vmdk,
    Vhdx,
    Vdi,
}

impl Format {
    pub const ALL: [Self; 5] = [Self::Qcow2, Self::Raw, Self::Vmdk, Self::Vhdx, Self::Vdi];

    /// The wire form, which is also the name of QEMU's driver.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
        }
    }

    /// The format of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }
}

/// Disks have whole sectors of this many bytes.
pub const SECTOR_BYTES: u64 = 512;
/// The largest disk that an image may promise to the guest.
pub const MAX_VIRTUAL_SIZE_BYTES: u64 = 16 << 10 << 30;
/// [`ImageInfo::data_bytes`] counts the guest's disk in pieces of this size.
pub const DATA_UNIT_BYTES: u64 = 64 * KIB;

const _: () = assert!(MAX_VIRTUAL_SIZE_BYTES == 16 * 1024 * GIB);

/// What an accepted image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageInfo {
    pub format: Format,
    /// Size of the disk that the guest sees.
    pub virtual_size_bytes: u64,
    /// Upper bound of what the guest's data takes once it is unpacked: the parts of the disk that hold
    /// data, in whole pieces of [`DATA_UNIT_BYTES`].
    pub data_bytes: u64,
}

/// Reads the image of `length_bytes` behind `reader` and says what it is, or why it is refused.
///
/// Costs: a raw image two small reads; the others their header and their address tables (about 1/8000 of a
/// well-filled qcow2 or VMDK, much less of the others), in reads of 64 KiB or a table. The position of `reader` afterwards is unspecified.
pub fn inspect<R: Read + Seek>(
    reader: &mut R,
    declared: Format,
    length_bytes: u64,
) -> Result<ImageInfo, InspectError> {
    if length_bytes == 0 {
        return Err(InspectError::Empty);
    }
    let mut source = Source::new(reader, length_bytes);
    let found = container::recognise(&mut source)?;
    match (declared, found) {
        (Format::Qcow2, Some(Container::Qcow)) => qcow2::inspect(&mut source),
        (Format::Raw, None) => inspect_raw(length_bytes),
        (Format::Vmdk, Some(Container::Vmdk)) => vmdk::inspect(&mut source),
        (Format::Vhdx, Some(Container::Vhdx)) => vhdx::inspect(&mut source),
        (Format::Vdi, Some(Container::Vdi)) => vdi::inspect(&mut source),
        (declared, found) => Err(InspectError::FormatMismatch { declared, found }),
    }
}

fn inspect_raw(length: u64) -> Result<ImageInfo, InspectError> {
    if !length.is_multiple_of(SECTOR_BYTES) {
        return Err(InspectError::PartialSector { length });
    }
    if length > MAX_VIRTUAL_SIZE_BYTES {
        return Err(InspectError::TooLarge { size: length });
    }
    Ok(ImageInfo {
        format: Format::Raw,
        virtual_size_bytes: length,
        data_bytes: length.next_multiple_of(DATA_UNIT_BYTES),
    })
}

#[cfg(test)]
mod tests;

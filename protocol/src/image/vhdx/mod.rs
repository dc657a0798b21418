//! VHDX version 1 ("[MS-VHDX]: Virtual Hard Disk v2 File Format", the specification below), fixed and dynamic.
//!
//! [`headers`] lead to [`regions`], the metadata region describes the disk ([`metadata`]), and the block
//! allocation table says where its blocks are ([`blocks`]). Where the specification lets a reader choose, this
//! one refuses, so that no two readers see different disks: both headers and both region tables have to be
//! whole, and the log empty. Numbers are little-endian.

mod blocks;
mod error;
mod headers;
mod metadata;
mod regions;

use std::io::{Read, Seek};

pub use error::VhdxError;

use super::source::Source;
use super::{Format, ImageInfo, InspectError};

/// CRC-32C, as all structures of the front have it.
const CASTAGNOLI: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
/// Every structure has its checksum after its signature.
const CHECKSUM_AT: usize = 4;

pub(super) fn inspect<R: Read + Seek>(source: &mut Source<'_, R>) -> Result<ImageInfo, InspectError> {
    let log = headers::read(source)?;
    let regions = regions::read(source, log)?;
    let disk = metadata::read(source, &regions)?;
    let data_bytes = blocks::walk(source, &regions, &disk)?;
    Ok(ImageInfo { format: Format::Vhdx, virtual_size_bytes: disk.virtual_size, data_bytes })
}

/// The checksum is of all bytes, with zeros in its own place.
fn checksum(bytes: &[u8]) -> u32 {
    let mut digest = CASTAGNOLI.digest();
    digest.update(&bytes[..CHECKSUM_AT]);
    digest.update(&[0; 4]);
    digest.update(&bytes[CHECKSUM_AT + 4..]);
    digest.finalize()
}

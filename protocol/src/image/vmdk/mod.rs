//! VMDK in one file: the types monolithicSparse and streamOptimized of VMware's "Virtual Disk Format 5.0".
//!
//! The header gives a descriptor in words, which is read by an allow-list, and a directory of tables, whose
//! pointers are followed once. Descriptors in a file of their own, and extents of other types, name files of
//! the machine that opens them; they are refused. Numbers are little-endian.

mod descriptor;
mod error;
mod header;
mod tables;

use std::io::{Read, Seek};

pub use error::VmdkError;

use super::bytes::{le32, le64};
use super::source::Source;
use super::{Format, ImageInfo, InspectError, Part, SECTOR_BYTES};
use header::{DIRECTORY_AT_END, Header, MAGIC};

/// The extents of ESX, which need a descriptor in another file.
const ESX_MAGIC: &[u8] = b"COWD";
/// Where QEMU looks for the descriptor, whatever the header says.
const DESCRIPTOR_SECTOR: u64 = 1;
/// As far as QEMU reads it.
const MAX_DESCRIPTOR_SECTORS: u64 = 20;
const MARKER_FOOTER: u32 = 3;
const MARKER_END: u32 = 0;

pub(super) fn inspect<R: Read + Seek>(source: &mut Source<'_, R>) -> Result<ImageInfo, InspectError> {
    let length = source.length();
    let magic = source.bytes(Part::Header, 0, length.min(4))?;
    if magic == ESX_MAGIC {
        return Err(VmdkError::CreateType("vmfsSparse".to_owned()).into());
    }
    if magic != MAGIC {
        return Err(VmdkError::DescriptorAlone.into());
    }
    let head = source.bytes(Part::Header, 0, SECTOR_BYTES)?;
    let header = Header::parse(head)?;
    let (descriptor_sector, descriptor_sectors) = (le64(head, 28), le64(head, 36));
    if descriptor_sector != DESCRIPTOR_SECTOR {
        return Err(VmdkError::Field { field: "descriptor_offset", value: descriptor_sector }.into());
    }
    if !(1..=MAX_DESCRIPTOR_SECTORS).contains(&descriptor_sectors) {
        return Err(VmdkError::Field { field: "descriptor_size", value: descriptor_sectors }.into());
    }
    let text = source.bytes(Part::Descriptor, SECTOR_BYTES, descriptor_sectors * SECTOR_BYTES)?;
    let descriptor = descriptor::parse(text)?;
    if descriptor.stream_optimized != header.compressed() {
        return Err(VmdkError::DescriptorText("createType and header disagree on compression").into());
    }
    if descriptor.extent_sectors != header.capacity_sectors {
        return Err(VmdkError::DescriptorText("extent and header disagree on the size").into());
    }
    let header = if header.directory_sector == DIRECTORY_AT_END { footer(source, &header)? } else { header };
    let data_bytes = tables::walk(source, &header, DESCRIPTOR_SECTOR + descriptor_sectors)?;
    Ok(ImageInfo { format: Format::Vmdk, virtual_size_bytes: header.virtual_size(), data_bytes })
}

/// A stream's header comes last: marker, header, end of stream, a sector each.
fn footer<R: Read + Seek>(source: &mut Source<'_, R>, head: &Header) -> Result<Header, InspectError> {
    let bad = |what| Err(VmdkError::Footer(what).into());
    let length = source.length();
    let Some(start) = length.checked_sub(3 * SECTOR_BYTES).filter(|_| length.is_multiple_of(SECTOR_BYTES))
    else {
        return bad("the file does not end with it");
    };
    let bytes = source.bytes(Part::Footer, start, 3 * SECTOR_BYTES)?;
    let sector = SECTOR_BYTES as usize;
    let (marker, foot, end) = (&bytes[..sector], &bytes[sector..2 * sector], &bytes[2 * sector..]);
    let is_marker = |bytes: &[u8], kind| le32(bytes, 8) == 0 && le32(bytes, 12) == kind;
    if !is_marker(marker, MARKER_FOOTER) || !is_marker(end, MARKER_END) || le64(end, 0) != 0 {
        return bad("the file does not end with it");
    }
    if !foot.starts_with(MAGIC) {
        return bad("it is no header");
    }
    let footer = Header::parse(foot)?;
    if !head.agrees_with(&footer) {
        return bad("it describes another disk than the header");
    }
    if footer.directory_sector == DIRECTORY_AT_END {
        return bad("it leads to another footer");
    }
    Ok(footer)
}

//! The metadata region: a table of items, and the items.

use std::io::{Read, Seek};

use super::VhdxError;
use super::regions::Regions;
use crate::image::bytes::{le16, le32, le64};
use crate::image::source::Source;
use crate::image::{InspectError, MAX_VIRTUAL_SIZE_BYTES, Part, SECTOR_BYTES};
use crate::{KIB, MIB};

const TABLE_BYTES: u64 = 64 * KIB;
const ENTRY_BYTES: usize = 32;
const MAX_ENTRIES: u16 = 2047;
const REQUIRED: u32 = 1 << 2;

/// The items of every disk: name, identifier, length in bytes.
const ITEMS: [(&str, [u8; 16], u64); 5] = [
    ("file parameters", *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b", 8),
    ("virtual disk size", *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8", 8),
    ("virtual disk id", *b"\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46", 16),
    ("logical sector size", *b"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f", 4),
    ("physical sector size", *b"\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56", 4),
];
const FILE_PARAMETERS: usize = 0;
const VIRTUAL_SIZE: usize = 1;
const LOGICAL_SECTOR: usize = 3;
const PHYSICAL_SECTOR: usize = 4;
/// a8d35f2d-b30b-454d-abf7-d3d84834ab0c
const PARENT_LOCATOR: [u8; 16] = *b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";

const HAS_PARENT: u32 = 1 << 1;
/// "Leave blocks allocated": a fixed disk.
const FIXED: u32 = 1 << 0;
const BLOCK_BYTES: std::ops::RangeInclusive<u64> = MIB..=256 * MIB;

/// What the metadata says of the disk, in bytes.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) virtual_size: u64,
    pub(super) block_size: u64,
}

pub(super) fn read<R: Read + Seek>(
    source: &mut Source<'_, R>,
    regions: &Regions,
) -> Result<Disk, InspectError> {
    let region = regions.metadata;
    let places = places(source.bytes(Part::Metadata, region.offset, TABLE_BYTES)?, region.length)?;
    let mut item = |kind: usize| {
        let mut bytes = [0; 16];
        let length = ITEMS[kind].2 as usize;
        bytes[..length].copy_from_slice(source.bytes(
            Part::Metadata,
            region.offset + places[kind],
            length as u64,
        )?);
        Ok::<_, InspectError>(bytes)
    };
    let parameters = item(FILE_PARAMETERS)?;
    let (block_size, flags) = (u64::from(le32(&parameters, 0)), le32(&parameters, 4));
    if flags & HAS_PARENT != 0 {
        return Err(VhdxError::Parent.into());
    }
    if flags & !FIXED != 0 {
        return Err(VhdxError::Field { field: "file parameters", value: flags.into() }.into());
    }
    if !block_size.is_power_of_two() || !BLOCK_BYTES.contains(&block_size) {
        return Err(VhdxError::Field { field: "block size", value: block_size }.into());
    }
    let (logical, physical) = (le32(&item(LOGICAL_SECTOR)?, 0), le32(&item(PHYSICAL_SECTOR)?, 0));
    // Guests see sectors of 512 bytes, where a disk of larger ones has another partition table.
    if u64::from(logical) != SECTOR_BYTES {
        return Err(VhdxError::SectorSize(logical).into());
    }
    if !matches!(physical, 512 | 4096) {
        return Err(VhdxError::Field { field: "physical sector size", value: physical.into() }.into());
    }
    let virtual_size = le64(&item(VIRTUAL_SIZE)?, 0);
    if virtual_size == 0 || !virtual_size.is_multiple_of(SECTOR_BYTES) {
        return Err(InspectError::VirtualSize { size: virtual_size });
    }
    if virtual_size > MAX_VIRTUAL_SIZE_BYTES {
        return Err(InspectError::TooLarge { size: virtual_size });
    }
    Ok(Disk { virtual_size, block_size })
}

/// The offsets of [`ITEMS`] in the region.
fn places(table: &[u8], region_length: u64) -> Result<[u64; 5], VhdxError> {
    if !table.starts_with(b"metadata") {
        return Err(VhdxError::Damaged("the metadata has no signature"));
    }
    let count = le16(table, 10);
    if count > MAX_ENTRIES {
        return Err(VhdxError::Field { field: "the number of metadata items", value: count.into() });
    }
    let mut places = [None; 5];
    for entry in table.chunks_exact(ENTRY_BYTES).skip(1).take(count.into()) {
        let id = &entry[..16];
        if id == PARENT_LOCATOR {
            return Err(VhdxError::Parent);
        }
        let Some(kind) = ITEMS.iter().position(|(_, known, _)| id == known) else {
            if le32(entry, 24) & REQUIRED != 0 {
                return Err(VhdxError::UnknownMetadata(hex::encode(id)));
            }
            continue;
        };
        let (offset, length) = (u64::from(le32(entry, 16)), u64::from(le32(entry, 20)));
        let (name, _, expected) = ITEMS[kind];
        if length != expected {
            return Err(VhdxError::Field { field: name, value: length });
        }
        if offset < TABLE_BYTES || offset + length > region_length {
            return Err(VhdxError::Damaged("a metadata item is not in its region"));
        }
        if places[kind].replace(offset).is_some() {
            return Err(VhdxError::Damaged("a metadata item is there twice"));
        }
    }
    let mut found = [0; 5];
    for (place, found) in places.into_iter().zip(&mut found) {
        *found = place.ok_or(VhdxError::Damaged("a metadata item is missing"))?;
    }
    Ok(found)
}

//! The region table: where the file keeps what.

use std::io::{Read, Seek};

use super::{CHECKSUM_AT, VhdxError, checksum};
use crate::image::bytes::{le32, le64};
use crate::image::source::Source;
use crate::image::{InspectError, Part};
use crate::{KIB, MIB};

const PLACES: [u64; 2] = [192 * KIB, 256 * KIB];
const TABLE_BYTES: u64 = 64 * KIB;
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 32;
const MAX_ENTRIES: u32 = 2047;
const REQUIRED: u32 = 1;
/// Everything after the first MiB is in units of this size.
const UNIT: u64 = MIB;

/// 2dc27766-f623-4200-9d64-115e9bfd4a08
const BLOCK_TABLE: [u8; 16] = *b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
/// 8b7ca206-4790-4b9a-b8fe-575f050f886e
const METADATA: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";

#[derive(Debug, Clone, Copy)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) length: u64,
}

#[derive(Debug)]
pub(super) struct Regions {
    pub(super) block_table: Region,
    pub(super) metadata: Region,
    /// All of them and the log, in the order of the file; none overlap.
    taken: Vec<Region>,
}

impl Region {
    pub(super) const fn end(&self) -> u64 {
        self.offset + self.length
    }

    /// In the file, behind the headers, and in whole units.
    pub(super) fn check<R: Read + Seek>(&self, source: &Source<'_, R>) -> Result<(), InspectError> {
        let field = |field, value| Err(VhdxError::Field { field, value }.into());
        if self.offset < UNIT || !self.offset.is_multiple_of(UNIT) {
            return field("the offset of a region", self.offset);
        }
        if self.length == 0 || !self.length.is_multiple_of(UNIT) {
            return field("the length of a region", self.length);
        }
        source.require(Part::Region, self.offset, self.length)?;
        Ok(())
    }
}

impl Regions {
    /// Whether `offset..end` touches a region.
    pub(super) fn is_taken(&self, offset: u64, end: u64) -> bool {
        let next = self.taken.partition_point(|region| region.end() <= offset);
        self.taken.get(next).is_some_and(|region| region.offset < end)
    }
}

pub(super) fn read<R: Read + Seek>(
    source: &mut Source<'_, R>,
    log: Option<Region>,
) -> Result<Regions, InspectError> {
    let table = source.bytes(Part::RegionTable, PLACES[0], TABLE_BYTES)?.to_vec();
    if source.bytes(Part::RegionTable, PLACES[1], TABLE_BYTES)? != table {
        return Err(VhdxError::Damaged("its two region tables differ").into());
    }
    if !table.starts_with(b"regi") {
        return Err(VhdxError::Damaged("the region table has no signature").into());
    }
    if checksum(&table) != le32(&table, CHECKSUM_AT) {
        return Err(VhdxError::Checksum("the region table").into());
    }
    let count = le32(&table, 8);
    if count > MAX_ENTRIES {
        return Err(VhdxError::Field { field: "the number of regions", value: count.into() }.into());
    }
    let (mut block_table, mut metadata) = (None, None);
    let mut taken: Vec<Region> = log.into_iter().collect();
    for entry in table[HEADER_BYTES..].chunks_exact(ENTRY_BYTES).take(count as usize) {
        let region = Region { offset: le64(entry, 16), length: le32(entry, 24).into() };
        region.check(source)?;
        taken.push(region);
        let again = match &entry[..16] {
            id if id == BLOCK_TABLE => block_table.replace(region).is_some(),
            id if id == METADATA => metadata.replace(region).is_some(),
            id if le32(entry, 28) & REQUIRED != 0 => {
                return Err(VhdxError::UnknownRegion(hex::encode(id)).into());
            }
            _ => false,
        };
        if again {
            return Err(VhdxError::Damaged("a region is there twice").into());
        }
    }
    taken.sort_unstable_by_key(|region| region.offset);
    if let Some(pair) = taken.windows(2).find(|pair| pair[0].end() > pair[1].offset) {
        return Err(VhdxError::Overlap { offset: pair[1].offset }.into());
    }
    match (block_table, metadata) {
        (Some(block_table), Some(metadata)) => Ok(Regions { block_table, metadata, taken }),
        _ => Err(VhdxError::Damaged("the block table or the metadata is missing").into()),
    }
}

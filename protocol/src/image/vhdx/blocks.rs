//! The block allocation table: an entry for each block of the disk, and after each "chunk" of them one for a
//! bitmap that only disks with a parent have.

use std::io::{Read, Seek};

use super::VhdxError;
use super::metadata::Disk;
use super::regions::Regions;
use crate::image::bytes::le64;
use crate::image::source::Source;
use crate::image::usage::{Claims, DataUnits};
use crate::image::{InspectError, Part, SECTOR_BYTES};
use crate::{KIB, MIB};

const ENTRY_BYTES: u64 = 8;
/// How much of the table is looked at at a time.
const PIECE_BYTES: u64 = 64 * KIB;
/// QEMU reads the whole region into memory; 128 MiB are enough for 16 TiB in the smallest blocks.
const MAX_REGION_BYTES: u64 = 192 * MIB;
const SECTORS_PER_CHUNK: u64 = 1 << 23;

const STATE: u64 = 0b111;
const RESERVED: u64 = 0x000f_fff8;
const FULLY_PRESENT: u64 = 6;
/// Not present, undefined, zero, and unmapped in two versions of the specification: all read as zeros.
const ABSENT: [u64; 5] = [0, 1, 2, 3, 5];

/// Looks at all entries; gives the upper bound of the guest's data in bytes.
pub(super) fn walk<R: Read + Seek>(
    source: &mut Source<'_, R>,
    regions: &Regions,
    disk: &Disk,
) -> Result<u64, InspectError> {
    let region = regions.block_table;
    let blocks = disk.virtual_size.div_ceil(disk.block_size);
    let chunk = SECTORS_PER_CHUNK * SECTOR_BYTES / disk.block_size;
    let table_bytes = (blocks + (blocks - 1) / chunk) * ENTRY_BYTES;
    if region.length > MAX_REGION_BYTES || table_bytes > region.length {
        return Err(VhdxError::Field { field: "the length of the block table", value: region.length }.into());
    }
    let mut walk = Walk {
        regions,
        disk,
        length: source.length(),
        claims: Claims::new(source.length().div_ceil(MIB)),
        units: DataUnits::new(disk.virtual_size),
    };
    for at in (0..table_bytes).step_by(PIECE_BYTES as usize) {
        let piece = PIECE_BYTES.min(table_bytes - at);
        let entries = source.bytes(Part::BlockMap, region.offset + at, piece)?;
        for (entry, index) in entries.chunks_exact(ENTRY_BYTES as usize).zip(at / ENTRY_BYTES..) {
            let (full_chunks, place) = (index / (chunk + 1), index % (chunk + 1));
            let is_bitmap = place == chunk;
            walk.entry(full_chunks * chunk + place, le64(entry, 0), is_bitmap)?;
        }
    }
    Ok(walk.units.bytes())
}

struct Walk<'a> {
    regions: &'a Regions,
    disk: &'a Disk,
    length: u64,
    claims: Claims,
    units: DataUnits,
}

impl Walk<'_> {
    fn entry(&mut self, block: u64, entry: u64, is_bitmap: bool) -> Result<(), InspectError> {
        let state = entry & STATE;
        let bad = Err(VhdxError::Block { block, entry }.into());
        if entry & RESERVED != 0 || (is_bitmap && state != 0) {
            return bad;
        }
        if is_bitmap || ABSENT.contains(&state) {
            return Ok(());
        }
        if state != FULLY_PRESENT {
            return bad;
        }
        let (offset, size) = (entry & !(RESERVED | STATE), self.disk.block_size);
        let end = offset.saturating_add(size);
        if end > self.length {
            return Err(InspectError::Truncated { part: Part::Block, end, length: self.length });
        }
        if offset < MIB || self.regions.is_taken(offset, end) {
            return bad;
        }
        if !(offset / MIB..end / MIB).all(|unit| self.claims.claim(unit)) {
            return bad;
        }
        let guest = block * size;
        self.units.count(guest, guest + size);
        Ok(())
    }
}

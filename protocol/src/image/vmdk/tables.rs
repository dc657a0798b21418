//! Grain directory and grain tables. All numbers are sectors of the file.
//!
//! Work and memory are bounded: the directory by [`MAX_TABLES`], the tables because no two may overlap and
//! all must lie in the file.

use std::io::{Read, Seek};

use super::VmdkError;
use super::header::{ENTRIES_PER_TABLE, Header};
use crate::image::bytes::le32;
use crate::image::source::Source;
use crate::image::usage::DataUnits;
use crate::image::{InspectError, Part, SECTOR_BYTES};

/// 1 MiB of entries; 8 TiB in the usual grains of 64 KiB.
const MAX_TABLES: u64 = 256 * 1024;
const ENTRY_BYTES: u64 = 4;
const TABLE_BYTES: u64 = ENTRIES_PER_TABLE * ENTRY_BYTES;
const TABLE_SECTORS: u64 = TABLE_BYTES / SECTOR_BYTES;
/// An entry for a grain of zeros, if the header allows them.
const ZERO_GRAIN: u64 = 1;
/// A compressed grain begins with its place on the disk and its length.
const MARKER_BYTES: u64 = 12;

/// Follows every pointer; gives the upper bound of the guest's data in bytes. Nothing lies before `first_free`.
pub(super) fn walk<R: Read + Seek>(
    source: &mut Source<'_, R>,
    header: &Header,
    first_free: u64,
) -> Result<u64, InspectError> {
    let tables = header.virtual_size().div_ceil(header.table_coverage());
    if tables > MAX_TABLES {
        return Err(VmdkError::TooManyTables { tables, max: MAX_TABLES }.into());
    }
    source.require(Part::Header, 0, header.overhead_sectors.saturating_mul(SECTOR_BYTES))?;
    let directory_bytes = tables * ENTRY_BYTES;
    if let Some(copy) = header.redundant_directory() {
        place("the second grain directory", copy, first_free)?;
        source.require(Part::GrainDirectory, copy.saturating_mul(SECTOR_BYTES), directory_bytes)?;
    }
    let directory = header.directory_sector;
    place("the grain directory", directory, first_free)?;
    let entries =
        source.bytes(Part::GrainDirectory, directory.saturating_mul(SECTOR_BYTES), directory_bytes)?;
    let mut found: Vec<(u64, u64)> = entries
        .chunks_exact(ENTRY_BYTES as usize)
        .zip(0..)
        .map(|(entry, index)| (u64::from(le32(entry, 0)), index))
        .filter(|(sector, _)| *sector != 0)
        .collect();
    // In the order of the file, so that reading them all reads the file once at most.
    found.sort_unstable();
    if let Some(pair) = found.windows(2).find(|pair| pair[1].0 - pair[0].0 < TABLE_SECTORS) {
        return Err(VmdkError::SharedTable { sector: pair[1].0 }.into());
    }
    let directory_end = directory + directory_bytes.div_ceil(SECTOR_BYTES);
    let mut walk = Walk {
        header,
        length: source.length(),
        first_free,
        grains: 0,
        units: DataUnits::new(header.virtual_size()),
    };
    for (sector, index) in found {
        place("a grain table", sector, first_free)?;
        if sector < directory_end && sector + TABLE_SECTORS > directory {
            return Err(VmdkError::Misplaced { part: "a grain table", sector }.into());
        }
        let table = source.bytes(Part::GrainTable, sector * SECTOR_BYTES, TABLE_BYTES)?;
        walk.table(index * header.table_coverage(), table)?;
    }
    walk.end()
}

fn place(part: &'static str, sector: u64, first_free: u64) -> Result<(), VmdkError> {
    if sector < first_free { Err(VmdkError::Misplaced { part, sector }) } else { Ok(()) }
}

struct Walk<'a> {
    header: &'a Header,
    length: u64,
    first_free: u64,
    /// Grains seen.
    grains: u64,
    units: DataUnits,
}

impl Walk<'_> {
    fn table(&mut self, guest_start: u64, table: &[u8]) -> Result<(), InspectError> {
        let (grain, size) = (self.header.grain_bytes(), self.header.virtual_size());
        self.units.next_table();
        for (entry, index) in table.chunks_exact(ENTRY_BYTES as usize).zip(0..) {
            let (sector, guest) = (u64::from(le32(entry, 0)), guest_start + index * grain);
            let nothing = sector == 0 || (sector == ZERO_GRAIN && self.header.has_zero_grains());
            if nothing || guest >= size {
                continue;
            }
            place("a grain", sector, self.first_free)?;
            // The stream of a compressed grain says itself how long it is.
            let least = if self.header.compressed() { MARKER_BYTES + 1 } else { grain.min(size - guest) };
            let (end, length) = (sector * SECTOR_BYTES + least, self.length);
            if end > length {
                return Err(InspectError::Truncated { part: Part::Grain, end, length });
            }
            self.grains += 1;
            self.units.count(guest, guest + grain);
        }
        Ok(())
    }

    fn end(self) -> Result<u64, InspectError> {
        // Each grain that is not compressed is mapped once.
        if !self.header.compressed() && self.grains > self.length.div_ceil(self.header.grain_bytes()) {
            return Err(VmdkError::Overcommitted { claimed: self.grains, length: self.length }.into());
        }
        Ok(self.units.bytes())
    }
}

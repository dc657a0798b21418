//! The header of a sparse extent (`SparseExtentHeader` of the specification). The footer has the same form.

use super::VmdkError;
use crate::image::bytes::{le16, le32, le64};
use crate::image::{InspectError, MAX_VIRTUAL_SIZE_BYTES, SECTOR_BYTES};

pub(super) const MAGIC: &[u8] = b"KDMV";
/// Instead of a place: the directory is where the footer says.
pub(super) const DIRECTORY_AT_END: u64 = u64::MAX;

mod flags {
    pub(super) const LINE_END_TEST: u32 = 1 << 0;
    pub(super) const REDUNDANT_DIRECTORY: u32 = 1 << 1;
    pub(super) const ZERO_GRAINS: u32 = 1 << 2;
    pub(super) const COMPRESSED: u32 = 1 << 16;
    pub(super) const MARKERS: u32 = 1 << 17;
    pub(super) const KNOWN: u32 = LINE_END_TEST | REDUNDANT_DIRECTORY | ZERO_GRAINS | COMPRESSED | MARKERS;
}

const DEFLATE: u16 = 1;
const LINE_ENDS: &[u8] = b"\n \r\n";
/// 4 KiB is the specification's least. The most is ours: the converter unpacks a grain in memory.
const GRAIN_SECTORS: std::ops::RangeInclusive<u64> = 8..=2048;
/// Fixed by the specification.
pub(super) const ENTRIES_PER_TABLE: u64 = 512;

/// A header whose every field has been checked, apart from where the parts lie.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    version: u32,
    flags: u32,
    pub(super) capacity_sectors: u64,
    pub(super) grain_sectors: u64,
    pub(super) directory_sector: u64,
    redundant_sector: u64,
    /// Sectors of metadata at the front, all of which are in the file.
    pub(super) overhead_sectors: u64,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, InspectError> {
        let (version, flags) = (le32(bytes, 4), le32(bytes, 8));
        if !(1..=3).contains(&version) {
            return Err(VmdkError::Version(version).into());
        }
        let (compressed, markers) = (flags & flags::COMPRESSED != 0, flags & flags::MARKERS != 0);
        if flags & !flags::KNOWN != 0 || compressed != markers {
            return Err(VmdkError::Flags(flags).into());
        }
        if flags & flags::LINE_END_TEST != 0 && &bytes[73..77] != LINE_ENDS {
            return Err(VmdkError::LineEnds.into());
        }
        if bytes[72] != 0 {
            return Err(VmdkError::Dirty.into());
        }
        let compression = le16(bytes, 77);
        if compression != if compressed { DEFLATE } else { 0 } {
            return Err(VmdkError::Compression(compression).into());
        }
        let header = Self {
            version,
            flags,
            capacity_sectors: le64(bytes, 12),
            grain_sectors: le64(bytes, 20),
            directory_sector: le64(bytes, 56),
            redundant_sector: le64(bytes, 48),
            overhead_sectors: le64(bytes, 64),
        };
        header.check_sizes(le32(bytes, 44))?;
        Ok(header)
    }

    fn check_sizes(&self, entries_per_table: u32) -> Result<(), InspectError> {
        let field = |field, value| Err(VmdkError::Field { field, value }.into());
        if self.capacity_sectors == 0 {
            return field("capacity", 0);
        }
        if self.capacity_sectors > MAX_VIRTUAL_SIZE_BYTES / SECTOR_BYTES {
            return Err(InspectError::TooLarge { size: self.capacity_sectors.saturating_mul(SECTOR_BYTES) });
        }
        if !self.grain_sectors.is_power_of_two() || !GRAIN_SECTORS.contains(&self.grain_sectors) {
            return field("grain_size", self.grain_sectors);
        }
        if u64::from(entries_per_table) != ENTRIES_PER_TABLE {
            return field("entries_per_grain_table", entries_per_table.into());
        }
        Ok(())
    }

    pub(super) const fn virtual_size(&self) -> u64 {
        self.capacity_sectors * SECTOR_BYTES
    }

    pub(super) const fn grain_bytes(&self) -> u64 {
        self.grain_sectors * SECTOR_BYTES
    }

    /// Guest bytes that one grain table maps.
    pub(super) const fn table_coverage(&self) -> u64 {
        self.grain_bytes() * ENTRIES_PER_TABLE
    }

    pub(super) const fn compressed(&self) -> bool {
        self.flags & flags::COMPRESSED != 0
    }

    pub(super) const fn has_zero_grains(&self) -> bool {
        self.flags & flags::ZERO_GRAINS != 0
    }

    /// The copy of the grain directory.
    pub(super) fn redundant_directory(&self) -> Option<u64> {
        (self.flags & flags::REDUNDANT_DIRECTORY != 0).then_some(self.redundant_sector)
    }

    /// Whether the footer describes the disk that the header describes.
    pub(super) fn agrees_with(&self, footer: &Self) -> bool {
        (self.version, self.flags, self.capacity_sectors, self.grain_sectors)
            == (footer.version, footer.flags, footer.capacity_sectors, footer.grain_sectors)
    }
}

//! VDI of VirtualBox, version 1.1, as QEMU reads it (`block/vdi.c`): a header, a map with a number for each
//! block of 1 MiB of the disk, and the blocks. Numbers are little-endian.

mod error;

use std::io::{Read, Seek};

pub use error::VdiError;

use super::bytes::{le32, le64};
use super::source::Source;
use super::usage::{Claims, DataUnits};
use super::{Format, ImageInfo, InspectError, MAX_VIRTUAL_SIZE_BYTES, Part, SECTOR_BYTES};
use crate::{KIB, MIB};

const VERSION: u32 = 0x0001_0001;
const DYNAMIC: u32 = 1;
const STATIC: u32 = 2;
/// "Zero-expand", as old and new versions of VirtualBox write it: how to fill a new block.
const KNOWN_FLAGS: u32 = 0x0101;
/// From the size of the header on; that of QEMU and that of VirtualBox are in between.
const HEADER_SIZE: std::ops::RangeInclusive<u32> = 0x180..=0x1b8;
/// The only size that QEMU reads.
const BLOCK_BYTES: u64 = MIB;
const ENTRY_BYTES: u64 = 4;
/// How much of the map is looked at at a time.
const MAP_PIECE_BYTES: u64 = 64 * KIB;
/// Blocks that were never written, or given back; both are zeros.
const NO_BLOCK: std::ops::RangeInclusive<u32> = 0xffff_fffe..=0xffff_ffff;

struct Header {
    map_offset: u64,
    data_offset: u64,
    virtual_size: u64,
    blocks: u64,
}

pub(super) fn inspect<R: Read + Seek>(source: &mut Source<'_, R>) -> Result<ImageInfo, InspectError> {
    let header = Header::parse(source.bytes(Part::Header, 0, SECTOR_BYTES)?)?;
    let data_bytes = header.walk(source)?;
    Ok(ImageInfo { format: Format::Vdi, virtual_size_bytes: header.virtual_size, data_bytes })
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, InspectError> {
        let (version, kind, flags) = (le32(bytes, 68), le32(bytes, 76), le32(bytes, 80));
        if version != VERSION {
            return Err(VdiError::Version(version).into());
        }
        if !matches!(kind, DYNAMIC | STATIC) {
            return Err(VdiError::Type(kind).into());
        }
        // The links to another disk, for writing and for reading.
        if bytes[424..456].iter().any(|byte| *byte != 0) {
            return Err(VdiError::Parent.into());
        }
        if flags & !KNOWN_FLAGS != 0 {
            return Err(VdiError::Flags(flags).into());
        }
        let field = |field, value| Err(VdiError::Field { field, value }.into());
        for (name, at, expected) in
            [("sector_size", 360, SECTOR_BYTES), ("block_size", 376, BLOCK_BYTES), ("block_extra", 380, 0)]
        {
            let value = le32(bytes, at).into();
            if value != expected {
                return field(name, value);
            }
        }
        let header_size = le32(bytes, 72);
        if !HEADER_SIZE.contains(&header_size) {
            return field("header_size", header_size.into());
        }
        let virtual_size = le64(bytes, 368);
        if virtual_size == 0 || !virtual_size.is_multiple_of(SECTOR_BYTES) {
            return Err(InspectError::VirtualSize { size: virtual_size });
        }
        if virtual_size > MAX_VIRTUAL_SIZE_BYTES {
            return Err(InspectError::TooLarge { size: virtual_size });
        }
        let (blocks, allocated) = (le32(bytes, 384).into(), le32(bytes, 388).into());
        if blocks != virtual_size.div_ceil(BLOCK_BYTES) {
            return field("blocks_in_image", blocks);
        }
        if allocated > blocks {
            return field("blocks_allocated", allocated);
        }
        let (map_offset, data_offset) = (u64::from(le32(bytes, 340)), u64::from(le32(bytes, 344)));
        if map_offset < SECTOR_BYTES || !map_offset.is_multiple_of(SECTOR_BYTES) {
            return field("offset_blocks", map_offset);
        }
        if data_offset < map_offset + blocks * ENTRY_BYTES || !data_offset.is_multiple_of(SECTOR_BYTES) {
            return field("offset_data", data_offset);
        }
        Ok(Self { map_offset, data_offset, virtual_size, blocks })
    }

    /// Looks at the whole map; gives the upper bound of the guest's data in bytes.
    fn walk<R: Read + Seek>(&self, source: &mut Source<'_, R>) -> Result<u64, InspectError> {
        let map_bytes = self.blocks * ENTRY_BYTES;
        source.require(Part::BlockMap, self.map_offset, map_bytes)?;
        let length = source.length();
        let mut claims = Claims::new(length.saturating_sub(self.data_offset).div_ceil(BLOCK_BYTES));
        let mut units = DataUnits::new(self.virtual_size);
        for at in (0..map_bytes).step_by(MAP_PIECE_BYTES as usize) {
            let piece = MAP_PIECE_BYTES.min(map_bytes - at);
            let entries = source.bytes(Part::BlockMap, self.map_offset + at, piece)?;
            for (entry, block) in entries.chunks_exact(ENTRY_BYTES as usize).zip(at / ENTRY_BYTES..) {
                let place = le32(entry, 0);
                if NO_BLOCK.contains(&place) {
                    continue;
                }
                let guest = block * BLOCK_BYTES;
                let used = BLOCK_BYTES.min(self.virtual_size - guest);
                let end = self.data_offset + u64::from(place) * BLOCK_BYTES + used;
                if end > length {
                    return Err(InspectError::Truncated { part: Part::Block, end, length });
                }
                if !claims.claim(place.into()) {
                    return Err(VdiError::Block { block, place }.into());
                }
                units.count(guest, guest + used);
            }
        }
        Ok(units.bytes())
    }
}

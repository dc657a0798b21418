//! The smallest honest VDI: 10 MiB with one block of data.

use super::Image;
use crate::MIB;
use crate::image::SECTOR_BYTES;

pub(in crate::image) const MAP: u64 = SECTOR_BYTES;
pub(in crate::image) const DATA: u64 = 2 * SECTOR_BYTES;
pub(in crate::image) const BLOCKS: u32 = 10;

/// Places of the header's fields.
pub(in crate::image) mod field {
    pub(in crate::image) const SIGNATURE: u64 = 64;
    pub(in crate::image) const VERSION: u64 = 68;
    pub(in crate::image) const HEADER_SIZE: u64 = 72;
    pub(in crate::image) const TYPE: u64 = 76;
    pub(in crate::image) const FLAGS: u64 = 80;
    pub(in crate::image) const MAP_OFFSET: u64 = 340;
    pub(in crate::image) const DATA_OFFSET: u64 = 344;
    pub(in crate::image) const SECTOR_SIZE: u64 = 360;
    pub(in crate::image) const DISK_SIZE: u64 = 368;
    pub(in crate::image) const BLOCK_SIZE: u64 = 376;
    pub(in crate::image) const BLOCK_EXTRA: u64 = 380;
    pub(in crate::image) const BLOCKS: u64 = 384;
    pub(in crate::image) const ALLOCATED: u64 = 388;
    pub(in crate::image) const LINK: u64 = 424;
    pub(in crate::image) const PARENT: u64 = 440;
}

pub(in crate::image) fn dynamic() -> Image {
    let mut image = Image::zeros(DATA + MIB)
        .put(0, b"<<< Oracle VM VirtualBox Disk Image >>>\n")
        .u32(field::SIGNATURE, 0xbeda_107f)
        .u32(field::VERSION, 0x0001_0001)
        .u32(field::HEADER_SIZE, 400)
        .u32(field::TYPE, 1)
        .u32(field::MAP_OFFSET, MAP as u32)
        .u32(field::DATA_OFFSET, DATA as u32)
        .u32(field::SECTOR_SIZE, SECTOR_BYTES as u32)
        .u64(field::DISK_SIZE, u64::from(BLOCKS) * MIB)
        .u32(field::BLOCK_SIZE, MIB as u32)
        .u32(field::BLOCKS, BLOCKS)
        .u32(field::ALLOCATED, 1);
    for block in 1..BLOCKS.into() {
        image = image.u32(MAP + 4 * block, u32::MAX);
    }
    image.bytes[DATA as usize..].fill(7);
    image
}

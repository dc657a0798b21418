//! VDI: parents, unknown kinds, maps that lie.

use super::builder::vdi::{BLOCKS, DATA, MAP, dynamic, field};
use super::{Case, Format};
use crate::MIB;

const HEADER: &str = "vdi_header_invalid";
const TRUNCATED: &str = "image_truncated";

const fn refused(name: &'static str, code: &'static str, make: fn(&str) -> Vec<u8>) -> Case {
    Case::refused(name, Format::Vdi, code, make)
}

pub(super) const CASES: &[Case] = &[
    refused("vdi: a parent", "vdi_parent", |_| dynamic().put(field::PARENT, &[1; 16]).bytes),
    refused("vdi: a link", "vdi_parent", |_| dynamic().put(field::LINK, &[1; 16]).bytes),
    refused("vdi: a difference", "vdi_type_unsupported", |_| dynamic().u32(field::TYPE, 4).bytes),
    refused("vdi: an undo file", "vdi_type_unsupported", |_| dynamic().u32(field::TYPE, 3).bytes),
    refused("vdi: an unknown type", "vdi_type_unsupported", |_| dynamic().u32(field::TYPE, u32::MAX).bytes),
    refused("vdi: version 0.1", "vdi_version_unsupported", |_| dynamic().u32(field::VERSION, 1).bytes),
    refused("vdi: unknown flags", "vdi_unknown_flags", |_| dynamic().u32(field::FLAGS, 0x10).bytes),
    refused("vdi: a header of no bytes", HEADER, |_| dynamic().u32(field::HEADER_SIZE, 0).bytes),
    refused("vdi: a header of 4 GiB", HEADER, |_| dynamic().u32(field::HEADER_SIZE, u32::MAX).bytes),
    refused("vdi: sectors of no bytes", HEADER, |_| dynamic().u32(field::SECTOR_SIZE, 0).bytes),
    refused("vdi: blocks of no bytes", HEADER, |_| dynamic().u32(field::BLOCK_SIZE, 0).bytes),
    refused("vdi: blocks of 4 GiB", HEADER, |_| dynamic().u32(field::BLOCK_SIZE, u32::MAX).bytes),
    refused("vdi: more in each block", HEADER, |_| dynamic().u32(field::BLOCK_EXTRA, 512).bytes),
    refused("vdi: four billion blocks", HEADER, |_| dynamic().u32(field::BLOCKS, u32::MAX).bytes),
    refused("vdi: fewer blocks than disk", HEADER, |_| dynamic().u32(field::BLOCKS, BLOCKS - 1).bytes),
    refused("vdi: more blocks in use than there are", HEADER, |_| {
        dynamic().u32(field::ALLOCATED, BLOCKS + 1).bytes
    }),
    refused("vdi: a disk of 2^63 bytes", "image_too_large", |_| {
        dynamic().u64(field::DISK_SIZE, 1 << 63).bytes
    }),
    refused("vdi: a disk of no bytes", "image_virtual_size_invalid", |_| {
        dynamic().u64(field::DISK_SIZE, 0).bytes
    }),
    refused("vdi: a disk of half a sector", "image_virtual_size_invalid", |_| {
        dynamic().u64(field::DISK_SIZE, 10 * MIB - 256).bytes
    }),
    refused("vdi: 16 TiB in a short file", TRUNCATED, |_| {
        dynamic()
            .u64(field::DISK_SIZE, 1 << 44)
            .u32(field::BLOCKS, 1 << 24)
            .u32(field::DATA_OFFSET, 1 << 27)
            .bytes
    }),
    refused("vdi: the map in the header", HEADER, |_| dynamic().u32(field::MAP_OFFSET, 0).bytes),
    refused("vdi: the map between sectors", HEADER, |_| dynamic().u32(field::MAP_OFFSET, 513).bytes),
    refused("vdi: the map behind the data", HEADER, |_| {
        dynamic().u32(field::MAP_OFFSET, u32::MAX - 511).bytes
    }),
    refused("vdi: the data is the map", HEADER, |_| dynamic().u32(field::DATA_OFFSET, MAP as u32).bytes),
    refused("vdi: the data is the header", HEADER, |_| dynamic().u32(field::DATA_OFFSET, 0).bytes),
    refused("vdi: the data beyond the end", TRUNCATED, |_| {
        dynamic().u32(field::DATA_OFFSET, u32::MAX - 511).bytes
    }),
    refused("vdi: a block twice", "vdi_blocks_invalid", |_| dynamic().u32(MAP + 4, 0).bytes),
    refused("vdi: a block beyond the end", TRUNCATED, |_| dynamic().u32(MAP + 4, 1).bytes),
    refused("vdi: a block very far beyond the end", TRUNCATED, |_| dynamic().u32(MAP + 4, 0xffff_fffd).bytes),
    refused("vdi: cut in its header", TRUNCATED, |_| dynamic().cut(400)),
    refused("vdi: cut in its map", TRUNCATED, |_| dynamic().cut(MAP + 6)),
    refused("vdi: cut in its data", TRUNCATED, |_| dynamic().cut(DATA + MIB - 1)),
    Case::contained("vdi: a word in the place of a name", Format::Vdi, |target| {
        dynamic().put(84, target.as_bytes()).bytes
    }),
];

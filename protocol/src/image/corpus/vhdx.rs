//! VHDX: parents, checksums, regions and blocks that lie.

use super::builder::vhdx::{
    BLOCK_TABLE, DATA, HEADERS, LOG, LOGICAL_SECTOR, METADATA, PARAMETERS, PARENT_LOCATOR, PHYSICAL_SECTOR,
    PRESENT, REGION_TABLES, VIRTUAL_SIZE, dynamic, headers, item, region, seal, tables, unsealed,
};
use super::{Case, Format, Image};
use crate::{KIB, MIB};

const HEADER: &str = "vhdx_header_invalid";
const CHECKSUM: &str = "vhdx_checksum_wrong";
const BLOCKS: &str = "vhdx_blocks_invalid";
const OVERLAP: &str = "vhdx_regions_overlap";
const TRUNCATED: &str = "image_truncated";
const UNKNOWN: &[u8; 16] = b"an unknown thing";

/// With right checksums, whatever `spoil` has done.
fn spoiled(spoil: impl FnOnce(Image) -> Image) -> Vec<u8> {
    seal(spoil(unsealed())).bytes
}

/// The entry `index` of both region tables, of which there are `count`.
fn regions(count: u32, index: u64, id: &[u8; 16], offset: u64, length: u32) -> Vec<u8> {
    spoiled(|image| {
        tables(image, |image, at| region(image.u32(at + 8, count), at, index, id, offset, length))
    })
}

/// The offset, or length, of the block table.
fn block_table(offset: u64, length: u64) -> Vec<u8> {
    spoiled(|image| {
        tables(image, |image, at| image.u64(at + 16 + 16, offset).u32(at + 16 + 24, length as u32))
    })
}

fn log(offset: u64, length: u64) -> Vec<u8> {
    spoiled(|image| headers(image, |image, at| image.u32(at + 68, length as u32).u64(at + 72, offset)))
}

/// One item more.
fn sixth_item(id: &[u8; 16], length: u32, text: &[u8]) -> Vec<u8> {
    spoiled(|image| {
        item(image, 5, id, 128 * KIB as u32, length).u16(METADATA + 10, 6).put(METADATA + 128 * KIB, text)
    })
}

fn parent_locator(target: &str) -> Vec<u8> {
    let text: Vec<u8> = target.encode_utf16().flat_map(u16::to_le_bytes).collect();
    sixth_item(PARENT_LOCATOR, text.len() as u32, &text)
}

fn entry(index: u64, entry: u64) -> Vec<u8> {
    spoiled(|image| image.u64(BLOCK_TABLE + 8 * index, entry))
}

const fn refused(name: &'static str, code: &'static str, make: fn(&str) -> Vec<u8>) -> Case {
    Case::refused(name, Format::Vhdx, code, make)
}

pub(super) const CASES: &[Case] = &[
    refused("vhdx: the checksum of the first header", CHECKSUM, |_| dynamic().u32(HEADERS[0] + 4, 1).bytes),
    refused("vhdx: the checksum of the second header", CHECKSUM, |_| dynamic().u32(HEADERS[1] + 4, 1).bytes),
    refused("vhdx: the checksum of the region tables", CHECKSUM, |_| {
        tables(dynamic(), |image, at| image.u32(at + 4, 1)).bytes
    }),
    refused("vhdx: a changed byte of a header", CHECKSUM, |_| dynamic().put(HEADERS[1] + 4095, &[1]).bytes),
    refused("vhdx: two region tables that differ", HEADER, |_| {
        spoiled(|image| image.u64(REGION_TABLES[1] + 32, LOG))
    }),
    refused("vhdx: two headers in force", HEADER, |_| {
        spoiled(|image| image.u64(HEADERS[0] + 8, 2).u64(HEADERS[0] + 72, 0))
    }),
    refused("vhdx: a header of another file", HEADER, |_| spoiled(|image| image.put(HEADERS[0], b"tail"))),
    refused("vhdx: version 2", "vhdx_version_unsupported", |_| {
        spoiled(|image| headers(image, |image, at| image.u16(at + 66, 2)))
    }),
    refused("vhdx: a log that waits", "vhdx_dirty", |_| {
        spoiled(|image| {
            headers(image, |image, at| image.put(at + 48, UNKNOWN)).put(LOG, b"loge").put(LOG + 32, UNKNOWN)
        })
    }),
    refused("vhdx: a log of another version", HEADER, |_| {
        spoiled(|image| headers(image, |image, at| image.u16(at + 64, 1)))
    }),
    refused("vhdx: the log in the front", HEADER, |_| log(0, MIB)),
    refused("vhdx: the log beyond the end", TRUNCATED, |_| log(1 << 62, MIB)),
    refused("vhdx: a log of 4 GiB", TRUNCATED, |_| log(LOG, 0xfff0_0000)),
    refused("vhdx: the log over the block table", OVERLAP, |_| log(LOG, 2 * MIB)),
    refused("vhdx: an unknown region that is required", "vhdx_unknown_region", |_| {
        regions(3, 2, UNKNOWN, DATA, MIB as u32)
    }),
    refused("vhdx: four billion regions", HEADER, |_| {
        spoiled(|image| tables(image, |image, at| image.u32(at + 8, u32::MAX)))
    }),
    refused("vhdx: one region", HEADER, |_| spoiled(|image| tables(image, |image, at| image.u32(at + 8, 1)))),
    refused("vhdx: the block table twice", HEADER, |_| {
        spoiled(|image| {
            tables(image, |image, at| {
                let id: Vec<u8> = image.bytes[at as usize + 16..at as usize + 32].to_vec();
                region(image.u32(at + 8, 3), at, 2, UNKNOWN, DATA, MIB as u32).put(at + 16 + 64, &id)
            })
        })
    }),
    refused("vhdx: the block table over the metadata", OVERLAP, |_| block_table(BLOCK_TABLE, 2 * MIB)),
    refused("vhdx: the block table is the metadata", OVERLAP, |_| block_table(METADATA, MIB)),
    refused("vhdx: the block table in the front", HEADER, |_| block_table(0, MIB)),
    refused("vhdx: the block table between units", HEADER, |_| block_table(BLOCK_TABLE + 512, MIB)),
    refused("vhdx: a block table of no bytes", HEADER, |_| block_table(BLOCK_TABLE, 0)),
    refused("vhdx: the block table at the end of all numbers", TRUNCATED, |_| {
        block_table(u64::MAX - (MIB - 1), MIB)
    }),
    refused("vhdx: a block table of 4 GiB", TRUNCATED, |_| block_table(BLOCK_TABLE, 0xfff0_0000)),
    refused("vhdx: a parent locator that names a file", "vhdx_parent", parent_locator),
    refused("vhdx: a parent without a locator", "vhdx_parent", |_| {
        spoiled(|image| image.u32(PARAMETERS + 4, 2))
    }),
    refused("vhdx: unknown parameters", HEADER, |_| spoiled(|image| image.u32(PARAMETERS + 4, 1 << 31))),
    refused("vhdx: unknown metadata that is required", "vhdx_unknown_metadata", |_| {
        sixth_item(UNKNOWN, 8, &[1; 8])
    }),
    refused("vhdx: 65535 metadata items", HEADER, |_| spoiled(|image| image.u16(METADATA + 10, u16::MAX))),
    refused("vhdx: four metadata items", HEADER, |_| spoiled(|image| image.u16(METADATA + 10, 4))),
    refused("vhdx: metadata of another file", HEADER, |_| spoiled(|image| image.put(METADATA, b"atadatem"))),
    refused("vhdx: a metadata item in the table", HEADER, |_| {
        spoiled(|image| image.u32(METADATA + 32 + 16, 0))
    }),
    refused("vhdx: a metadata item outside of its region", HEADER, |_| {
        spoiled(|image| image.u32(METADATA + 32 + 16, u32::MAX - 3))
    }),
    refused("vhdx: a metadata item of 4 GiB", HEADER, |_| {
        spoiled(|image| image.u32(METADATA + 32 + 20, u32::MAX))
    }),
    refused("vhdx: a metadata item twice", HEADER, |_| {
        spoiled(|image| {
            let first = image.bytes[METADATA as usize + 32..METADATA as usize + 64].to_vec();
            image.u16(METADATA + 10, 6).put(METADATA + 32 + 5 * 32, &first)
        })
    }),
    refused("vhdx: blocks of no bytes", HEADER, |_| spoiled(|image| image.u32(PARAMETERS, 0))),
    refused("vhdx: blocks of 3 MiB", HEADER, |_| spoiled(|image| image.u32(PARAMETERS, 3 * MIB as u32))),
    refused("vhdx: blocks of 2 GiB", HEADER, |_| spoiled(|image| image.u32(PARAMETERS, 1 << 31))),
    refused("vhdx: sectors of no bytes", "vhdx_sector_size_unsupported", |_| {
        spoiled(|image| image.u32(LOGICAL_SECTOR, 0))
    }),
    refused("vhdx: sectors of 4096 bytes", "vhdx_sector_size_unsupported", |_| {
        spoiled(|image| image.u32(LOGICAL_SECTOR, 4096))
    }),
    refused("vhdx: physical sectors of one byte", HEADER, |_| spoiled(|image| image.u32(PHYSICAL_SECTOR, 1))),
    refused("vhdx: a disk of 2^63 bytes", "image_too_large", |_| {
        spoiled(|image| image.u64(VIRTUAL_SIZE, 1 << 63))
    }),
    refused("vhdx: a disk of no bytes", "image_virtual_size_invalid", |_| {
        spoiled(|image| image.u64(VIRTUAL_SIZE, 0))
    }),
    refused("vhdx: a disk larger than its block table", HEADER, |_| {
        spoiled(|image| image.u64(VIRTUAL_SIZE, 1 << 44))
    }),
    refused("vhdx: a block in the front", BLOCKS, |_| entry(0, PRESENT)),
    refused("vhdx: a block that is the block table", BLOCKS, |_| entry(1, BLOCK_TABLE | PRESENT)),
    refused("vhdx: a block that is the log", BLOCKS, |_| entry(1, LOG | PRESENT)),
    refused("vhdx: a block twice", BLOCKS, |_| entry(1, DATA | PRESENT)),
    refused("vhdx: a block beyond the end", TRUNCATED, |_| entry(1, (DATA + MIB) | PRESENT)),
    refused("vhdx: a block at the end of all numbers", TRUNCATED, |_| {
        entry(1, 0xffff_ffff_fff0_0000 | PRESENT)
    }),
    refused("vhdx: a block that is partly the parent's", BLOCKS, |_| entry(0, DATA | 7)),
    refused("vhdx: a block in an unknown state", BLOCKS, |_| entry(0, DATA | 4)),
    refused("vhdx: a block with reserved bits", BLOCKS, |_| entry(0, DATA | PRESENT | (1 << 19))),
    refused("vhdx: a bitmap of a parent", BLOCKS, |_| {
        // Blocks of 256 MiB make chunks of 16.
        spoiled(|image| {
            image
                .u32(PARAMETERS, 256 * MIB as u32)
                .u64(VIRTUAL_SIZE, 17 * 256 * MIB)
                .u64(BLOCK_TABLE, 0)
                .u64(BLOCK_TABLE + 8 * 16, DATA | PRESENT)
        })
    }),
    refused("vhdx: cut in its first header", TRUNCATED, |_| dynamic().cut(HEADERS[0] + 80)),
    refused("vhdx: cut in its region table", TRUNCATED, |_| dynamic().cut(REGION_TABLES[0] + 80)),
    refused("vhdx: cut in its log", TRUNCATED, |_| dynamic().cut(LOG + 4096)),
    refused("vhdx: cut in its block table", TRUNCATED, |_| dynamic().cut(BLOCK_TABLE + 4096)),
    refused("vhdx: cut in its metadata", TRUNCATED, |_| dynamic().cut(METADATA + 4096)),
    refused("vhdx: cut in its data", TRUNCATED, |_| dynamic().cut(DATA + 4096)),
    Case::contained("vhdx: a parent locator that is no metadata", Format::Vhdx, |target| {
        spoiled(|image| image.put(8, target.as_bytes()).put(METADATA + 128 * KIB, target.as_bytes()))
    }),
];

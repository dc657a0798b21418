//! The smallest honest VHDX: 10 MiB with one block of data. By MiB: front, log, block table, metadata, data.

pub(in crate::image) use super::Image;
use crate::{KIB, MIB};

pub(in crate::image) const HEADERS: [u64; 2] = [64 * KIB, 128 * KIB];
pub(in crate::image) const REGION_TABLES: [u64; 2] = [192 * KIB, 256 * KIB];
pub(in crate::image) const LOG: u64 = MIB;
pub(in crate::image) const BLOCK_TABLE: u64 = 2 * MIB;
pub(in crate::image) const METADATA: u64 = 3 * MIB;
pub(in crate::image) const DATA: u64 = 4 * MIB;
pub(in crate::image) const PRESENT: u64 = 6;

/// Where the items are; they follow the metadata's table.
pub(in crate::image) const PARAMETERS: u64 = METADATA + 64 * KIB;
pub(in crate::image) const VIRTUAL_SIZE: u64 = PARAMETERS + 8;
pub(in crate::image) const LOGICAL_SECTOR: u64 = PARAMETERS + 32;
pub(in crate::image) const PHYSICAL_SECTOR: u64 = PARAMETERS + 36;

const REGIONS: [(&[u8; 16], u64); 2] = [
    (b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08", BLOCK_TABLE),
    (b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e", METADATA),
];
const ITEMS: [(&[u8; 16], u64, u32); 5] = [
    (b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b", PARAMETERS, 8),
    (b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8", VIRTUAL_SIZE, 8),
    (b"\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46", PARAMETERS + 16, 16),
    (b"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f", LOGICAL_SECTOR, 4),
    (b"\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56", PHYSICAL_SECTOR, 4),
];
pub(in crate::image) const PARENT_LOCATOR: &[u8; 16] =
    b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";

/// Before the checksums are right: spoil it, then [`seal`] it.
pub(in crate::image) fn unsealed() -> Image {
    let mut image = Image::zeros(DATA + MIB).put(0, b"vhdxfile");
    for (at, sequence) in HEADERS.into_iter().zip(1..) {
        image = image
            .put(at, b"head")
            .u64(at + 8, sequence)
            .u16(at + 66, 1)
            .u32(at + 68, MIB as u32)
            .u64(at + 72, LOG);
    }
    image =
        tables(image, |image, at| {
            REGIONS.iter().zip(0..).fold(
                image.put(at, b"regi").u32(at + 8, REGIONS.len() as u32),
                |image, ((id, offset), index)| region(image, at, index, id, *offset, MIB as u32),
            )
        });
    image = image.put(METADATA, b"metadata").u16(METADATA + 10, ITEMS.len() as u16);
    for ((id, at, length), index) in ITEMS.iter().zip(0..) {
        image = item(image, index, id, (at - METADATA) as u32, *length);
    }
    image = image
        .u32(PARAMETERS, MIB as u32)
        .u64(VIRTUAL_SIZE, 10 * MIB)
        .u32(LOGICAL_SECTOR, 512)
        .u32(PHYSICAL_SECTOR, 4096)
        .u64(BLOCK_TABLE, DATA | PRESENT);
    image.bytes[DATA as usize..].fill(7);
    image
}

pub(in crate::image) fn dynamic() -> Image {
    seal(unsealed())
}

/// Both region tables.
pub(in crate::image) fn tables(image: Image, change: impl Fn(Image, u64) -> Image) -> Image {
    REGION_TABLES.into_iter().fold(image, change)
}

/// Both headers.
pub(in crate::image) fn headers(image: Image, change: impl Fn(Image, u64) -> Image) -> Image {
    HEADERS.into_iter().fold(image, change)
}

/// The entry `index` of the region table at `table`.
pub(in crate::image) fn region(
    image: Image,
    table: u64,
    index: u64,
    id: &[u8; 16],
    offset: u64,
    length: u32,
) -> Image {
    let at = table + 16 + 32 * index;
    image.put(at, id).u64(at + 16, offset).u32(at + 24, length).u32(at + 28, 1)
}

/// The entry `index` of the metadata table; required, and of the virtual disk.
pub(in crate::image) fn item(image: Image, index: u64, id: &[u8; 16], offset: u32, length: u32) -> Image {
    let at = METADATA + 32 + 32 * index;
    image.put(at, id).u32(at + 16, offset).u32(at + 20, length).u32(at + 24, 6)
}

/// Makes all checksums right.
pub(in crate::image) fn seal(mut image: Image) -> Image {
    for (at, length) in
        HEADERS.map(|at| (at, 4 * KIB)).into_iter().chain(REGION_TABLES.map(|at| (at, 64 * KIB)))
    {
        image = image.u32(at + 4, 0);
        let sum = castagnoli(&image.bytes[at as usize..(at + length) as usize]);
        image = image.u32(at + 4, sum);
    }
    image
}

/// CRC-32C of all values of a byte, bit by bit, so that the parser's is not compared with itself.
const CASTAGNOLI: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn castagnoli(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| (crc >> 8) ^ CASTAGNOLI[(crc as u8 ^ byte) as usize])
}

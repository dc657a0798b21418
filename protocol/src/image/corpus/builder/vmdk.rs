//! The smallest honest VMDKs: 10 MiB with one grain of data.

use super::Image;
use crate::image::SECTOR_BYTES;
use crate::{KIB, MIB};

pub(in crate::image) const DESCRIPTOR: u64 = SECTOR_BYTES;
pub(in crate::image) const DESCRIPTOR_BYTES: u64 = 20 * SECTOR_BYTES;
/// Places in sectors.
pub(in crate::image) const DIRECTORY: u32 = 21;
pub(in crate::image) const TABLE: u32 = 22;
pub(in crate::image) const GRAIN: u32 = 128;
pub(in crate::image) const GRAIN_BYTES: u64 = 64 * KIB;
/// Places in bytes.
pub(in crate::image) const DIRECTORY_AT: u64 = DIRECTORY as u64 * SECTOR_BYTES;
pub(in crate::image) const TABLE_AT: u64 = TABLE as u64 * SECTOR_BYTES;
pub(in crate::image) const GRAIN_AT: u64 = GRAIN as u64 * SECTOR_BYTES;
pub(in crate::image) const SECTORS: u64 = 10 * MIB / SECTOR_BYTES;

/// Places of the header's fields.
pub(in crate::image) mod field {
    pub(in crate::image) const VERSION: u64 = 4;
    pub(in crate::image) const FLAGS: u64 = 8;
    pub(in crate::image) const CAPACITY: u64 = 12;
    pub(in crate::image) const GRAIN: u64 = 20;
    pub(in crate::image) const DESCRIPTOR_OFFSET: u64 = 28;
    pub(in crate::image) const DESCRIPTOR_SIZE: u64 = 36;
    pub(in crate::image) const ENTRIES: u64 = 44;
    pub(in crate::image) const REDUNDANT_DIRECTORY: u64 = 48;
    pub(in crate::image) const DIRECTORY: u64 = 56;
    pub(in crate::image) const OVERHEAD: u64 = 64;
    pub(in crate::image) const UNCLEAN: u64 = 72;
    pub(in crate::image) const LINE_ENDS: u64 = 73;
    pub(in crate::image) const COMPRESSION: u64 = 77;
}

/// A descriptor with these lines in the place of the extent's.
pub(in crate::image) fn descriptor(create_type: &str, extents: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12a44aea\nparentCID=ffffffff\ncreateType=\"{create_type}\"\n\n\
         # Extent description\n{extents}\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"ide\"\n"
    )
}

pub(in crate::image) fn own_extent() -> String {
    format!("RW {SECTORS} SPARSE \"disk.vmdk\"")
}

pub(in crate::image) fn sparse() -> Image {
    let image = Image::zeros(GRAIN_AT + GRAIN_BYTES)
        .put(0, b"KDMV")
        .u32(field::VERSION, 1)
        .u32(field::FLAGS, 1)
        .u64(field::CAPACITY, SECTORS)
        .u64(field::GRAIN, GRAIN_BYTES / SECTOR_BYTES)
        .u64(field::DESCRIPTOR_OFFSET, 1)
        .u64(field::DESCRIPTOR_SIZE, 20)
        .u32(field::ENTRIES, 512)
        .u64(field::DIRECTORY, DIRECTORY.into())
        .u64(field::OVERHEAD, GRAIN.into())
        .put(field::LINE_ENDS, b"\n \r\n")
        .u32(DIRECTORY_AT, TABLE)
        .u32(TABLE_AT, GRAIN)
        .put(GRAIN_AT, &[7; GRAIN_BYTES as usize]);
    described(image, &descriptor("monolithicSparse", &own_extent()))
}

/// With another descriptor.
pub(in crate::image) fn described(mut image: Image, text: &str) -> Image {
    image.bytes[DESCRIPTOR as usize..][..DESCRIPTOR_BYTES as usize].fill(0);
    image.put(DESCRIPTOR, text.as_bytes())
}

pub(in crate::image) fn stream() -> Image {
    let mut image = described(sparse(), &descriptor("streamOptimized", &own_extent()))
        .u32(field::VERSION, 3)
        .u32(field::FLAGS, 0x0003_0001)
        .u16(field::COMPRESSION, 1);
    let data = zlib(&[7; GRAIN_BYTES as usize]);
    image.bytes.truncate(GRAIN_AT as usize);
    image.bytes.extend(0_u64.to_le_bytes());
    image.bytes.extend((data.len() as u32).to_le_bytes());
    image.bytes.extend(data);
    let whole = image.bytes.len().next_multiple_of(SECTOR_BYTES as usize);
    image.bytes.resize(whole, 0);
    image
}

/// The place of the directory stands in a second header at the end.
pub(in crate::image) fn stream_with_footer() -> Image {
    let stream = stream();
    let footer = stream.bytes[..SECTOR_BYTES as usize].to_vec();
    let mut image = stream.u64(field::DIRECTORY, u64::MAX);
    let marker = Image::zeros(SECTOR_BYTES).u64(0, 1).u32(12, 3);
    image.bytes.extend(marker.bytes);
    image.bytes.extend(footer);
    image.bytes.extend([0; SECTOR_BYTES as usize]);
    image
}

/// Where the footer's header begins.
pub(in crate::image) fn footer_at(image: &Image) -> u64 {
    image.bytes.len() as u64 - 2 * SECTOR_BYTES
}

/// RFC 1950, with the data as it is.
pub(in crate::image) fn zlib(data: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    stream.extend(deflate(data));
    let (a, b) = data.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    stream.extend(((b << 16) | a).to_be_bytes());
    stream
}

/// RFC 1951, in stored blocks.
pub(in crate::image) fn deflate(data: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut blocks = data.chunks(65535).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        stream.push(u8::from(blocks.peek().is_none()));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
    }
    stream
}

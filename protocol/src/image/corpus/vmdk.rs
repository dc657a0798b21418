//! VMDK: headers and tables that lie.

use super::builder::vmdk::{
    DESCRIPTOR, DIRECTORY, DIRECTORY_AT, GRAIN, GRAIN_AT, GRAIN_BYTES, SECTORS, TABLE, TABLE_AT, described,
    field, footer_at, sparse, stream, stream_with_footer, zlib,
};
use super::builder::{Image, vmdk};
use super::{Case, Format};
use crate::MIB;
use crate::image::SECTOR_BYTES;

const HEADER: &str = "vmdk_header_invalid";
const TABLES: &str = "vmdk_tables_invalid";
const FOOTER: &str = "vmdk_footer_invalid";
const TRUNCATED: &str = "image_truncated";

/// With a disk of another size, in the header and in the descriptor.
fn sized(image: Image, create_type: &str, sectors: u64) -> Image {
    let extent = format!("RW {sectors} SPARSE \"disk.vmdk\"");
    described(image, &vmdk::descriptor(create_type, &extent)).u64(field::CAPACITY, sectors)
}

/// All entries of the grain table.
fn all_grains(image: Image, sector: u32) -> Image {
    (0..512).fold(image, |image, index| image.u32(TABLE_AT + 4 * index, sector))
}

/// The compressed grain is this.
fn compressed(data: &[u8]) -> Image {
    let mut image = stream();
    image.bytes.truncate(GRAIN_AT as usize);
    image.bytes.extend(0_u64.to_le_bytes());
    image.bytes.extend((data.len() as u32).to_le_bytes());
    image.bytes.extend(data);
    image
}

const fn refused(name: &'static str, code: &'static str, make: fn(&str) -> Vec<u8>) -> Case {
    Case::refused(name, Format::Vmdk, code, make)
}

const fn contained(name: &'static str, make: fn(&str) -> Vec<u8>) -> Case {
    Case::contained(name, Format::Vmdk, make)
}

pub(super) const CASES: &[Case] = &[
    refused("vmdk: version 4", "vmdk_version_unsupported", |_| sparse().u32(field::VERSION, 4).bytes),
    refused("vmdk: unknown flags", "vmdk_unknown_flags", |_| sparse().u32(field::FLAGS, 1 << 31).bytes),
    refused("vmdk: markers in a file that is no stream", "vmdk_unknown_flags", |_| {
        sparse().u32(field::FLAGS, 1 << 17).bytes
    }),
    refused("vmdk: compression without its flag", "vmdk_compression_unsupported", |_| {
        sparse().u16(field::COMPRESSION, 1).bytes
    }),
    refused("vmdk: unknown compression", "vmdk_compression_unsupported", |_| {
        stream().u16(field::COMPRESSION, 2).bytes
    }),
    refused("vmdk: a stream that says it is none", "vmdk_descriptor_invalid", |_| {
        sized(stream(), "monolithicSparse", SECTORS).bytes
    }),
    refused("vmdk: not closed", "vmdk_dirty", |_| sparse().put(field::UNCLEAN, &[1]).bytes),
    refused("vmdk: other line ends", HEADER, |_| sparse().put(field::LINE_ENDS, b"\n \n\n").bytes),
    refused("vmdk: the descriptor elsewhere", HEADER, |_| sparse().u64(field::DESCRIPTOR_OFFSET, 2).bytes),
    refused("vmdk: a descriptor of 2^63 sectors", HEADER, |_| {
        sparse().u64(field::DESCRIPTOR_SIZE, 1 << 63).bytes
    }),
    refused("vmdk: no descriptor", HEADER, |_| sparse().u64(field::DESCRIPTOR_SIZE, 0).bytes),
    refused("vmdk: a disk of 2^64 sectors", "image_too_large", |_| {
        sparse().u64(field::CAPACITY, u64::MAX).bytes
    }),
    refused("vmdk: a disk that is 512 bytes when multiplied", "image_too_large", |_| {
        sparse().u64(field::CAPACITY, (1 << 55) + 1).bytes
    }),
    refused("vmdk: 8 million grain tables", "vmdk_too_many_tables", |_| {
        sized(sparse(), "monolithicSparse", (1 << 44) / SECTOR_BYTES).u64(field::GRAIN, 8).bytes
    }),
    refused("vmdk: grains of no bytes", HEADER, |_| sparse().u64(field::GRAIN, 0).bytes),
    refused("vmdk: grains of 2^63 sectors", HEADER, |_| sparse().u64(field::GRAIN, 1 << 63).bytes),
    refused("vmdk: grains of 1 GiB", HEADER, |_| sparse().u64(field::GRAIN, 1 << 21).bytes),
    refused("vmdk: grains of 129 sectors", HEADER, |_| sparse().u64(field::GRAIN, 129).bytes),
    refused("vmdk: grain tables of no entries", HEADER, |_| sparse().u32(field::ENTRIES, 0).bytes),
    refused("vmdk: grain tables of 16 GiB", HEADER, |_| sparse().u32(field::ENTRIES, u32::MAX).bytes),
    refused("vmdk: more metadata than file", TRUNCATED, |_| sparse().u64(field::OVERHEAD, u64::MAX).bytes),
    refused("vmdk: the directory beyond the end", TRUNCATED, |_| {
        sparse().u64(field::DIRECTORY, u64::MAX - 1).bytes
    }),
    refused("vmdk: the directory in the header", TABLES, |_| sparse().u64(field::DIRECTORY, 0).bytes),
    refused("vmdk: the second directory in the descriptor", TABLES, |_| {
        sparse().u32(field::FLAGS, 3).u64(field::REDUNDANT_DIRECTORY, 1).bytes
    }),
    refused("vmdk: the second directory beyond the end", TRUNCATED, |_| {
        sparse().u32(field::FLAGS, 3).u64(field::REDUNDANT_DIRECTORY, 1 << 60).bytes
    }),
    refused("vmdk: the directory is its own grain table", TABLES, |_| {
        sparse().u32(DIRECTORY_AT, DIRECTORY).bytes
    }),
    refused("vmdk: a grain table in the descriptor", TABLES, |_| sparse().u32(DIRECTORY_AT, 2).bytes),
    refused("vmdk: a grain table beyond the end", TRUNCATED, |_| sparse().u32(DIRECTORY_AT, u32::MAX).bytes),
    refused("vmdk: one grain table for the whole disk", TABLES, |_| {
        sized(sparse(), "monolithicSparse", 64 * MIB / SECTOR_BYTES).u32(DIRECTORY_AT + 4, TABLE).bytes
    }),
    refused("vmdk: grain tables that overlap", TABLES, |_| {
        sized(sparse(), "monolithicSparse", 64 * MIB / SECTOR_BYTES).u32(DIRECTORY_AT + 4, TABLE + 3).bytes
    }),
    refused("vmdk: a grain in the header", TABLES, |_| sparse().u32(TABLE_AT, 1).bytes),
    refused("vmdk: a grain beyond the end", TRUNCATED, |_| sparse().u32(TABLE_AT, u32::MAX).bytes),
    refused("vmdk: one grain for the whole disk", TABLES, |_| all_grains(sparse(), GRAIN).bytes),
    contained("vmdk: a grain that is the grain table", |_| sparse().u32(TABLE_AT + 4, TABLE).bytes),
    contained("vmdk: a compressed grain for the whole disk", |_| {
        all_grains(compressed(&zlib(&[0; GRAIN_BYTES as usize])), GRAIN).bytes
    }),
    contained("vmdk: a compressed grain that is too long", |_| {
        compressed(&zlib(&[7; 2 * GRAIN_BYTES as usize])).bytes
    }),
    contained("vmdk: a compressed grain that is too short", |_| compressed(&zlib(&[7; 512])).bytes),
    contained("vmdk: a compressed grain that does not unpack", |_| compressed(&[0xff; 1000]).bytes),
    contained("vmdk: a compressed grain of 4 GiB", |_| stream().u32(GRAIN_AT + 8, u32::MAX).bytes),
    contained("vmdk: a compressed grain of no bytes", |_| stream().u32(GRAIN_AT + 8, 0).bytes),
    refused("vmdk: a stream without its footer", FOOTER, |_| stream().u64(field::DIRECTORY, u64::MAX).bytes),
    refused("vmdk: a footer that leads to a footer", FOOTER, |_| {
        let image = stream_with_footer();
        let at = footer_at(&image);
        image.u64(at + field::DIRECTORY, u64::MAX).bytes
    }),
    refused("vmdk: a footer of another disk", FOOTER, |_| {
        let image = stream_with_footer();
        let at = footer_at(&image);
        image.u64(at + field::CAPACITY, 8).bytes
    }),
    refused("vmdk: a footer without capacity, so that its extents count", HEADER, |_| {
        let image = stream_with_footer();
        let at = footer_at(&image);
        image.u64(at + field::CAPACITY, 0).bytes
    }),
    refused("vmdk: a footer of no VMDK", FOOTER, |_| {
        let image = stream_with_footer();
        let at = footer_at(&image);
        image.put(at, b"COWD").bytes
    }),
    refused("vmdk: a stream that goes on", FOOTER, |_| {
        let image = stream_with_footer();
        let length = image.bytes.len() as u64;
        image.cut(length + SECTOR_BYTES)
    }),
    refused("vmdk: cut in its header", TRUNCATED, |_| sparse().cut(60)),
    refused("vmdk: cut in its descriptor", TRUNCATED, |_| sparse().cut(DESCRIPTOR + 100)),
    refused("vmdk: cut in its directory", TRUNCATED, |_| {
        sparse().u64(field::OVERHEAD, 21).cut(DIRECTORY_AT + 2)
    }),
    refused("vmdk: cut in a grain table", TRUNCATED, |_| {
        sparse().u64(field::OVERHEAD, 21).cut(TABLE_AT + 100)
    }),
    refused("vmdk: cut in its data", TRUNCATED, |_| sparse().cut(GRAIN_AT + 100)),
    refused("vmdk: a stream cut before its data", TRUNCATED, |_| stream().cut(GRAIN_AT)),
];

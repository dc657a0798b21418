//! qcow2, versions 2 and 3, as QEMU's `docs/interop/qcow2.rst` defines it ("the specification" below).
//!
//! The [`header`] is checked field by field, its [`extensions`] are listed, then [`tables`] follows every
//! pointer once. Numbers are big-endian throughout.

mod extensions;
mod header;
mod tables;

use std::io::{Read, Seek};

use super::source::Source;
use super::{Format, ImageInfo, InspectError, Part};
use header::Header;

pub(super) fn inspect<R: Read + Seek>(source: &mut Source<'_, R>) -> Result<ImageInfo, InspectError> {
    let length = source.length();
    let fixed = source.bytes(Part::Header, 0, length.min(header::MAX_FIXED_BYTES))?;
    let header = Header::parse(fixed, length)?;
    let first_cluster = source.bytes(Part::Header, 0, header.cluster_size())?;
    extensions::check(first_cluster, header.length)?;
    let data_bytes = tables::walk(source, &header)?;
    Ok(ImageInfo { format: Format::Qcow2, virtual_size_bytes: header.virtual_size, data_bytes })
}

/// The big-endian number at `at`. The caller has made sure that the bytes are there.
fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |value, byte| (value << 8) | u32::from(*byte))
}

/// Like [`be32`], for eight bytes.
fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

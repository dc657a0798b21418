//! Images made byte by byte, each with one thing wrong.

mod corpus_cases;
mod hostile;
mod mutations;
mod properties;

use std::io::Cursor;

use super::*;
use corpus::qcow2_layout::{CLUSTER, Qcow2};

fn look(bytes: &[u8], declared: Format) -> Result<ImageInfo, InspectError> {
    inspect(&mut Cursor::new(bytes), declared, bytes.len() as u64)
}

/// The code of the refusal, or "accepted".
fn verdict(bytes: &[u8], declared: Format) -> &'static str {
    look(bytes, declared).map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn a_plain_image_is_accepted_with_its_sizes() {
    let info = look(&Qcow2::v3().bytes, Format::Qcow2).unwrap();
    assert_eq!(
        info,
        ImageInfo { format: Format::Qcow2, virtual_size_bytes: 10 * crate::MIB, data_bytes: DATA_UNIT_BYTES }
    );
    assert_eq!(look(&Qcow2::v2().bytes, Format::Qcow2).unwrap().virtual_size_bytes, 10 * crate::MIB);
}

#[test]
fn data_is_counted_in_pieces_of_the_disk_whatever_the_cluster_size() {
    let mut image = Qcow2::v3();
    // Clusters 0, 1 and 15 of 4 KiB share the first 64 KiB; cluster 16 begins the next.
    for (index, host) in [(0, 5), (1, 6), (15, 7), (16, 8)] {
        image.set_l2(index, (host * CLUSTER) | (1 << 63));
    }
    image.bytes.resize(9 * CLUSTER as usize, 0);
    assert_eq!(look(&image.bytes, Format::Qcow2).unwrap().data_bytes, 2 * DATA_UNIT_BYTES);
}

#[test]
fn zero_clusters_hold_no_data() {
    let mut image = Qcow2::v3();
    image.set_l2(0, (5 * CLUSTER) | 1);
    image.set_l2(1, 1);
    assert_eq!(look(&image.bytes, Format::Qcow2).unwrap().data_bytes, 0);
}

#[test]
fn every_shorter_file_is_refused() {
    let image = Qcow2::v3().bytes;
    assert_eq!(verdict(&image, Format::Qcow2), "accepted");
    for length in (1..image.len()).step_by(97).chain([image.len() - 1]) {
        let found = verdict(&image[..length], Format::Qcow2);
        let expected = if length < 4 { "image_format_mismatch" } else { "image_truncated" };
        assert_eq!(found, expected, "{length} bytes");
    }
}

#[test]
fn a_raw_image_has_whole_sectors() {
    let info = look(&[0x5a; 1024], Format::Raw).unwrap();
    assert_eq!((info.virtual_size_bytes, info.data_bytes), (1024, DATA_UNIT_BYTES));
    assert_eq!(verdict(&[], Format::Raw), "image_empty");
    assert_eq!(verdict(&[1; 513], Format::Raw), "image_partial_sector");
    let too_long = MAX_VIRTUAL_SIZE_BYTES + 512;
    let refused = inspect(&mut Endless, Format::Raw, too_long);
    assert_eq!(refused.unwrap_err().code(), "image_too_large");
}

#[test]
fn a_container_is_not_a_raw_disk() {
    let heads: [(usize, &[u8]); 18] = [
        (0, b"QFI\xfb"),
        (0, b"KDMV"),
        (0, b"COWD"),
        (0, b"# Disk DescriptorFile"),
        (0, b"# a comment\n# Disk DescriptorFile"),
        (0, b" \r\n# a comment\nversion=1\n"),
        (0, b"vhdxfile"),
        (0, b"conectix"),
        (64, b"\x7f\x10\xda\xbe"),
        (0, b"QED\0"),
        (0, b"WithoutFreeSpace"),
        (0, b"LUKS\xba\xbe"),
        (0, b"\x1f\x8b\x08"),
        (0, b"\xfd7zXZ\0"),
        (0, b"\x28\xb5\x2f\xfd"),
        (0, b"PK\x03\x04"),
        (4096 - 512, b"conectix"),
        (4096 - 512, b"koly"),
    ];
    for (at, magic) in heads {
        let mut bytes = vec![0; 4096];
        assert_eq!(verdict(&bytes, Format::Raw), "accepted");
        bytes[at..at + magic.len()].copy_from_slice(magic);
        assert_eq!(verdict(&bytes, Format::Raw), "image_format_mismatch", "{magic:?} at {at}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    let told = |bytes: &[u8], declared| look(bytes, declared).unwrap_err().to_string();
    assert!(told(&Qcow2::v3().bytes, Format::Raw).contains("make it again with format qcow2"));
    assert!(told(&[0; 512], Format::Qcow2).contains("again with format raw"));
    assert!(told(b"\x1f\x8b\x08", Format::Qcow2).contains("unpack it first"));
    assert!(told(b"KDMV", Format::Qcow2).contains("make it again with format vmdk"));
    assert!(told(b"QED\0", Format::Qcow2).contains("qemu-img convert -O qcow2"));
}

#[test]
fn a_failing_reader_is_not_the_images_fault() {
    // The file is shorter than it was said to be.
    let bytes = Qcow2::v3().bytes;
    let error = inspect(&mut Cursor::new(&bytes), Format::Qcow2, bytes.len() as u64 * 8).unwrap_err();
    assert!(!error.is_refusal(), "{error}");
}

/// Zeros without an end.
struct Endless;

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(0);
        Ok(buffer.len())
    }
}

impl Seek for Endless {
    fn seek(&mut self, _: std::io::SeekFrom) -> std::io::Result<u64> {
        Ok(0)
    }
}

//! One refusal per lie.

use super::corpus::qcow2_layout::{CLUSTER, L1, L2, Qcow2};
use super::*;

/// The verdict about a good image after `spoil`.
fn spoiled(mut image: Qcow2, spoil: impl FnOnce(&mut Qcow2)) -> &'static str {
    assert_eq!(verdict(&image.bytes, Format::Qcow2), "accepted");
    spoil(&mut image);
    verdict(&image.bytes, Format::Qcow2)
}

#[test]
fn header_fields() {
    type Spoil = fn(&mut Qcow2);
    let cases: &[(&str, Spoil)] = &[
        ("qcow2_version_unsupported", |i| i.u32(4, 1)),
        ("qcow2_version_unsupported", |i| i.u32(4, 4)),
        ("qcow2_backing_file", |i| i.u64(8, 1024)),
        ("qcow2_encrypted", |i| i.u32(32, 1)),
        ("qcow2_encrypted", |i| i.u32(32, 2)),
        ("qcow2_internal_snapshots", |i| i.u32(60, 1)),
        ("qcow2_header_invalid", |i| i.u32(20, 8)),
        ("qcow2_header_invalid", |i| i.u32(20, 22)),
        ("qcow2_header_invalid", |i| i.u32(20, u32::MAX)),
        ("image_virtual_size_invalid", |i| i.u64(24, 0)),
        ("image_virtual_size_invalid", |i| i.u64(24, 1000)),
        ("image_too_large", |i| i.u64(24, MAX_VIRTUAL_SIZE_BYTES + 512)),
        ("image_too_large", |i| i.u64(24, u64::MAX - 511)),
        ("qcow2_header_invalid", |i| i.u32(36, 4)),
        ("qcow2_too_many_tables", |i| i.u32(36, u32::MAX)),
        ("qcow2_too_many_tables", |i| i.u64(24, MAX_VIRTUAL_SIZE_BYTES)),
        ("image_truncated", |i| i.u32(36, 256 * 1024)),
        ("qcow2_tables_invalid", |i| i.u64(40, 0)),
        ("qcow2_tables_invalid", |i| i.u64(40, L1 + 8)),
        ("image_truncated", |i| i.u64(40, u64::MAX - 4095)),
        ("qcow2_tables_invalid", |i| i.u64(48, 0)),
        ("qcow2_tables_invalid", |i| i.u64(48, 512)),
        ("image_truncated", |i| i.u64(48, 6 * CLUSTER)),
        ("qcow2_header_invalid", |i| i.u32(56, 0)),
        ("qcow2_header_invalid", |i| i.u32(56, u32::MAX)),
        ("image_truncated", |i| i.u32(56, 6)),
    ];
    for (number, (expected, spoil)) in cases.iter().enumerate() {
        assert_eq!(spoiled(Qcow2::v3(), spoil), *expected, "version 3, case {number}");
        // 1 and 3 differ in more than the version.
        if number > 1 {
            assert_eq!(spoiled(Qcow2::v2(), spoil), *expected, "version 2, case {number}");
        }
    }
}

#[test]
fn features_of_version_3() {
    type Spoil = fn(&mut Qcow2);
    let cases: &[(&str, Spoil)] = &[
        ("qcow2_dirty", |i| i.u64(72, 1)),
        ("qcow2_corrupt", |i| i.u64(72, 2)),
        ("qcow2_data_file", |i| i.u64(72, 4)),
        ("qcow2_data_file", |i| i.u64(88, 2)),
        ("qcow2_unknown_features", |i| i.u64(72, 1 << 5)),
        ("qcow2_unknown_features", |i| i.u64(72, 1 << 63)),
        ("qcow2_compression_unsupported", |i| i.u64(72, 8)),
        ("qcow2_compression_unsupported", |i| i.put(104, &[1])),
        ("qcow2_header_invalid", |i| i.u64(72, 16)),
        ("qcow2_header_invalid", |i| i.u32(96, 7)),
        ("qcow2_header_invalid", |i| i.u32(100, 0)),
        ("qcow2_header_invalid", |i| i.u32(100, 96)),
        ("qcow2_header_invalid", |i| i.u32(100, 105)),
        ("qcow2_header_invalid", |i| i.u32(100, 4104)),
        ("qcow2_header_invalid", |i| i.u32(100, u32::MAX - 7)),
        ("accepted", |i| i.u64(80, u64::MAX)),
        ("accepted", |i| i.u32(100, 104)),
        ("accepted", |i| {
            i.u64(72, 8);
            i.put(104, &[1]);
        }),
        ("qcow2_compression_unsupported", |i| {
            i.u64(72, 8);
            i.put(104, &[2]);
        }),
    ];
    for (number, (expected, spoil)) in cases.iter().enumerate() {
        assert_eq!(spoiled(Qcow2::v3(), spoil), *expected, "case {number}");
    }
}

#[test]
fn header_extensions() {
    let with = |kind: u32, length: u32| {
        spoiled(Qcow2::v3(), |image| {
            image.u32(112, kind);
            image.u32(116, length);
        })
    };
    assert_eq!(with(0xe279_2aca, 5), "qcow2_backing_file");
    assert_eq!(with(0x4441_5441, 5), "qcow2_data_file");
    assert_eq!(with(0x0537_be77, 16), "qcow2_encrypted");
    assert_eq!(with(0x6803_f857, 48), "accepted");
    assert_eq!(with(0x1234_5678, 3), "accepted");
    assert_eq!(with(0x1234_5678, 4096), "qcow2_header_invalid");
    assert_eq!(with(0x1234_5678, u32::MAX), "qcow2_header_invalid");
    // One after another, to the last byte of the cluster and over it.
    assert_eq!(with(0x1234_5678, 4096 - 120), "accepted");
    assert_eq!(with(0x1234_5678, 4096 - 120 + 1), "qcow2_header_invalid");
    let second = spoiled(Qcow2::v3(), |image| {
        image.u32(112, 0x1234_5678);
        image.u32(116, 9);
        image.u32(136, 0x4441_5441);
    });
    assert_eq!(second, "qcow2_data_file");
}

#[test]
fn tables() {
    const MAPPED: u64 = 1 << 63;
    const COMPRESSED: u64 = 1 << 62;
    // With clusters of 4 KiB a compressed cluster's sector count begins at bit 58.
    const MORE_SECTORS: u64 = 1 << 58;
    type Spoil = fn(&mut Qcow2);
    let cases: &[(&str, Spoil)] = &[
        ("image_truncated", |i| i.u64(L1, (6 * CLUSTER) | MAPPED)),
        ("image_truncated", |i| i.u64(L1, 0x00ff_ffff_ffff_f000)),
        ("qcow2_tables_invalid", |i| i.u64(L1, L2 + 512)),
        ("qcow2_tables_invalid", |i| i.u64(L1, L2 | 1)),
        ("qcow2_tables_invalid", |i| i.u64(L1, L2 | (1 << 56))),
        ("qcow2_tables_invalid", |i| i.u64(L1, MAPPED)),
        ("qcow2_tables_invalid", |i| i.u64(L1 + 8, L2 | MAPPED)),
        ("image_truncated", |i| i.set_l2(511, (6 * CLUSTER) | MAPPED)),
        ("image_truncated", |i| i.set_l2(1, 0x00ff_ffff_ffff_f000 | MAPPED)),
        ("qcow2_tables_invalid", |i| i.set_l2(1, 5 * CLUSTER + 512)),
        ("qcow2_tables_invalid", |i| i.set_l2(1, (5 * CLUSTER) | 2)),
        ("qcow2_tables_invalid", |i| i.set_l2(1, (5 * CLUSTER) | (1 << 56))),
        ("qcow2_tables_invalid", |i| i.set_l2(1, MAPPED)),
        ("accepted", |i| i.set_l2(1, COMPRESSED | (5 * CLUSTER + 77))),
        ("accepted", |i| i.set_l2(1, COMPRESSED | (7 * MORE_SECTORS) | (5 * CLUSTER + 77))),
        ("image_truncated", |i| i.set_l2(1, COMPRESSED | (8 * MORE_SECTORS) | (5 * CLUSTER + 77))),
        ("image_truncated", |i| i.set_l2(1, COMPRESSED | (6 * CLUSTER))),
        ("qcow2_tables_invalid", |i| i.set_l2(1, COMPRESSED | (1 << 56))),
        ("qcow2_tables_invalid", |i| i.set_l2(1, COMPRESSED | 100)),
        ("qcow2_tables_invalid", |i| i.set_l2(1, COMPRESSED | MAPPED | (5 * CLUSTER))),
    ];
    for (number, (expected, spoil)) in cases.iter().enumerate() {
        assert_eq!(spoiled(Qcow2::v3(), spoil), *expected, "case {number}");
    }
    // The zero flag came with version 3.
    assert_eq!(spoiled(Qcow2::v2(), |i| i.set_l2(1, 1)), "qcow2_tables_invalid");
}

#[test]
fn one_cluster_does_not_fill_a_disk() {
    let verdict = spoiled(Qcow2::v3(), |image| {
        (0..512).for_each(|index| image.set_l2(index, 5 * CLUSTER));
    });
    assert_eq!(verdict, "qcow2_tables_invalid");
}

#[test]
fn subclusters() {
    const L2: u64 = 4 * 16384;
    type Spoil = fn(&mut Qcow2);
    let cases: &[(&str, Spoil)] = &[
        ("accepted", |i| i.u64(L2 + 8, 0xffff_0000_0000_ffff)),
        ("qcow2_tables_invalid", |i| i.u64(L2 + 8, 0x0000_0001_0000_0001)),
        ("qcow2_tables_invalid", |i| i.u64(L2, (5 * 16384) | 1)),
        ("qcow2_tables_invalid", |i| i.u64(L2 + 24, 1)),
        ("qcow2_tables_invalid", |i| {
            i.u64(L2 + 16, (1 << 62) | (5 * 16384));
            i.u64(L2 + 24, 1);
        }),
        ("image_truncated", |i| i.bytes.truncate(6 * 16384 - 1)),
        ("accepted", |i| {
            i.u64(L2 + 8, 1);
            i.bytes.truncate(5 * 16384 + 512);
        }),
        ("image_truncated", |i| {
            i.u64(L2 + 8, 1);
            i.bytes.truncate(5 * 16384 + 511);
        }),
    ];
    for (number, (expected, spoil)) in cases.iter().enumerate() {
        assert_eq!(spoiled(Qcow2::extended(), spoil), *expected, "case {number}");
    }
}

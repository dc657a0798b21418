//! qcow2: other files, encryption, tables that lie.

use super::builder::qcow2::{CLUSTER, L1, L2, Qcow2};
use super::builder::vmdk::deflate;
use super::{Case, Format};

const MAPPED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Behind the header of version 3.
const EXTENSIONS: u64 = 112;
const DATA: u64 = 5 * CLUSTER;

fn v3(spoil: impl FnOnce(&mut Qcow2)) -> Vec<u8> {
    let mut image = Qcow2::v3();
    spoil(&mut image);
    image.bytes
}

/// A name at byte 1024, and its place where the header keeps that of a backing file.
fn backed(name: &str) -> Vec<u8> {
    v3(|image| {
        image.put(1024, name.as_bytes());
        image.u64(8, 1024);
        image.u32(16, name.len() as u32);
    })
}

fn extension(image: &mut Qcow2, kind: u32, length: u32, text: &str) {
    image.u32(EXTENSIONS, kind);
    image.u32(EXTENSIONS + 4, length);
    image.put(EXTENSIONS + 8, text.as_bytes());
}

const fn refused(name: &'static str, code: &'static str, make: fn(&str) -> Vec<u8>) -> Case {
    Case::refused(name, Format::Qcow2, code, make)
}

const fn contained(name: &'static str, make: fn(&str) -> Vec<u8>) -> Case {
    Case::contained(name, Format::Qcow2, make)
}

pub(super) const CASES: &[Case] = &[
    refused("qcow2: a backing file of the host", "qcow2_backing_file", backed),
    refused("qcow2: a backing file in JSON", "qcow2_backing_file", |target| {
        backed(&format!(
            "json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":\"{target}\"}}}}"
        ))
    }),
    refused("qcow2: a backing file on the network", "qcow2_backing_file", |_| {
        backed("nbd://127.0.0.1:10809")
    }),
    refused("qcow2: a backing format without a file", "qcow2_backing_file", |_| {
        v3(|image| extension(image, 0xe279_2aca, 3, "raw"))
    }),
    refused("qcow2: an external data file", "qcow2_data_file", |target| {
        v3(|image| {
            image.u64(72, 1 << 2);
            extension(image, 0x4441_5441, target.len() as u32, target);
        })
    }),
    refused("qcow2: a data file's name alone", "qcow2_data_file", |target| {
        v3(|image| extension(image, 0x4441_5441, target.len() as u32, target))
    }),
    refused("qcow2: a raw external data file", "qcow2_data_file", |_| v3(|image| image.u64(88, 1 << 1))),
    refused("qcow2: unknown features", "qcow2_unknown_features", |_| v3(|image| image.u64(72, 1 << 63))),
    refused("qcow2: encrypted with AES", "qcow2_encrypted", |_| v3(|image| image.u32(32, 1))),
    refused("qcow2: encrypted with LUKS", "qcow2_encrypted", |_| v3(|image| image.u32(32, 2))),
    refused("qcow2: a LUKS header's place alone", "qcow2_encrypted", |_| {
        v3(|image| extension(image, 0x0537_be77, 16, ""))
    }),
    refused("qcow2: four billion snapshots", "qcow2_internal_snapshots", |_| {
        v3(|image| {
            image.u32(60, u32::MAX);
            image.u64(64, L2);
        })
    }),
    contained("qcow2: no snapshots, beyond the end", |_| v3(|image| image.u64(64, u64::MAX - 511))),
    refused("qcow2: four billion L1 entries", "qcow2_too_many_tables", |_| {
        v3(|image| image.u32(36, u32::MAX))
    }),
    refused("qcow2: a disk of 2^63 bytes", "image_too_large", |_| v3(|image| image.u64(24, 1 << 63))),
    refused("qcow2: a disk of 16 TiB in small clusters", "qcow2_too_many_tables", |_| {
        v3(|image| image.u64(24, 1 << 44))
    }),
    contained("qcow2: the L1 table is its own L2 table", |_| v3(|image| image.u64(L1, L1 | MAPPED))),
    refused("qcow2: one L2 table for the whole disk", "qcow2_tables_invalid", |_| {
        v3(|image| (0..5).for_each(|index| image.u64(L1 + 8 * index, L2 | MAPPED)))
    }),
    refused("qcow2: one cluster for the whole disk", "qcow2_tables_invalid", |_| {
        v3(|image| (0..512).for_each(|index| image.set_l2(index, DATA | MAPPED)))
    }),
    contained("qcow2: the reference counts count themselves", |_| v3(|image| image.u64(CLUSTER, CLUSTER))),
    refused("qcow2: a reference count table of 16 TiB", "qcow2_header_invalid", |_| {
        v3(|image| image.u32(56, u32::MAX))
    }),
    refused("qcow2: reference counts of 2^31 bits", "qcow2_header_invalid", |_| {
        v3(|image| image.u32(96, 31))
    }),
    refused("qcow2: a header of 4 GiB", "qcow2_header_invalid", |_| v3(|image| image.u32(100, 0xffff_fff8))),
    refused("qcow2: a header of no bytes", "qcow2_header_invalid", |_| v3(|image| image.u32(100, 0))),
    refused("qcow2: an extension of 4 GiB", "qcow2_header_invalid", |_| {
        v3(|image| extension(image, 0x1234_5678, u32::MAX, ""))
    }),
    refused("qcow2: clusters of one byte", "qcow2_header_invalid", |_| v3(|image| image.u32(20, 0))),
    refused("qcow2: clusters of 2^63 bytes", "qcow2_header_invalid", |_| v3(|image| image.u32(20, 63))),
    refused("qcow2: not closed", "qcow2_dirty", |_| v3(|image| image.u64(72, 1))),
    refused("qcow2: marked as corrupt", "qcow2_corrupt", |_| v3(|image| image.u64(72, 2))),
    refused("qcow2: version 1", "qcow2_version_unsupported", |target| {
        let mut bytes = backed(target);
        bytes[7] = 1;
        bytes
    }),
    refused("qcow2: compressed data beyond the end", "image_truncated", |_| {
        v3(|image| image.set_l2(1, COMPRESSED | (6 * CLUSTER)))
    }),
    contained("qcow2: compressed data that does not unpack", |_| {
        v3(|image| {
            image.put(DATA, &[0xff; CLUSTER as usize]);
            image.set_l2(0, COMPRESSED | DATA);
        })
    }),
    contained("qcow2: a compressed cluster for the whole table", |_| {
        let mut bytes =
            v3(|image| (0..512).for_each(|index| image.set_l2(index, COMPRESSED | (8 << 58) | DATA)));
        bytes.truncate(DATA as usize);
        bytes.extend(deflate(&[0; CLUSTER as usize]));
        bytes
    }),
    refused("qcow2: cut in its header", "image_truncated", |_| Qcow2::v3().bytes[..60].to_vec()),
    refused("qcow2: cut in its L1 table", "image_truncated", |_| {
        Qcow2::v3().bytes[..L1 as usize + 8].to_vec()
    }),
    refused("qcow2: cut in an L2 table", "image_truncated", |_| {
        Qcow2::v3().bytes[..L2 as usize + 8].to_vec()
    }),
    refused("qcow2: cut in its data", "image_truncated", |_| Qcow2::v3().bytes[..DATA as usize + 8].to_vec()),
];

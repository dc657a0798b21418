//! The smallest honest qcow2.

use crate::MIB;

/// Clusters of 4 KiB: 0 header, 1 refcount table, 2 refcount block, 3 L1, 4 L2, 5 data.
pub(in crate::image) const CLUSTER: u64 = 4096;
pub(in crate::image) const L1: u64 = 3 * CLUSTER;
pub(in crate::image) const L2: u64 = 4 * CLUSTER;
const DATA: u64 = 5 * CLUSTER;

pub(in crate::image) struct Qcow2 {
    pub(in crate::image) bytes: Vec<u8>,
}

impl Qcow2 {
    pub(in crate::image) fn v2() -> Self {
        let mut image = Self { bytes: vec![0; 6 * CLUSTER as usize] };
        image.put(0, b"QFI\xfb");
        image.u32(4, 2);
        image.u32(20, CLUSTER.ilog2());
        image.u64(24, 10 * MIB);
        // One L2 table maps 2 MiB.
        image.u32(36, 5);
        image.u64(40, L1);
        image.u64(48, CLUSTER);
        image.u32(56, 1);
        image.u64(L1, L2 | (1 << 63));
        image.u64(L2, DATA | (1 << 63));
        image
    }

    pub(in crate::image) fn v3() -> Self {
        let mut image = Self::v2();
        image.u32(4, 3);
        image.u32(96, 4);
        image.u32(100, 112);
        image
    }

    /// Extended L2 entries: clusters of 16 KiB with subclusters of 512 bytes, one L2 table for 16 MiB.
    pub(in crate::image) fn extended() -> Self {
        const CLUSTER: u64 = 16384;
        let mut image = Self::v3();
        image.bytes = image.bytes[..104].to_vec();
        image.bytes.resize(6 * CLUSTER as usize, 0);
        image.u32(20, CLUSTER.ilog2());
        image.u32(36, 1);
        image.u64(40, 3 * CLUSTER);
        image.u64(48, CLUSTER);
        image.u64(72, 1 << 4);
        image.u64(3 * CLUSTER, (4 * CLUSTER) | (1 << 63));
        image.u64(4 * CLUSTER, (5 * CLUSTER) | (1 << 63));
        image.u64(4 * CLUSTER + 8, 0xffff_ffff);
        image
    }

    pub(in crate::image) fn put(&mut self, at: u64, bytes: &[u8]) {
        self.bytes[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    pub(in crate::image) fn u32(&mut self, at: u64, value: u32) {
        self.put(at, &value.to_be_bytes());
    }

    pub(in crate::image) fn u64(&mut self, at: u64, value: u64) {
        self.put(at, &value.to_be_bytes());
    }

    pub(in crate::image) fn set_l2(&mut self, index: u64, entry: u64) {
        self.u64(L2 + 8 * index, entry);
    }
}

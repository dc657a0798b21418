//! The fixed part of the header ("Header" and "Additional fields" of the specification).

use super::{be32, be64};
use crate::image::{InspectError, MAX_VIRTUAL_SIZE_BYTES, Part, SECTOR_BYTES};

/// Enough bytes to hold every field that is known.
pub(super) const MAX_FIXED_BYTES: u64 = 112;
const V2_BYTES: u64 = 72;
const V3_MIN_BYTES: u64 = 104;
const COMPRESSION_TYPE_AT: usize = 104;

/// Smallest and largest cluster: the specification's 512 bytes and QEMU's 2 MiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Extended L2 entries need 32 subclusters of at least a sector.
const EXTENDED_MIN_CLUSTER_BITS: u32 = 14;
const MAX_REFCOUNT_ORDER: u32 = 6;
/// QEMU's own limit (`QCOW_MAX_REFTABLE_SIZE`).
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;

/// "Incompatible features" of the specification.
mod incompatible {
    pub(super) const DIRTY: u64 = 1 << 0;
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const DATA_FILE: u64 = 1 << 2;
    pub(super) const COMPRESSION_TYPE: u64 = 1 << 3;
    pub(super) const EXTENDED_L2: u64 = 1 << 4;
    pub(super) const ALLOWED: u64 = COMPRESSION_TYPE | EXTENDED_L2;
}
/// "Raw external data bit" among the auto-clear features.
const AUTOCLEAR_RAW_DATA_FILE: u64 = 1 << 1;
const COMPRESSION_ZSTD: u8 = 1;

/// A header whose every field has been checked, apart from where the tables lead.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    pub(super) virtual_size: u64,
    pub(super) l1_entries: u64,
    pub(super) l1_offset: u64,
    pub(super) refcount_table_offset: u64,
    refcount_table_clusters: u64,
    pub(super) extended_l2: bool,
    /// Length of the header; its extensions begin there.
    pub(super) length: u64,
}

impl Header {
    pub(super) const fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    pub(super) const fn refcount_table_bytes(&self) -> u64 {
        self.refcount_table_clusters << self.cluster_bits
    }

    pub(super) const fn l2_entry_bytes(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Guest bytes that one L2 table maps.
    pub(super) const fn l2_coverage(&self) -> u64 {
        self.cluster_size() / self.l2_entry_bytes() * self.cluster_size()
    }

    /// `bytes` are the first [`MAX_FIXED_BYTES`] of a file of `file_length`, fewer only if it is shorter.
    pub(super) fn parse(bytes: &[u8], file_length: u64) -> Result<Self, InspectError> {
        require(bytes, V2_BYTES, file_length)?;
        let version = be32(bytes, 4);
        let length = match version {
            2 => V2_BYTES,
            3 => {
                require(bytes, V3_MIN_BYTES, file_length)?;
                u64::from(be32(bytes, 100))
            }
            other => return Err(InspectError::Version(other)),
        };
        refuse_foreign_parts(bytes)?;
        let header = Self {
            version,
            cluster_bits: be32(bytes, 20),
            virtual_size: be64(bytes, 24),
            l1_entries: u64::from(be32(bytes, 36)),
            l1_offset: be64(bytes, 40),
            refcount_table_offset: be64(bytes, 48),
            refcount_table_clusters: be32(bytes, 56).into(),
            extended_l2: version >= 3 && be64(bytes, 72) & incompatible::EXTENDED_L2 != 0,
            length,
        };
        header.check_sizes()?;
        if version >= 3 {
            refuse_features(bytes, length, file_length)?;
        }
        Ok(header)
    }

    fn check_sizes(&self) -> Result<(), InspectError> {
        let smallest = if self.extended_l2 { EXTENDED_MIN_CLUSTER_BITS } else { *CLUSTER_BITS.start() };
        if !(smallest..=*CLUSTER_BITS.end()).contains(&self.cluster_bits) {
            return Err(field("cluster_bits", self.cluster_bits.into()));
        }
        if self.length < V2_BYTES || !self.length.is_multiple_of(8) || self.length > self.cluster_size() {
            return Err(field("header_length", self.length));
        }
        if self.version >= 3 && self.length < V3_MIN_BYTES {
            return Err(field("header_length", self.length));
        }
        if self.virtual_size == 0 || !self.virtual_size.is_multiple_of(SECTOR_BYTES) {
            return Err(InspectError::VirtualSize { size: self.virtual_size });
        }
        if self.virtual_size > MAX_VIRTUAL_SIZE_BYTES {
            return Err(InspectError::TooLarge { size: self.virtual_size });
        }
        let refcount_clusters = self.refcount_table_clusters;
        if refcount_clusters == 0 || refcount_clusters > MAX_REFCOUNT_TABLE_BYTES >> self.cluster_bits {
            return Err(field("refcount_table_clusters", refcount_clusters));
        }
        Ok(())
    }
}

/// Refuses what leads out of the file or hides its contents, in any version.
fn refuse_foreign_parts(bytes: &[u8]) -> Result<(), InspectError> {
    let (backing_file_offset, crypt_method, snapshots) = (be64(bytes, 8), be32(bytes, 32), be32(bytes, 60));
    if backing_file_offset != 0 {
        return Err(InspectError::BackingFile);
    }
    if crypt_method != 0 {
        return Err(InspectError::Encrypted);
    }
    if snapshots != 0 {
        return Err(InspectError::Snapshots(snapshots));
    }
    Ok(())
}

/// Version 3: an allow-list of features. Compatible and other auto-clear bits may be ignored by a reader.
fn refuse_features(bytes: &[u8], header_length: u64, file_length: u64) -> Result<(), InspectError> {
    let (features, autoclear) = (be64(bytes, 72), be64(bytes, 88));
    if features & incompatible::DATA_FILE != 0 || autoclear & AUTOCLEAR_RAW_DATA_FILE != 0 {
        return Err(InspectError::DataFile);
    }
    if features & incompatible::CORRUPT != 0 {
        return Err(InspectError::Corrupt);
    }
    if features & incompatible::DIRTY != 0 {
        return Err(InspectError::Dirty);
    }
    if features & !incompatible::ALLOWED != 0 {
        return Err(InspectError::UnknownFeatures { bits: features & !incompatible::ALLOWED });
    }
    let refcount_order = be32(bytes, 96);
    if refcount_order > MAX_REFCOUNT_ORDER {
        return Err(field("refcount_order", refcount_order.into()));
    }
    let compression = if header_length > COMPRESSION_TYPE_AT as u64 {
        require(bytes, COMPRESSION_TYPE_AT as u64 + 1, file_length)?;
        bytes[COMPRESSION_TYPE_AT]
    } else {
        0
    };
    match (features & incompatible::COMPRESSION_TYPE != 0, compression) {
        (false, 0) | (true, COMPRESSION_ZSTD) => Ok(()),
        (_, other) => Err(InspectError::CompressionType(other)),
    }
}

fn field(field: &'static str, value: u64) -> InspectError {
    InspectError::HeaderField { field, value }
}

fn require(bytes: &[u8], end: u64, length: u64) -> Result<(), InspectError> {
    if (bytes.len() as u64) < end {
        return Err(InspectError::Truncated { part: Part::Header, end, length });
    }
    Ok(())
}

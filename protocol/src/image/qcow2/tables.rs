//! The address tables ("Cluster mapping" and "Extended L2 Entries" of the specification).
//!
//! Work and memory are bounded: the L1 table by [`MAX_L1_ENTRIES`], the L2 tables because no two may be the
//! same one and all must lie in the file.

use std::io::{Read, Seek};

use super::be64;
use super::header::Header;
use crate::image::source::Source;
use crate::image::usage::DataUnits;
use crate::image::{InspectError, Part, SECTOR_BYTES};

/// 2 MiB of entries. Enough for [`crate::image::MAX_VIRTUAL_SIZE_BYTES`] in clusters of 32 KiB and more.
const MAX_L1_ENTRIES: u64 = 256 * 1024;
const ENTRY_BYTES: u64 = 8;

/// Bits 9 to 55 of an entry.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ALL_ZEROS: u64 = 1;
const SUBCLUSTERS: u64 = 32;

/// An L2 table that is there.
struct L2Table {
    /// Its place in the file.
    offset: u64,
    /// Its place in the L1 table.
    index: u32,
}

/// Follows every pointer of the image; gives the upper bound of the guest's data in bytes.
pub(super) fn walk<R: Read + Seek>(source: &mut Source<'_, R>, header: &Header) -> Result<u64, InspectError> {
    let refcounts = header.refcount_table_offset;
    check_placed(Part::RefcountTable, refcounts, header)?;
    source.require(Part::RefcountTable, refcounts, header.refcount_table_bytes())?;
    let units = DataUnits::new(header.virtual_size);
    let mut walk = Walk { header, file_length: source.length(), clusters: 0, units };
    for L2Table { offset, index } in read_l1(source, header)? {
        let table = source.bytes(Part::L2Table, offset, header.cluster_size())?;
        walk.l2_table(u64::from(index) * header.l2_coverage(), table)?;
    }
    // A self-contained image without snapshots maps each of its clusters once.
    if walk.clusters > walk.file_length.div_ceil(header.cluster_size()) {
        return Err(InspectError::Overcommitted { claimed: walk.clusters, length: walk.file_length });
    }
    Ok(walk.units.bytes())
}

/// The L2 tables in the order of the file, so that reading them all reads the file once at most.
fn read_l1<R: Read + Seek>(
    source: &mut Source<'_, R>,
    header: &Header,
) -> Result<Vec<L2Table>, InspectError> {
    let needed = header.virtual_size.div_ceil(header.l2_coverage());
    let entries = header.l1_entries;
    if entries > MAX_L1_ENTRIES || needed > MAX_L1_ENTRIES {
        return Err(InspectError::TooManyTables { entries: entries.max(needed), max: MAX_L1_ENTRIES });
    }
    // More than needed is legal: an image that once held the memory of a running guest keeps them.
    if entries < needed {
        return Err(InspectError::HeaderField { field: "l1_size", value: entries });
    }
    check_placed(Part::L1Table, header.l1_offset, header)?;
    let l1 = source.bytes(Part::L1Table, header.l1_offset, entries * ENTRY_BYTES)?;
    let mut tables = Vec::new();
    for (entry, index) in l1.chunks_exact(ENTRY_BYTES as usize).zip(0..) {
        let offset = l2_offset(be64(entry, 0), header)?;
        tables.extend(offset.map(|offset| L2Table { offset, index }));
    }
    tables.sort_unstable_by_key(|table| table.offset);
    match tables.windows(2).find(|pair| pair[0].offset == pair[1].offset) {
        Some(pair) => Err(InspectError::Shared { part: Part::L2Table, offset: pair[0].offset }),
        None => Ok(tables),
    }
}

fn l2_offset(entry: u64, header: &Header) -> Result<Option<u64>, InspectError> {
    let offset = entry & OFFSET_MASK;
    if entry & !(OFFSET_MASK | COPIED) != 0 || (offset == 0 && entry != 0) {
        return Err(InspectError::ReservedBits { part: Part::L1Table, entry });
    }
    if offset == 0 {
        return Ok(None);
    }
    check_placed(Part::L2Table, offset, header)?;
    Ok(Some(offset))
}

/// Tables and clusters are aligned, and none is the header's.
fn check_placed(part: Part, offset: u64, header: &Header) -> Result<(), InspectError> {
    if offset == 0 || !offset.is_multiple_of(header.cluster_size()) {
        return Err(InspectError::Misplaced { part, offset });
    }
    Ok(())
}

/// The state of the walk.
struct Walk<'a> {
    header: &'a Header,
    file_length: u64,
    /// Standard clusters seen.
    clusters: u64,
    units: DataUnits,
}

impl Walk<'_> {
    fn l2_table(&mut self, guest_start: u64, table: &[u8]) -> Result<(), InspectError> {
        let cluster_size = self.header.cluster_size();
        // A table maps whole pieces (or half of one, with clusters of 512 bytes, which counts it twice).
        self.units.next_table();
        for (index, entry) in table.chunks_exact(self.header.l2_entry_bytes() as usize).enumerate() {
            let guest = guest_start + index as u64 * cluster_size;
            let descriptor = be64(entry, 0);
            let data = match (self.header.extended_l2, descriptor & COMPRESSED != 0) {
                (false, false) => self.standard(descriptor)?,
                (true, false) => self.extended(descriptor, be64(entry, 8))?,
                (false, true) => self.compressed(descriptor)?,
                (true, true) if be64(entry, 8) != 0 => return Err(reserved(be64(entry, 8))),
                (true, true) => self.compressed(descriptor)?,
            };
            if let Some((from, to)) = data {
                self.units.count(guest + from, guest + to);
            }
        }
        Ok(())
    }

    /// "Standard Cluster Descriptor". Like the two below, gives the part of the cluster that holds data.
    fn standard(&mut self, entry: u64) -> Result<Option<(u64, u64)>, InspectError> {
        let zero_flag = if self.header.version >= 3 { ALL_ZEROS } else { 0 };
        if entry & !(OFFSET_MASK | COPIED | zero_flag) != 0 {
            return Err(reserved(entry));
        }
        let allocated = self.host_cluster(entry, self.header.cluster_size())?;
        let has_data = allocated && entry & zero_flag == 0;
        Ok(has_data.then_some((0, self.header.cluster_size())))
    }

    /// "Extended L2 Entries": the descriptor and the bitmap of its subclusters.
    fn extended(&mut self, entry: u64, bitmap: u64) -> Result<Option<(u64, u64)>, InspectError> {
        let (allocated, zeros) = (bitmap as u32, (bitmap >> 32) as u32);
        if entry & !(OFFSET_MASK | COPIED) != 0 {
            return Err(reserved(entry));
        }
        if allocated & zeros != 0 || (allocated != 0 && entry & OFFSET_MASK == 0) {
            return Err(reserved(bitmap));
        }
        let subcluster = self.header.cluster_size() / SUBCLUSTERS;
        let first = u64::from(allocated.trailing_zeros()) * subcluster;
        let end = u64::from(u32::BITS - allocated.leading_zeros()) * subcluster;
        // QEMU lets a file end with the last subcluster in use.
        self.host_cluster(entry, end)?;
        Ok((allocated != 0).then_some((first, end)))
    }

    /// "Compressed Clusters Descriptor".
    fn compressed(&self, entry: u64) -> Result<Option<(u64, u64)>, InspectError> {
        let offset_bits = 62 - (self.header.cluster_bits - 8);
        let offset = entry & ((1 << offset_bits) - 1);
        if entry & COPIED != 0 || offset > OFFSET_MASK | (SECTOR_BYTES - 1) {
            return Err(reserved(entry));
        }
        let more_sectors = (entry & (COMPRESSED - 1)) >> offset_bits;
        let end = (offset / SECTOR_BYTES + 1 + more_sectors) * SECTOR_BYTES;
        if offset < self.header.cluster_size() {
            return Err(InspectError::Misplaced { part: Part::CompressedCluster, offset });
        }
        // The stream ends somewhere in its last sector, and the file may end there too.
        if offset >= self.file_length || end > self.file_length.next_multiple_of(SECTOR_BYTES) {
            let length = self.file_length;
            return Err(InspectError::Truncated { part: Part::CompressedCluster, end, length });
        }
        Ok(Some((0, self.header.cluster_size())))
    }

    /// Checks that the first `used` bytes of a standard cluster lie in the file; false when it lies nowhere.
    fn host_cluster(&mut self, entry: u64, used: u64) -> Result<bool, InspectError> {
        let offset = entry & OFFSET_MASK;
        if offset == 0 {
            // Offset 0 in use exists only with an external data file.
            return if entry & COPIED == 0 { Ok(false) } else { Err(reserved(entry)) };
        }
        check_placed(Part::Cluster, offset, self.header)?;
        let end = offset + used;
        if end > self.file_length {
            return Err(InspectError::Truncated { part: Part::Cluster, end, length: self.file_length });
        }
        self.clusters += 1;
        Ok(true)
    }
}

fn reserved(entry: u64) -> InspectError {
    InspectError::ReservedBits { part: Part::L2Table, entry }
}

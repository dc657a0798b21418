//! What of the guest's disk, and of the file, has been seen in use.

use super::DATA_UNIT_BYTES;

/// Counts the pieces of the guest's disk that hold data.
#[derive(Debug)]
pub(super) struct DataUnits {
    virtual_size: u64,
    units: u64,
    /// The first piece that the current table has not counted yet.
    next: u64,
}

impl DataUnits {
    pub(super) fn new(virtual_size: u64) -> Self {
        Self { virtual_size, units: 0, next: 0 }
    }

    /// The next table may be of any part of the disk.
    pub(super) fn next_table(&mut self) {
        self.next = 0;
    }

    /// Counts the guest's bytes `from..to`, which never begin before those of an earlier call for the
    /// same table. What lies beyond the end of the disk is no data of the guest's.
    pub(super) fn count(&mut self, from: u64, to: u64) {
        let first = (from / DATA_UNIT_BYTES).max(self.next);
        let end = to.min(self.virtual_size).div_ceil(DATA_UNIT_BYTES);
        if end > first {
            self.units += end - first;
            self.next = end;
        }
    }

    /// Tables of less than a piece count it twice, so the disk is the limit.
    pub(super) fn bytes(&self) -> u64 {
        self.units.min(self.virtual_size.div_ceil(DATA_UNIT_BYTES)) * DATA_UNIT_BYTES
    }
}

/// The blocks of a file that somebody has claimed, a bit for each.
#[derive(Debug)]
pub(super) struct Claims {
    bits: Vec<u64>,
}

impl Claims {
    /// For so many blocks as the file really has: 2 MiB of memory for 16 TiB in blocks of 1 MiB.
    pub(super) fn new(blocks: u64) -> Self {
        Self { bits: vec![0; blocks.div_ceil(64) as usize] }
    }

    /// False when the block has been claimed before, or is not in the file.
    pub(super) fn claim(&mut self, block: u64) -> bool {
        let mask = 1 << (block % 64);
        match self.bits.get_mut((block / 64) as usize) {
            Some(word) if *word & mask == 0 => {
                *word |= mask;
                true
            }
            _ => false,
        }
    }
}

//! Whatever the bytes: no panic, an end, and no more reading than the file is long.

use std::io::{Cursor, Read, Result as IoResult, Seek, SeekFrom};

use proptest::prelude::*;

use super::corpus::qcow2_layout::{L1, Qcow2};
use super::*;

/// Counts what is read, and refuses to be read past its end.
struct Meter {
    inner: Cursor<Vec<u8>>,
    read: u64,
    largest: usize,
}

impl Read for Meter {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        self.largest = self.largest.max(buffer.len());
        let count = self.inner.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}

impl Seek for Meter {
    fn seek(&mut self, to: SeekFrom) -> IoResult<u64> {
        self.inner.seek(to)
    }
}

fn check(bytes: Vec<u8>, declared: Format) -> Result<(), TestCaseError> {
    let length = bytes.len() as u64;
    let mut meter = Meter { inner: Cursor::new(bytes), read: 0, largest: 0 };
    let found = inspect(&mut meter, declared, length);
    prop_assert!(meter.largest as u64 <= length, "a read of {} bytes", meter.largest);
    prop_assert!(meter.read <= most_read(length), "{} bytes read", meter.read);
    match found {
        Ok(info) => {
            prop_assert_eq!(info.format, declared);
            prop_assert!(info.virtual_size_bytes.is_multiple_of(SECTOR_BYTES));
            prop_assert!(info.data_bytes <= info.virtual_size_bytes.next_multiple_of(DATA_UNIT_BYTES));
        }
        Err(error) => {
            prop_assert!(error.is_refusal(), "{error:?}");
            prop_assert!(!error.to_string().is_empty());
        }
    }
    Ok(())
}

/// Head, foot, header, first cluster and L1 table are read on their own; the L2 tables in one pass, in which
/// a window may repeat a part of the one before.
fn most_read(length: u64) -> u64 {
    5 * length.min(64 * 1024) + 2 * length
}

#[test]
fn scattered_tables_do_not_multiply_the_reading() {
    const CLUSTER: u64 = 512;
    const TABLES: u64 = 4000;
    let mut image = Qcow2::v3();
    let first_table = 66 * CLUSTER;
    image.bytes.resize((first_table + 2 * TABLES * CLUSTER) as usize, 0);
    image.u32(20, CLUSTER.ilog2());
    image.u64(24, TABLES * CLUSTER * CLUSTER / 8);
    image.u32(36, TABLES as u32);
    image.u64(40, CLUSTER);
    image.u64(48, 64 * CLUSTER);
    image.put(CLUSTER, &vec![0; 6 * 4096 - CLUSTER as usize]);
    for index in 0..TABLES {
        // Neighbours in the L1 table are far apart in the file.
        let place = (index % 2) * TABLES + index;
        image.u64(CLUSTER + 8 * index, (first_table + place * CLUSTER) | (1 << 63));
    }
    assert_eq!(verdict(&image.bytes, Format::Qcow2), "accepted");
    check(image.bytes, Format::Qcow2).unwrap();
}

fn seeds() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Qcow2::v2().bytes), Just(Qcow2::v3().bytes), Just(Qcow2::extended().bytes)]
}

/// Numbers that break arithmetic, and small ones.
fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..64_u64,
        (0..64_u32).prop_map(|bit| 1 << bit),
        (0..64_u32).prop_map(|bit| u64::MAX << bit)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_mutated_header_is_survived(
        mut bytes in seeds(),
        changes in prop::collection::vec((0..30_usize, numbers(), any::<bool>()), 1..4),
    ) {
        for (word, value, wide) in changes {
            let value = value.to_be_bytes();
            let part = if wide { &value[..] } else { &value[4..] };
            bytes[4 * word..4 * word + part.len()].copy_from_slice(part);
        }
        check(bytes, Format::Qcow2)?;
    }

    #[test]
    fn mutated_bytes_anywhere_are_survived(
        mut bytes in seeds(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            let length = keep.index(bytes.len());
            bytes.truncate(length);
        }
        check(bytes.clone(), Format::Qcow2)?;
        check(bytes, Format::Raw)?;
    }

    #[test]
    fn mutated_tables_are_survived(
        mut image in Just(Qcow2::v3().bytes),
        entries in prop::collection::vec((0..1024_usize, numbers()), 1..20),
    ) {
        let tables = L1 as usize;
        for (index, value) in entries {
            image[tables + 8 * index..][..8].copy_from_slice(&value.to_be_bytes());
        }
        check(image, Format::Qcow2)?;
    }

    #[test]
    fn noise_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        check(bytes.clone(), Format::Raw)?;
        check(bytes, Format::Qcow2)?;
    }
}

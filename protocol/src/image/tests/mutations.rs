//! Images of every format with numbers changed anywhere: no panic, an end, bounded memory and reading.

use std::io::{Read, Result as IoResult, Seek, SeekFrom};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::corpus::vdi_layout::{dynamic, field};
use super::corpus::{honest, vhdx_layout};
use super::*;
use crate::MIB;

/// The most that the parser reads, and so keeps, at a time: the L1 table of qcow2 or a cluster.
const LARGEST_READ: usize = 2 << 20;

static HONEST: LazyLock<Vec<(&'static str, Format, Vec<u8>)>> = LazyLock::new(honest);

/// The bytes, and zeros behind them up to any length.
struct Padded {
    bytes: Vec<u8>,
    length: u64,
    at: u64,
    read: u64,
    largest: usize,
}

impl Padded {
    fn new(bytes: Vec<u8>, length: u64) -> Self {
        Self { bytes, length, at: 0, read: 0, largest: 0 }
    }
}

impl Read for Padded {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let count = (self.length - self.at).min(buffer.len() as u64) as usize;
        buffer[..count].fill(0);
        let rest = self.bytes.get(self.at as usize..).unwrap_or_default();
        let known = count.min(rest.len());
        buffer[..known].copy_from_slice(&rest[..known]);
        self.at += count as u64;
        self.read += count as u64;
        self.largest = self.largest.max(buffer.len());
        Ok(count)
    }
}

impl Seek for Padded {
    fn seek(&mut self, to: SeekFrom) -> IoResult<u64> {
        let SeekFrom::Start(at) = to else { return Err(std::io::ErrorKind::Unsupported.into()) };
        assert!(at <= self.length, "a seek beyond the end");
        self.at = at;
        Ok(at)
    }
}

fn check(bytes: Vec<u8>, declared: Format, length: u64) -> Result<(), TestCaseError> {
    let mut reader = Padded::new(bytes, length);
    let found = inspect(&mut reader, declared, length);
    prop_assert!(reader.largest <= LARGEST_READ, "a read of {} bytes", reader.largest);
    // The tables of a small disk: each is read once, in windows that may repeat a part.
    let most = 3 * length.min(16 * MIB) + 256 * MIB;
    prop_assert!(reader.read <= most, "{} bytes read", reader.read);
    match found {
        Ok(info) => {
            prop_assert_eq!(info.format, declared);
            prop_assert!(info.virtual_size_bytes <= MAX_VIRTUAL_SIZE_BYTES);
            prop_assert!(info.virtual_size_bytes.is_multiple_of(SECTOR_BYTES));
            prop_assert!(info.data_bytes <= info.virtual_size_bytes.next_multiple_of(DATA_UNIT_BYTES));
        }
        Err(error) => {
            prop_assert!(error.is_refusal(), "{error:?}");
            prop_assert!(error.to_string().len() < 400);
        }
    }
    Ok(())
}

/// Numbers that break arithmetic, and small ones.
fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..64_u64,
        (0..64_u32).prop_map(|bit| 1 << bit),
        (0..64_u32).prop_map(|bit| u64::MAX << bit),
        (0..64_u64).prop_map(|unit| (unit * MIB) | 6),
    ]
}

/// Where something is: the front, or a place that holds a byte.
fn places() -> impl Strategy<Value = prop::sample::Index> {
    any::<prop::sample::Index>()
}

/// Where the honest image has bytes; mutations of the zeros between say little.
fn used(bytes: &[u8], format: Format) -> Vec<usize> {
    let data = match format {
        Format::Vhdx => vhdx_layout::DATA as usize,
        Format::Vdi => corpus::vdi_layout::DATA as usize,
        Format::Vmdk => corpus::vmdk_layout::GRAIN_AT as usize + 16,
        _ => bytes.len(),
    };
    let end = data.min(bytes.len());
    let footer = bytes.len() - 2048.min(bytes.len() - end)..bytes.len();
    (0..end).chain(footer).filter(|at| bytes[at & !7..(at & !7) + 8].iter().any(|byte| *byte != 0)).collect()
}

static USED: LazyLock<Vec<Vec<usize>>> =
    LazyLock::new(|| HONEST.iter().map(|(_, format, bytes)| used(bytes, *format)).collect());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn changed_numbers_are_survived(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((places(), numbers(), 0..4_u32), 1..6),
        longer in prop_oneof![Just(0), Just(1_u64 << 20), Just(1 << 32), Just(1 << 44), Just(1 << 52)],
        sealed in any::<bool>(),
    ) {
        let which = which.index(HONEST.len());
        let (_, format, mut bytes) = HONEST[which].clone();
        for (place, value, width) in changes {
            let at = USED[which][place.index(USED[which].len())];
            let width = 1 << width;
            let at = (at - at % width).min(bytes.len() - width);
            let value = if format == Format::Qcow2 { value.swap_bytes() } else { value };
            bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        // Else no change of a VHDX would get past its checksums.
        if format == Format::Vhdx && sealed {
            bytes = vhdx_layout::seal(vhdx_layout::Image { bytes }).bytes;
        }
        let length = bytes.len() as u64 + longer;
        check(bytes, format, length)?;
    }

    #[test]
    fn cut_and_patched_files_are_survived(
        which in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        (from, to, count) in (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..5000_usize),
        keep in any::<prop::sample::Index>(),
        declared in prop::sample::select(Format::ALL.to_vec()),
    ) {
        let mut bytes = HONEST[which.index(HONEST.len())].2.clone();
        let source = &HONEST[other.index(HONEST.len())].2;
        let (from, to) = (from.index(source.len()), to.index(bytes.len()));
        let count = count.min(source.len() - from).min(bytes.len() - to);
        bytes[to..to + count].copy_from_slice(&source[from..from + count]);
        bytes.truncate(keep.index(bytes.len()) + 1);
        let length = bytes.len() as u64;
        check(bytes, declared, length)?;
    }
}

#[test]
fn a_map_of_millions_of_blocks_takes_little_memory() {
    const SIZE: u64 = 4 << 40;
    let blocks = (SIZE / MIB) as u32;
    let map_end = 512 + u64::from(blocks) * 4;
    let mut huge = dynamic()
        .u64(field::DISK_SIZE, SIZE)
        .u32(field::BLOCKS, blocks)
        .u32(field::DATA_OFFSET, map_end as u32)
        .cut(map_end);
    // Every block is there, one after the other.
    for (entry, block) in huge[512..].chunks_exact_mut(4).zip(0_u32..) {
        entry.copy_from_slice(&block.to_le_bytes());
    }
    let before = peak_kib();
    let length = map_end + SIZE;
    let mut reader = Padded::new(huge, length);
    let info = inspect(&mut reader, Format::Vdi, length).unwrap();
    assert_eq!((info.virtual_size_bytes, info.data_bytes), (SIZE, SIZE));
    assert!(reader.largest <= 64 << 10, "a read of {} bytes", reader.largest);
    assert!(peak_kib() - before < 16 << 10, "{} KiB more", peak_kib() - before);
}

/// The most memory that this process has ever had mapped.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

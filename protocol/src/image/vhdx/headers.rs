//! The two headers, of which the one with the higher sequence number is in force.

use std::io::{Read, Seek};

use super::regions::Region;
use super::{CHECKSUM_AT, VhdxError, checksum};
use crate::image::bytes::{le16, le32, le64};
use crate::image::source::Source;
use crate::image::{InspectError, Part};
use crate::{KIB, MIB};

const PLACES: [u64; 2] = [64 * KIB, 128 * KIB];
const HEADER_BYTES: u64 = 4 * KIB;
const VERSION: u16 = 1;

#[derive(Debug, PartialEq, Eq)]
struct Header {
    sequence: u64,
    /// Empty unless changes wait in the log.
    log_id: [u8; 16],
    log_version: u16,
    log_length: u32,
    log_offset: u64,
}

/// Gives the place of the log, which is empty.
pub(super) fn read<R: Read + Seek>(source: &mut Source<'_, R>) -> Result<Option<Region>, InspectError> {
    let mut parse = |place| parse(source.bytes(Part::Header, place, HEADER_BYTES)?);
    let (first, second) = (parse(PLACES[0])?, parse(PLACES[1])?);
    if first.sequence == second.sequence && first != second {
        return Err(VhdxError::Damaged("it has two different headers in force").into());
    }
    let header = if second.sequence > first.sequence { second } else { first };
    if header.log_id != [0; 16] {
        return Err(VhdxError::DirtyLog.into());
    }
    if header.log_version != 0 {
        return Err(VhdxError::Field { field: "log_version", value: header.log_version.into() }.into());
    }
    if header.log_length == 0 {
        return Ok(None);
    }
    let log = Region { offset: header.log_offset, length: header.log_length.into() };
    log.check(source)?;
    Ok(Some(log))
}

fn parse(bytes: &[u8]) -> Result<Header, InspectError> {
    if !bytes.starts_with(b"head") {
        return Err(VhdxError::Damaged("a header has no signature").into());
    }
    if checksum(bytes) != le32(bytes, CHECKSUM_AT) {
        return Err(VhdxError::Checksum("a header").into());
    }
    let version = le16(bytes, 66);
    if version != VERSION {
        return Err(VhdxError::Version(version).into());
    }
    let mut log_id = [0; 16];
    log_id.copy_from_slice(&bytes[48..64]);
    Ok(Header {
        sequence: le64(bytes, 8),
        log_id,
        log_version: le16(bytes, 64),
        log_length: le32(bytes, 68),
        log_offset: le64(bytes, 72),
    })
}

const _: () = assert!(PLACES[1] + HEADER_BYTES < MIB);

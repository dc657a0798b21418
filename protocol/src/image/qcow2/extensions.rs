//! The header extensions, between the header and the end of the first cluster.

use super::be32;
use crate::image::InspectError;

const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const ENCRYPTION_HEADER: u32 = 0x0537_be77;
const DATA_FILE_NAME: u32 = 0x4441_5441;

/// Type and length.
const PREFIX_BYTES: usize = 8;

/// Walks the extensions. Those that lead out of the file are refused even when no other field says so;
/// unknown ones "can be safely ignored" by the specification.
pub(super) fn check(first_cluster: &[u8], header_length: u64) -> Result<(), InspectError> {
    let mut rest = first_cluster.get(header_length as usize..).ok_or(InspectError::Extensions)?;
    // Each turn takes at least a prefix, so the loop ends within the cluster.
    while !rest.is_empty() {
        if rest.len() < PREFIX_BYTES {
            return Err(InspectError::Extensions);
        }
        match be32(rest, 0) {
            END => return Ok(()),
            BACKING_FORMAT => return Err(InspectError::BackingFile),
            DATA_FILE_NAME => return Err(InspectError::DataFile),
            ENCRYPTION_HEADER => return Err(InspectError::Encrypted),
            _ => {
                let padded = (be32(rest, 4) as usize).next_multiple_of(8);
                rest = rest.get(PREFIX_BYTES + padded..).ok_or(InspectError::Extensions)?;
            }
        }
    }
    Ok(())
}

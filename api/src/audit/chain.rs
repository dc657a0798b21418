//! The chain of hashes: what each link covers. No I/O.
//!
//! ```text
//! hash of link n = SHA-256("cumulo audit 1" ‖ hash of link n-1 ‖ n ‖ every field of its record)
//! ```
//!
//! Each field is preceded by its length, an absent one by a length that no field has, so that no two records
//! look alike.

use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

/// The hash before the first link.
pub(super) const GENESIS: [u8; 32] = [0; 32];
const DOMAIN: &[u8] = b"cumulo audit 1";

/// A record as it is stored; JSON as PostgreSQL writes it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub id: Uuid,
    pub at: OffsetDateTime,
    pub project_id: Option<Uuid>,
    pub request_id: Uuid,
    pub principal_id: Option<Uuid>,
    pub principal_name: String,
    pub credential_kind: String,
    pub credential_id: Option<Uuid>,
    pub source_address: String,
    pub action: String,
    pub resource: String,
    pub resource_id: Option<Uuid>,
    pub outcome: String,
    pub deciding: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// The hash of a record's link at this position.
pub(super) fn link(previous: &[u8; 32], position: i64, record: &Stored) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(DOMAIN);
    hasher.update(previous);
    hasher.update(position.to_be_bytes());
    let micros = (record.at.unix_timestamp_nanos() / 1000).to_be_bytes();
    let fields: [Option<&[u8]>; 16] = [
        Some(record.id.as_bytes()),
        Some(&micros),
        bytes(record.project_id.as_ref()),
        Some(record.request_id.as_bytes()),
        bytes(record.principal_id.as_ref()),
        Some(record.principal_name.as_bytes()),
        Some(record.credential_kind.as_bytes()),
        bytes(record.credential_id.as_ref()),
        Some(record.source_address.as_bytes()),
        Some(record.action.as_bytes()),
        Some(record.resource.as_bytes()),
        bytes(record.resource_id.as_ref()),
        Some(record.outcome.as_bytes()),
        Some(record.deciding.as_bytes()),
        record.before.as_deref().map(str::as_bytes),
        record.after.as_deref().map(str::as_bytes),
    ];
    for field in fields {
        hasher.update(field.map_or(u64::MAX, |field| field.len() as u64).to_be_bytes());
        hasher.update(field.unwrap_or_default());
    }
    hasher.finalize().into()
}

/// What a signature over the newest link covers.
pub(super) fn head_message(position: i64, hash: &[u8]) -> Vec<u8> {
    [DOMAIN, b" head", &position.to_be_bytes(), hash].concat()
}

fn bytes(id: Option<&Uuid>) -> Option<&[u8]> {
    id.map(|id| &id.as_bytes()[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Stored {
        Stored {
            id: Uuid::from_u128(1),
            at: OffsetDateTime::UNIX_EPOCH,
            project_id: None,
            request_id: Uuid::from_u128(2),
            principal_id: None,
            principal_name: "ab".to_owned(),
            credential_kind: "c".to_owned(),
            credential_id: None,
            source_address: String::new(),
            action: String::new(),
            resource: String::new(),
            resource_id: None,
            outcome: String::new(),
            deciding: "[]".to_owned(),
            before: None,
            after: Some(String::new()),
        }
    }

    #[test]
    fn every_difference_makes_another_hash() {
        let base = link(&GENESIS, 1, &record());
        assert_eq!(base, link(&GENESIS, 1, &record()));
        let variants = [
            link(&GENESIS, 2, &record()),
            link(&base, 1, &record()),
            link(&GENESIS, 1, &Stored { id: Uuid::from_u128(3), ..record() }),
            link(&GENESIS, 1, &Stored { project_id: Some(Uuid::nil()), ..record() }),
            // Letters that move from one field to the next.
            link(
                &GENESIS,
                1,
                &Stored { principal_name: "a".into(), credential_kind: "bc".into(), ..record() },
            ),
            // Nothing is not an empty text, and before is not after.
            link(&GENESIS, 1, &Stored { after: None, ..record() }),
            link(&GENESIS, 1, &Stored { before: Some(String::new()), after: None, ..record() }),
        ];
        for (index, variant) in variants.iter().enumerate() {
            assert_ne!(*variant, base, "variant {index}");
        }
    }
}

//! What the samples are made of.

use std::collections::BTreeSet;

use protocol::{Name, Sha256};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

/// An id of whatever kind.
pub fn id<T: From<Uuid>>(number: u128) -> T {
    Uuid::from_u128(0x0190_a0a0_0000_7000_8000_0000_0000_0000 + number).into()
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn digest(byte: u8) -> Sha256 {
    Sha256::from_bytes([byte; 32])
}

pub fn moment() -> OffsetDateTime {
    datetime!(2026-11-28 06:30:00.5 UTC)
}

/// Every name of these, each once: whoever adds one is told here by the compiler.
macro_rules! covers {
    ($values:expr, $type:ident: $($variant:ident),+ $(,)?) => {{
        let seen = $values.into_iter().map(|value| match value {
            $($type::$variant { .. } => stringify!($variant),)+
        });
        crate::parts::all_of(stringify!($type), &seen.collect(), &[$(stringify!($variant)),+].into());
    }};
}
pub(crate) use covers;

pub fn all_of(of: &str, seen: &BTreeSet<&'static str>, all: &BTreeSet<&'static str>) {
    assert_eq!(seen, all, "a sample of each {of}");
}

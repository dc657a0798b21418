//! Sizes and counters that must not be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes in a kibibyte.
pub const KIB: u64 = 1 << 10;
/// Bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;
/// Bytes in a gibibyte.
pub const GIB: u64 = 1 << 30;

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($inner:ty))+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

numbers! {
    /// Memory in mebibytes.
    MemoryMib(u32)
    /// Disk size in gibibytes.
    SizeGib(u32)
    /// Counts the changes of one resource's intent; only grows. An agent refuses an older one.
    Generation(i64)
    /// Counts the changes of one host's desired state, in commit order; only grows.
    Revision(i64)
}

impl MemoryMib {
    pub const fn bytes(self) -> u64 {
        self.0 as u64 * MIB
    }
}

impl SizeGib {
    pub const fn bytes(self) -> u64 {
        self.0 as u64 * GIB
    }
}

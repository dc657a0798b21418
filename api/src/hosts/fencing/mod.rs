//! Fencing: a host that has fallen silent is switched off by a program of the operator, and is dead then as if the operator
//! had said so.
//!
//! It is the last means: what a [lease](super::leases) proves needs nobody to be switched off. Silence is counted from when
//! it could have been heard, and many silent hosts at once are a fault of the network, not of them.

mod cli;
mod options;
mod pass;
mod program;
mod rules;
pub(super) mod store;
#[cfg(test)]
mod tests;
mod types;

pub use self::cli::{TryOptions, try_program};
pub use self::options::{FenceOptions, Fencer};
#[cfg(test)]
pub(crate) use self::pass::fence_with;
pub(crate) use self::pass::{fence, watch};
pub use self::types::HostFencing;

/// Programs that one replica runs at a time. A power supply that has died takes its BMC along, and such a one is waited for
/// to its time limit.
pub(crate) const AT_ONCE: usize = 4;

//! Hosts: the machines that run instances, as the operator sees them.
//!
//! A machine joins with a one-time token and from then on speaks through [`crate::agents`]. What it can do
//! comes from its agent; what placement has given away is kept by the database itself.

mod fencing;
mod heartbeats;
pub(crate) mod leases;
mod maintenance;
mod model;
mod removal;
mod routes;
mod silence;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod types;
pub(crate) mod unknown_guests;
mod verify;

#[cfg(test)]
pub(crate) use fencing::fence_with;
pub(crate) use fencing::{AT_ONCE as FENCES_AT_ONCE, fence, watch as watch_for_silence};
pub use fencing::{FenceOptions, Fencer, TryOptions as FenceTryOptions, try_program};
pub use heartbeats::Heartbeats;
pub(crate) use model::{HostState, UNREACHABLE_AFTER, WITNESS_FRESH, is_outdated, refused_version};
pub(crate) use routes::{hash_secret, router};
pub(crate) use silence::Doer;
pub(crate) use types::{Capacity, MEMORY_OVERCOMMIT, NewHost, VCPU_OVERCOMMIT};
pub(crate) use verify::{silent, verify};

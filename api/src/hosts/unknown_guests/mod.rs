//! Guests that a host has and of which the cloud wants nothing: it does not know them, because its database was restored from
//! a backup that is older than they are, or wants them on another host.
//!
//! Their host leaves them alone and tells what it was told of them before. That is kept as long as they are there, for
//! whoever has to decide about them, and their addresses are nobody else's meanwhile: a row of `subnet_addresses` each, as
//! long as no port has it. What a host says is bounded; it can keep no more than [`store::MOST_ADDRESSES`] from others.

mod reconcile;
mod routes;
mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use reconcile::look_after;
pub(super) use routes::router;
pub(crate) use store::{fold, has_mac};

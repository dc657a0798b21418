//! Pools: directories that several hosts share, for volumes that are on none of them.
//!
//! The operator makes one here and tells the agents where it is, in either order; agents report what they reach. A
//! volume in a pool can be used on every host that has it. Two directories under one name would be two halves of
//! everybody's data, so each has an identity, and hosts with another one than the first do not have the pool.

mod reconcile;
mod routes;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod types;
mod verify;

pub(crate) use reconcile::assign_orders;
pub(crate) use routes::router;
pub(crate) use verify::verify;

//! Maintenance of a host: it is emptied, stays empty, and is given back.
//!
//! The calls here say what is wanted; [`crate::instances::evacuation`] works it off.

mod routes;
pub(super) mod store;
#[cfg(test)]
mod tests;
mod types;

pub(super) use routes::router;
pub use types::{HostMaintenance, MaintenanceState};

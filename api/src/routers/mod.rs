//! Routers: what leads from subnet to subnet and, if they are external, out of the cloud. A router stands in a
//! subnet with the subnet's gateway address; a subnet has one router at most.
//!
//! A router is no machine: every host that needs it has it, each time alike.

mod model;
mod routes;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use routes::router;

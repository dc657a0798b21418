//! Security groups: rules about who may reach the ports that are in them, and whom those may reach. Rules allow;
//! what no rule of a port's groups allows is denied. They are stateful: answers pass.
//!
//! A rule's other end is a range of addresses or another group, and then means the addresses of all ports that
//! are in that group at the time. Groups belong to a project and reach no further.

mod model;
mod routes;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use routes::router;

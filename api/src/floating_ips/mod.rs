//! Floating IPs: public addresses out of an address pool that stand for the private address of a port, both ways.
//! They belong to a project until they are deleted, whatever they stand for, and may move from port to port. A
//! port that goes leaves its floating IP behind.

mod routes;
mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use routes::router;

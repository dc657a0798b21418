//! Address pools: ranges of public addresses that the operator gives out as floating IPs. They are IPv4: IPv6
//! needs no address that stands for another.

pub(crate) mod model;
mod routes;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use routes::router;

//! Subnets: ranges of addresses in a network, and who may have which.
//!
//! A subnet's range, gateway, service address and allocation ranges never change. Its addresses are rows of
//! `subnet_addresses`; what is free is kept beside them by triggers, see `0014_networks.sql`.

mod model;
pub(crate) mod reserved;
mod routes;
mod store;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use model::{is_usable, plan_default};
pub(crate) use routes::router;
pub(crate) use store::{NewSubnet, insert_planned};

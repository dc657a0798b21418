//! Ports: network cards with their addresses, attached to an instance or waiting for one.
//!
//! A port is made by its owner and outlives the instances it is attached to, or it is made with a card of an
//! instance ([`cards`]) and goes with it.

pub(crate) mod cards;
mod model;
mod routes;
mod store;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use routes::router;

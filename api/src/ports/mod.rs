//! Ports: network cards with their addresses, attached to an instance or waiting for one.
//!
//! A port is made by its owner and outlives the instances it is attached to, or it is made with a card of an
//! instance ([`cards`]) and goes with it. Either way its addresses are its own until no guest has the card any more.

pub(crate) mod cards;
mod model;
mod reconcile;
mod routes;
mod store;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use reconcile::release_of_lost_hosts;
pub(crate) use routes::router;

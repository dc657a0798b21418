//! API keys: with them programs prove who they are, as a service account or in the name of a user.
//!
//! A key can do what its owner can, or less: a policy of its own narrows it, and never widens it. The key is
//! shown once; what is stored is a hash, which is enough since a key is 256 random bits.

mod model;
mod routes;
mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use routes::router;
pub(crate) use store::forget;

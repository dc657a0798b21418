//! The audit log: who did what, from where, and which statement of which policy let them or stopped them.
//!
//! A record is written in the transaction of what it describes. Afterwards the notary links it into a chain of
//! hashes and signs the newest link, so that a record that is changed, removed, inserted or moved shows.

mod chain;
mod notary;
mod record;
mod routes;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod verify;

pub(crate) use notary::attest;
pub(crate) use record::{Actor, Deed, Outcome, write, write_at, write_refusal};
pub(crate) use routes::router;
pub use verify::{ExpectedHead, Finding, Report, verify};

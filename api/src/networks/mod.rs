//! Networks: private Ethernets of a project, and what each host has to know of them.
//!
//! A change of anything in a project's networks writes a row of `pending_network_changes` (triggers of
//! `0014_networks.sql`); [`spread`] finds the hosts concerned and gives them a new revision; their feed then
//! carries one whole document per host ([`Documents`]).

mod documents;
mod host;
mod reconcile;
mod routes;
pub(crate) mod store;
mod types;
mod verify;

#[cfg(test)]
mod tests;

use std::str::FromStr;

use crate::http::{ApiError, FieldError};

pub use documents::Documents;
pub(crate) use reconcile::spread;
pub(crate) use routes::router;
pub(crate) use verify::{Broken, verify};

/// Ports are named `<hostname>.<this>`, in every network of the project.
pub(crate) fn dns_domain(project: &str) -> String {
    format!("{project}.internal")
}

/// A text of the database that its constraints keep readable.
pub(crate) fn stored<T: FromStr>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::internal(format!("a row says {text:?}, which cannot be read")))
}

/// The body names a network that is not there.
pub(crate) fn no_network(pointer: &str) -> FieldError {
    FieldError::new(pointer, "not_found", "this project has no such network")
}

//! Drift: what on hosts is not as wanted, since when, and who mends it.
//!
//! Agents look at their hosts about once a minute and tell what they found twice in a row ([`fold`]). The last report of a host
//! takes the place of the one before; what is in both keeps its age. Nothing is written while nothing changes, but for the
//! time of the look now and then. What a host says is bounded, cleaned, and about nothing but what that host has.

mod model;
mod routes;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod verify;

pub(crate) use routes::router;
pub(crate) use store::fold;
pub(crate) use verify::verify;

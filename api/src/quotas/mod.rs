//! Quotas: how much of each resource a project may have.
//!
//! The database keeps them: triggers (`migrations/0008_quotas.sql`) add up what a project uses in the
//! transaction that changes it, and refuse growth beyond the limit, whatever statement it was. No handler
//! asks; a refusal comes back as an error of the statement and becomes `quota_exceeded` ([`exceeded_limits`]).
//! A limit may be lowered below what is used: nothing is taken away, only growth is refused.

mod model;
mod routes;
pub(crate) mod store;
mod types;

#[cfg(test)]
mod tests;

pub use model::Resource;
pub(crate) use model::{exceeded_limits, in_words};
pub(crate) use routes::router;
pub use store::{Drift, drift};
pub use types::{ExceededLimit, QuotaEffect};

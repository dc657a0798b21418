//! Insight into instances: what their hosts measure, for some hours, and what the guests say of themselves.
//!
//! Hosts bring samples and answers ([`take`]); both are a stranger's. Counters become rates when somebody asks
//! ([`history`]), or are given to Prometheus as they are ([`prometheus`]). Nothing of a sample is in the memory of a
//! replica, and nothing of it is changed or deleted: see the decision about the history of metrics.

mod discovery;
mod history;
mod prometheus;
mod routes;
mod sample;
mod store;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use routes::router;
pub(crate) use store::taking::{empty_next_slot, take};

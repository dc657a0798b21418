//! Events: what happened to what, one log for each project and one for the cloud, without gaps.
//!
//! Triggers (`migrations/0009_events.sql`) write down every change in the transaction that makes it, so no path
//! can forget one, and what is rolled back never happened. Such an event has no position yet: transactions
//! commit in another order than they began, and a reader who had been given number 7 would never ask for the 6
//! that was committed a moment later.
//!
//! Positions are therefore given after the commit. The sequencer ([`sequence`]) moves what is committed from
//! `pending_events` to `events` and numbers it 1, 2, 3 … in each log, in one transaction that holds the row of
//! that log in `event_logs`: positions become visible in their order, so whoever has seen n has seen all before
//! it, and nothing turns up later. It runs on every replica, one at a time, and may be killed at any point.
//! A change that began after another was committed comes after it. So do changes of one resource, since the later
//! one waits for the row; of different resources, those that overlap in time may come in either order.
//!
//! Readers ([`routes`], [`stream`]) see numbered events alone, and go on from any position, on any replica.

mod log;
mod routes;
mod sequence;
mod store;
mod stream;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use routes::router;
pub(crate) use sequence::{forget_old, sequence};
pub use stream::EventStreams;

//! Schedules: snapshots of a volume or an instance at regular times, of which the newest are kept.
//!
//! A schedule knows its next slot ([`slots`]); the controller takes the snapshot and moves on to the slot after now in one
//! transaction, so that each slot is run once however many replicas there are. What a slot came to is shown at the schedule.

mod reconcile;
mod routes;
mod slots;
mod store;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use reconcile::run;
pub(crate) use routes::router;
pub(crate) use store::refuse_overfull;
